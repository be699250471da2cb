"""StudioGAN's SAGAN on ImageNet at 128x128, with StudioGAN's settings: the run that it lists as not reproduced.

    sagan-jax train studiogan_128 --source imagenet-train

Costs: 20.01 TFLOP a step (counted by `step_flops`); about 119 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not trained. StudioGAN reports FID 51.82 and IS 19.16 in its table of reproductions, where the paper has 18.28
and 51.43. Its older protocol gave FID 34.726 and IS 29.848 (50,000 images, batch statistics, validation set). In its
log, FID rises from 50.8 to 58.8 between steps 336,000 and 500,000, and then falls again.

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/configs/ImageNet/SAGAN-256.yaml, src/config.py, src/models/resnet.py.

Departs from `imagenet_128`, as StudioGAN does:

- attention at 64x64
- class gains and shifts are spectrally normalised maps of the label
- the shortcuts of D start after the block's first ReLU, except in the first block
- orthogonal initialisation of the kernels
- epsilon 1e-4 in the norms, and 1e-6 in spectral norm and in Adam
- running moments with decay 0.9
- sigma of the trained networks from the stored u and v
- Adam's beta2 0.999
- random flips

Learning rates 1e-4 and 4e-4, one update each, beta1 0, batch 256 and a million steps are the paper's.

Two differences cannot be configured. StudioGAN changes u and v at each forward pass of a network in training; ours
change once an update. StudioGAN divides u and v by their length or epsilon, whichever is larger; ours adds epsilon to
the length.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns StudioGAN's run, as far as it can be configured."""
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
