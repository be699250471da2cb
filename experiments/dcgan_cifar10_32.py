"""DCGAN on CIFAR-10 at 32x32: only convolutions, as a baseline that shows what attention adds.

    sagan-jax train dcgan_cifar10_32 --source cifar10-train.zip
    sagan-jax train dcgan_cifar10_32 --generator-attention-resolutions 16 --discriminator-attention-resolutions 16
      --workdir runs/dcgan_attention

Costs: 9.41 GFLOP a step (counted by `step_flops`); 9 minutes for 2,000 steps of 64 on 2 CPU cores, shared with other
jobs, at 293 images/s (median).
Reached: varied colours, and blobs instead of objects, under a grid that the 4x4 transposed convolutions cause. On an
H200 in TF32, `fd5k_train_lite0` is 227 (noise has 350) and recall 0. With StudioGAN's learning rates, 2e-4 for both
networks, D wins at this width: its loss is 0.01 to 0.07 up to step 1,250, and all samples are one pattern of dots.
StudioGAN's own run reaches FID 49.03 and then collapses.

The second command adds only the attention layer. It ran at 258 images/s on the CPU. On the H200, `fd5k_train_lite0` is
238 and recall 0. gamma ends at -0.14 in G and 0.06 in D. Each result is one run of one seed, so the difference shows
nothing.

`--source` takes a zip or folder with one folder for each class. The zip that we used holds lossy JPEG copies.

Departs from StudioGAN's configs/CIFAR10/DCGAN.yaml (its settings in brackets): width 16 (64), 2,000 steps (200,000),
one update of D a step (2), G's learning rate 1e-3 (2e-4), running statistics with decay 0.99 (0.9). The following
settings are the same: no classes, no spectral norm, batch norm in both networks, the non-saturating loss, batch 64, D's
learning rate 2e-4, Adam's betas 0.5 and 0.999.
"""

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run of minutes on two CPU cores."""
    return Experiment(
        name="dcgan_cifar10_32",
        data=Data(source="../shared/data/cifar10-train.zip", held_out="../shared/data/cifar10-test.zip"),
        networks=Networks(
            family="dcgan",
            resolution=32,
            num_classes=0,
            base_channels=16,
            generator_attention_resolutions=(),
            discriminator_attention_resolutions=(),
            norm_epsilon=1e-4,
            norm_decay=0.99,
            discriminator_norm="batch",
            initializer="orthogonal",
            spectral_norm="none",
        ),
        training=Training(
            total_steps=2000,
            batch_size=64,
            loss="non_saturating",
            generator_learning_rate=1e-3,
            discriminator_learning_rate=2e-4,
            adam_beta1=0.5,
            adam_beta2=0.999,
        ),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
    )
