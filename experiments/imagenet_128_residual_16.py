"""Table 1 of the paper: a residual block of as many parameters in the place of attention, at 16x16.

    sagan-jax train imagenet_128_residual_16 --source imagenet-train

Costs: 34.29 TFLOP a step (counted by `step_flops`); about 204 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps: unverified, FID 22.40 and IS 44.49.

The authors did not release their block: ours is a bottleneck of two 3x3 convolutions around an identity shortcut:
323,107 parameters for attention's 327,681 in G, 83,218 for 81,921 in D.
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
