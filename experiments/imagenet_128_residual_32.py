"""Table 1 of the paper: a residual block with about as many parameters in place of attention, at 32x32.

    sagan-jax train imagenet_128_residual_32 --source imagenet-train

Costs: 18.50 TFLOP a step (counted by `step_flops`); about 110 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 27.33 and IS 38.50 (IS unverified).

The authors did not release their block. Ours has two 3x3 convolutions with a bottleneck, and an identity shortcut.
It has 83,218 parameters in G (attention has 81,921) and 20,873 in D (attention has 20,481).
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's control at 32x32."""
    return Experiment(
        name="imagenet_128_residual_32",
        networks=Networks(attention="residual"),
    )
