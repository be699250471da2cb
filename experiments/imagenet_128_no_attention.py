"""Table 1 of the paper, and the last row of its Figure 3: no attention, all else as in `imagenet_128`.

    sagan-jax train imagenet_128_no_attention --source imagenet-train

Costs: 18.24 TFLOP a step (counted by `step_flops`); about 108 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's values, all unverified, are FID 22.96 and IS 42.87 after a million steps. Figure 4
has FID 99.04 after 10,000 steps, 40.96 after 160,000 and 34.62 after 260,000.

The rest is as in `imagenet_128`: both networks normalised, D's learning rate four times G's, one update each.
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's baseline with both of its stabilisers."""
    return Experiment(
        name="imagenet_128_no_attention",
        networks=Networks(generator_attention_resolutions=(), discriminator_attention_resolutions=()),
    )
