"""Is the loss of R3GAN a better baseline than the hinge loss with spectral norm, in small networks on digits?

Asked before the runs. R3GAN (Huang et al., "The GAN is dead; long live the GAN!", 2024) compares each generated image
with a real one and penalises D's gradient at both kinds of images. Its authors need no spectral norm. The rows are the
hinge loss with spectral norm in both networks, as in SAGAN, and the loss of R3GAN with and without spectral norm in
both. Networks, batch and steps are those of `digits_32` in each row: only the loss of R3GAN is tried, not its networks.
Both penalties have strength 0.5, R3GAN's first value for ImageNet at 32x32 (it has none for digits, and none was tried
here). Adam's betas are those of SAGAN, 0 and 0.9. R3GAN's are 0 and 0.9 to 0.99.

Each row seeks its rates among the same three: R3GAN's (2e-4 for both networks), those of `digits_32` (5e-4 and 2e-3),
and between them the rate of its G for both (5e-4). Each is tried once in full length, with seed 100, which is not
reported. The score is `fd5k_train_lite0` after the last step. Collapse: at the end, 200 images of the moving average
vary less than a tenth as much as real ones of a class (`health/diversity`).

    python experiments/run_table.py r3gan_digits --out runs/r3gan_digits
    python experiments/benchmarks/step_speed.py r3gan_digits --rounds 20

The second command says what a step costs, side by side.

Costs, from a pilot of `r3gan_cifar10` with 60 steps a row, at low priority on two CPU cores that did other work too:
336 images a second with the hinge loss and about 210 with both penalties. Networks have the same width in both tables;
the pilot of the digits was disturbed. So a run is taken for 3 to 5 minutes, and 2 more to score 5,000 images.
That is 1 hour for 9 runs of the search and 2.6 hours for the 24 of the table. `r3gan_cifar10` takes 4.6 hours.
"""

from dataclasses import replace

from comparisons.r3gan import rows, table_of
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 24 runs of about 3 to 5 minutes on two free CPU cores, after 9 of the search."""
    digits = load_experiment("digits_32")
    assert isinstance(digits, Experiment)
    return table_of(rows(replace(digits, name="r3gan_digits"), strength=0.5), seeds=(0, 1, 2, 3, 4, 5, 6, 7))
