"""Table 1 of the paper, and the last row of its Figure 3: no attention, all else as in `imagenet_128`.

    sagan-jax train imagenet_128_no_attention --source imagenet-train

Costs: 18.24 TFLOP a step (counted by `step_flops`); about 108 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's, unverified: FID 22.96 and IS 42.87 after a million steps; of Figure 4: FID 99.04
after 10,000, 40.96 after 160,000, 34.62 after 260,000.

Departs from `imagenet_128` in nothing else: both networks normalised, D's rate four times G's, one update each.
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's baseline with both of its stabilisers."""
    return Experiment(
        name="imagenet_128_no_attention",
        networks=Networks(generator_attention_resolutions=(), discriminator_attention_resolutions=()),
    )
