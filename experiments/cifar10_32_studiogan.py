"""StudioGAN's SAGAN on CIFAR-10 at 32x32, with StudioGAN's settings at full width.

    sagan-jax train cifar10_32_studiogan --source cifar10-train.npz

Costs: 1.537 TFLOP a step (counted by `step_flops`), with five updates of D; about 0.70 hours of one H200. There, D saw
12,500 to 13,000 real images a second with five updates (TF32, jax 0.11.2).
Reached: not trained. StudioGAN reports IS 8.64 and FID 10.35 (50,000 images, standing statistics, training set). Its
older protocol gave IS 8.68 and FID 14.01 after 90,000 steps (10,000 images, batch statistics, test set).

`--source` takes the original images, not JPEG copies of them. `sagan-jax reproduce cifar10` checks that, trains and
scores. `--held-out` takes the test images, for the older protocol.

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/configs/CIFAR10/SAGAN.yaml, src/config.py, src/models/resnet.py.

Departs from `imagenet_128`, as StudioGAN does:

- 32 pixels, 10 classes and attention at 16x16
- class gains and shifts are spectrally normalised maps of the label
- the shortcuts of D start after the block's first ReLU, except in the first block
- orthogonal initialisation of the kernels
- epsilon 1e-4 in the norms, and 1e-6 in spectral norm and in Adam
- running moments with decay 0.9
- sigma of the trained networks from the stored u and v
- batch 64, 100,000 steps with five updates of D, one learning rate of 2e-4, and Adam's betas 0.5 and 0.999
- random flips

Two differences cannot be configured. StudioGAN changes u and v at each forward pass of a network in training; ours
change once an update. StudioGAN divides u and v by their length or epsilon, whichever is larger; ours adds epsilon to
the length.
"""

from sagan_jax.config import Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns StudioGAN's run, as far as it can be configured."""
    return Experiment(
        name="cifar10_32_studiogan",
        networks=Networks(
            resolution=32,
            num_classes=10,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_epsilon=1e-4,
            norm_decay=0.9,
            final_norm_decay=0.9,
            conditional_gain="map",
            discriminator_shortcut="after_relu",
            initializer="orthogonal",
            spectral_evaluation="stored",
            spectral_epsilon=1e-6,
        ),
        training=Training(
            total_steps=100_000,
            batch_size=64,
            discriminator_steps=5,
            flips=True,
            generator_learning_rate=2e-4,
            discriminator_learning_rate=2e-4,
            adam_beta1=0.5,
            adam_beta2=0.999,
            adam_epsilon=1e-6,
        ),
        recording=Recording(save_every_steps=2000, keep_every_steps=10_000),
    )
