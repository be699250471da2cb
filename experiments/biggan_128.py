"""BigGAN on ImageNet at 128x128.

    sagan-jax train biggan_128 --source imagenet-train

Costs: 524.9 TFLOP a step (counted by `step_flops`); about 779 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best are FID 8.51 and IS 99.31 (from memory, unverified).

The settings are those of the paper (Brock et al. 2019, appendix C):

- width 96, attention at 64x64, latents of 120 in 6 parts, and a shared class embedding of 128
- orthogonal initialisation and an orthogonal penalty
- batch 2,048, two updates of D a step, learning rates 5e-5 and 2e-4, and Adam's betas 0 and 0.999
- a moving average of G with decay 0.9999 from step 20,000

One setting differs from the paper. A batch passes through the networks in 8 parts of 256, as in BigGAN-PyTorch's
script. So batch moments are those of 256 images. `--accumulation-steps 1` is the paper's setting, for devices that hold
the whole batch.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns the run of the paper at 128 pixels."""
    return Experiment(
        name="biggan_128",
        networks=Networks(
            family="biggan",
            base_channels=96,
            latent_size=120,
            generator_attention_resolutions=(64,),
            discriminator_attention_resolutions=(64,),
            norm_decay=0.9,
            initializer="orthogonal",
            spectral_epsilon=1e-6,
        ),
        training=Training(
            total_steps=250_000,
            batch_size=2048,
            accumulation_steps=8,
            discriminator_steps=2,
            orthogonal_strength=1e-4,
            generator_learning_rate=5e-5,
            discriminator_learning_rate=2e-4,
            adam_beta2=0.999,
            adam_epsilon=1e-6,
            ema_decay=0.9999,
            ema_start_step=20_000,
        ),
    )
