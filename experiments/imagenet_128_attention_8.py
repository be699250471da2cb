"""Table 1 of the paper: attention at 8x8 in both networks, in place of 32x32.

    sagan-jax train imagenet_128_attention_8 --source imagenet-train

Costs: 18.51 TFLOP a step (counted by `step_flops`); about 110 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 22.98 and IS 43.15 (IS unverified).

The rest is as in `imagenet_128`.
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's run with attention at 8x8."""
    return Experiment(
        name="imagenet_128_attention_8",
        networks=Networks(generator_attention_resolutions=(8,), discriminator_attention_resolutions=(8,)),
    )
