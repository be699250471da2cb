"""Class-conditional BigGAN on CIFAR-10 at 32x32, at a width that a small CPU can train.

    sagan-jax train biggan_cifar10_32 --source cifar10-train.zip

Costs: 14 minutes on two CPU cores (jax 0.10.2): 1,500 steps at 137 images/s (median), on a machine shared with other
jobs; 19.7 GFLOP a step (counted by `step_flops`).
Reached: rows differ in colour (sky, grass, dark vehicles), with blobs instead of objects and a faint grid. On an H200
in TF32, `fd5k_train_lite0` is 210 and recall 0. `cifar10_32` has 45.8 after 2.7 times as many images; noise has 350.
gamma is 0.12 in G and -0.05 in D. StudioGAN's own run reaches FID 8.03 after 98,000 steps.

`--source` takes a zip or folder with one folder for each class. The zip that we used holds lossy JPEG copies.

The paper has no such run. This run has a 32-pixel network of width 8 with attention at 16x16, and latents of 4 parts
of 20. Batch 64, both learning rates 2e-4 and Adam's betas 0.5 and 0.999 are those of StudioGAN's
configs/CIFAR10/BigGAN.yaml. D has one update a step (5 in StudioGAN), and there are 1,500 steps (100,000). Running
statistics have decay 0.99. The moving average of G has decay 0.999 from step 500 (0.9999 from step 1,000). The
orthogonal penalty is the paper's, 1e-4; StudioGAN has none.
"""

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run of minutes on two CPU cores."""
    return Experiment(
        name="biggan_cifar10_32",
        data=Data(source="../shared/data/cifar10-train.zip", held_out="../shared/data/cifar10-test.zip"),
        networks=Networks(
            family="biggan",
            resolution=32,
            num_classes=10,
            base_channels=8,
            latent_size=80,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_decay=0.99,
            initializer="orthogonal",
        ),
        training=Training(
            total_steps=1500,
            batch_size=64,
            orthogonal_strength=1e-4,
            generator_learning_rate=2e-4,
            discriminator_learning_rate=2e-4,
            adam_beta1=0.5,
            adam_beta2=0.999,
            ema_decay=0.999,
            ema_start_step=500,
        ),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
    )
