"""Table 1 of the paper: a residual block with about as many parameters in place of attention, at 8x8.

    sagan-jax train imagenet_128_residual_8 --source imagenet-train

Costs: 18.46 TFLOP a step (counted by `step_flops`); about 110 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 42.13 and IS 23.17 (IS unverified).

The authors did not release their block. Ours has two 3x3 convolutions with a bottleneck, and an identity shortcut.
It has 1,309,767 parameters in G (attention has 1,310,721) and 323,107 in D (attention has 327,681).
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's control at 8x8."""
    return Experiment(
        name="imagenet_128_residual_8",
        networks=Networks(
            generator_attention_resolutions=(8,),
            discriminator_attention_resolutions=(8,),
            attention="residual",
        ),
    )
