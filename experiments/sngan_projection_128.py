"""StudioGAN's SNGAN with projection on ImageNet at 128x128: SAGAN's predecessor, without attention.

    sagan-jax train sngan_projection_128 --source imagenet-train

Costs: 27.42 TFLOP a step (counted by `step_flops`), with two updates of D; about 81.4 A100-hours, an estimate at 30% of
156 TFLOP/s (TF32).
Reached: not trained. StudioGAN reports FID 31.49 and IS 31.42 (50,000 images, standing statistics, training set), and
FID 28.39 and IS 32.40 in its table of reproductions. SAGAN's paper has 27.62 and 36.8 for SNGAN's own networks.

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/configs/ImageNet/SNGAN-256.yaml, src/config.py, src/models/resnet.py.

Departs from `studiogan_128`, as StudioGAN does: no attention; spectral norm only in D, so the class maps of G are not
normalised either; learning rates 5e-5 and 2e-4, two updates of D; 500,000 steps.

The networks are those of StudioGAN's SAGAN. SNGAN's authors had other blocks in D, with fewer channels inside, which
cannot be configured here. The differences in u and v of `studiogan_128` apply here too.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns StudioGAN's run, as far as it can be configured."""
    return Experiment(
        name="sngan_projection_128",
        networks=Networks(
            generator_attention_resolutions=(),
            discriminator_attention_resolutions=(),
            norm_epsilon=1e-4,
            norm_decay=0.9,
            final_norm_decay=0.9,
            conditional_gain="map",
            discriminator_shortcut="after_relu",
            initializer="orthogonal",
            spectral_norm="discriminator",
            spectral_evaluation="stored",
            spectral_epsilon=1e-6,
        ),
        training=Training(
            total_steps=500_000,
            discriminator_steps=2,
            flips=True,
            generator_learning_rate=5e-5,
            discriminator_learning_rate=2e-4,
            adam_beta2=0.999,
            adam_epsilon=1e-6,
        ),
    )
