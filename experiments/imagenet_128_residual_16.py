"""Table 1 of the paper: a residual block with about as many parameters in place of attention, at 16x16.

    sagan-jax train imagenet_128_residual_16 --source imagenet-train

Costs: 18.48 TFLOP a step (counted by `step_flops`); about 110 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 22.40 and IS 44.49 (unverified).

The authors did not release their block. Ours has two 3x3 convolutions with a bottleneck, and an identity shortcut.
It has 323,107 parameters in G (attention has 327,681) and 83,218 in D (attention has 81,921).
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's control at 16x16."""
    return Experiment(
        name="imagenet_128_residual_16",
        networks=Networks(
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            attention="residual",
        ),
    )
