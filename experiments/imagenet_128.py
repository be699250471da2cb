"""The paper's SAGAN: class-conditional ImageNet at 128x128 with attention at 32x32.

    sagan-jax train imagenet_128 --source imagenet-train

Costs: 18.69 TFLOP a step (counted by `step_flops`); about 111 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32). The
authors report about two weeks on 4 GPUs.
Reached: not measured. The paper's best in a million steps are FID 18.28 and IS 51.43 (its Table 1).

`--source` takes a folder or zip of 1,000 class folders. Classes are numbered in the sorted order of their names, like
the release's sorted synsets. The training settings are the paper's, and the networks are the release's.
docs/fidelity.md lists what the paper leaves open, and where the release differs from it.
"""

from sagan_jax.config import Experiment


def experiment() -> Experiment:
    """Returns the defaults, which are the paper's."""
    return Experiment(name="imagenet_128")
