"""Where does a network with class tables learn classes that share structure? The pilot of `norm_budget`.

Asked before the runs. Images are those of `blobs`: one blob, whose class is a hue, a column and a row. A program tells
how many images obey the class that was asked for, and each factor of it. The rows have 12, 48 and 144 classes (3×2×2,
3×4×4 and 9×4×4), and class gains as tables, width 8, batch 32. Every class shares its factors with others. A generator
that does not look at the class obeys in 1/12, 1/48 and 1/144 of its images. 8,000 steps are the most that is tried; a
score of 1,000 images every 1,000 steps tells whether fewer are enough.

Stated before the runs. A row learns if both of its seeds obey in at least half of their images at the end. If 12 and
144 classes both learn, `norm_budget` is run with the settings of this file. If 144 do not, nothing can be told with
them at this size, and the pilot stops there. Its seeds, 100 and 101, are not those of `norm_budget`. No row is
compared with another.

    python experiments/run_table.py norm_budget_pilot --out runs/norm_budget_pilot

Costs: 30 to 33 minutes a run, two at a time on two CPU cores (`--jobs 2 --pin`). 6 runs are 1.6 hours.

It was run. No row learned: one run with 12 classes and both with 48 collapsed, and 144 classes were not learned
(`docs/norm_budget.md`). So the pilot stopped there.
"""

from comparisons.norm_budget import GRIDS, experiment, table_of
from sagan_jax.config import Table


def table() -> Table:
    """Returns 6 runs of about half an hour, two at a time on two CPU cores."""
    rows = {f"table, {classes} classes": experiment(classes) for classes in GRIDS}
    return table_of(rows, seeds=(100, 101), baselines={}, strips=tuple(rows))
