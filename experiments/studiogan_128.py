"""StudioGAN's SAGAN on ImageNet at 128x128, by its own rule: the run that is listed as not reproduced.

    sagan-jax train studiogan_128 --source imagenet-train

Costs: 20.01 TFLOP a step (counted by `step_flops`); about 119 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not trained. StudioGAN reports FID 51.82 and IS 19.16 in its table of reproductions, where the paper has 18.28
and 51.43. Its older protocol, 50,000 images in batch statistics against the validation set, gave FID 34.726 and IS
29.848. In its log FID rises from 50.8 to 58.8 between steps 336,000 and 500,000, and then falls again.

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/configs/ImageNet/SAGAN-256.yaml, src/config.py, src/models/resnet.py.

Departs from `imagenet_128`, as StudioGAN does: attention at 64x64; class gains and shifts as normalised maps of the
label; D's shortcuts read what its ReLU left; orthogonal kernels; epsilons 1e-4 in the norms, 1e-6 in spectral norm and
in Adam; running moments with decay 0.9; Adam's beta2 0.999; flips. Rates 1e-4 and 4e-4, one update each, beta1 0, batch
256 and a million steps are the paper's.

Some differences have no field. Its u and v move at each pass of a network in training; ours once an update. Its u and v
have epsilon as the least length, where ours adds it.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns StudioGAN's run as far as our fields say it."""
    return Experiment(
        name="studiogan_128",
        networks=Networks(
            generator_attention_resolutions=(64,),
            discriminator_attention_resolutions=(64,),
            norm_epsilon=1e-4,
            norm_decay=0.9,
            final_norm_decay=0.9,
            conditional_gain="map",
            discriminator_shortcut="after_relu",
            initializer="orthogonal",
            spectral_evaluation="stored",
            spectral_epsilon=1e-6,
        ),
        training=Training(adam_beta2=0.999, adam_epsilon=1e-6, flips=True),
    )
