"""Table 1 of the paper: a residual block with about as many parameters in place of attention, at 64x64.

    sagan-jax train imagenet_128_residual_64 --source imagenet-train

Costs: 18.49 TFLOP a step (counted by `step_flops`); about 110 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 28.82 and IS 38.96 (unverified).

The authors did not release their block. Ours has two 3x3 convolutions with a bottleneck, and an identity shortcut.
It has 20,873 parameters in G (attention has 20,481) and 4,676 in D (attention has 5,121).
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's control at 64x64."""
    return Experiment(
        name="imagenet_128_residual_64",
        networks=Networks(
            generator_attention_resolutions=(64,),
            discriminator_attention_resolutions=(64,),
            attention="residual",
        ),
    )
