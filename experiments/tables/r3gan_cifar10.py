"""Is the loss of R3GAN a better baseline than the hinge loss with spectral norm, in small networks on CIFAR-10?

Asked before the runs. The question, the rows and the analysis are those of `r3gan_digits`. Networks, batch and averages
are those of `cifar10_32`, at width 8 and 2,000 steps. Its rates are in the place of those of `digits_32`: each row
seeks its own among R3GAN's (2e-4 for both networks), 3e-4 for both, and those of `cifar10_32` (3e-4 and 1.2e-3). Both
penalties have strength 0.05, R3GAN's first value for CIFAR-10. There are five seeds, so it is good for a remark, not
for a claim.

Changed before any run was finished, to save time: a run of the search has 1,000 steps, not 2,000. Costs, measured with
two runs at a time on two CPU cores: 11 to 18 minutes for a run of the search. The first runs of the table took 21
minutes with the hinge loss, and 35 with R3GAN's and spectral norm.

    python experiments/run_table.py r3gan_cifar10 --out runs/r3gan_cifar10
    python experiments/benchmarks/step_speed.py r3gan_cifar10 --rounds 20
"""

from dataclasses import replace

from comparisons.r3gan import rows, table_of
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 15 runs of about 21 to 35 minutes on one of two busy CPU cores, after 9 of half the steps."""
    cifar10 = load_experiment("cifar10_32")
    assert isinstance(cifar10, Experiment)
    cifar10 = replace(
        cifar10,
        name="r3gan_cifar10",
        networks=replace(cifar10.networks, base_channels=8),
        training=replace(cifar10.training, total_steps=2000),
    )
    return table_of(rows(cifar10, strength=0.05), seeds=(0, 1, 2, 3, 4), search_steps=1000)
