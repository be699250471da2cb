"""Table 1 of the paper: attention at 64x64 in both networks, in place of 32x32.

    sagan-jax train imagenet_128_attention_64 --source imagenet-train

Costs: 20.01 TFLOP a step (counted by `step_flops`); about 119 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper's best in a million steps are FID 18.65 and IS 52.52, as in its abstract.

The rest is as in `imagenet_128`.
"""

from sagan_jax.config import Experiment, Networks


def experiment() -> Experiment:
    """Returns the paper's run with attention at 64x64."""
    return Experiment(
        name="imagenet_128_attention_64",
        networks=Networks(generator_attention_resolutions=(64,), discriminator_attention_resolutions=(64,)),
    )
