"""Figure 3 of the paper, first row: spectral norm in D only, equal rates, no attention.

    sagan-jax train imagenet_128_sn_discriminator_only --source imagenet-train

Costs: 18.24 TFLOP a step (counted by `step_flops`); about 108 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper reports mode collapse "very early", and FID 181.84 after 10,000 steps (unverified).

Departs from `imagenet_128_no_attention`: G is not normalised, as in SNGAN, and both networks have one learning rate,
4e-4. We do not know the learning rate of the figure. The authors' first commit starts both networks with 4e-4
(self-attention-gan:model.py at 0a93720). There, G's rate falls to a quarter between steps 100,000 and 250,000.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns the paper's baseline before its stabilisers."""
    return Experiment(
        name="imagenet_128_sn_discriminator_only",
        networks=Networks(
            generator_attention_resolutions=(),
            discriminator_attention_resolutions=(),
            spectral_norm="discriminator",
        ),
        training=Training(generator_learning_rate=4e-4),
    )
