"""Class-conditional SAGAN on CIFAR-10 at 32x32, at a width that a small CPU can train.

    sagan-jax train cifar10_32 --source cifar10-train.zip

Costs: 40 minutes on two CPU cores (jax 0.10.2): 4,000 steps at 114 images/s (median), stopped once and resumed;
44.3 GFLOP a step (counted by `step_flops`).
Reached: rows differ in colour and outline: animals on grass, ships and aeroplanes on blue, vehicles with windows. No
sample passes for a photograph. On an H200 in TF32, `fd5k_train_lite0` is 45.8; real test images have 4.02 and noise
350. A linear classifier assigns 39% of the samples to the requested class (79% of real images). gamma rose to 0.15 in G
and 0.44 in D.

`--source` takes a zip or folder with one folder for each class. The zip that we used holds lossy JPEG copies.

Departs from the paper (its settings in brackets): a 32-pixel network of width 16 (128 pixels, width 64) with attention
at 16x16; batch 64 (256); learning rates 3e-4 and 1.2e-3 (1e-4 and 4e-4); running statistics with decay 0.99; a moving
average of G with decay 0.999 (none).
"""

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run of three quarters of an hour on two CPU cores."""
    return Experiment(
        name="cifar10_32",
        data=Data(source="../shared/data/cifar10-train.zip", held_out="../shared/data/cifar10-test.zip"),
        networks=Networks(
            resolution=32,
            num_classes=10,
            base_channels=16,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_decay=0.99,
            final_norm_decay=0.99,
        ),
        training=Training(
            total_steps=4000,
            batch_size=64,
            generator_learning_rate=3e-4,
            discriminator_learning_rate=1.2e-3,
            ema_decay=0.999,
            ema_start_step=1000,
        ),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
    )
