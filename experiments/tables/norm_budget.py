"""Does spectral norm of class gains hurt, more so where there are many classes, and does a free scale undo it?

Asked before the runs. With K classes and C channels, the kernel of a normalised map of the label has a root mean square
of at most 1/sqrt(max(K, C)). So no norm of G can move its gains, or its shifts, by more than that on average over the
classes. StudioGAN's SAGAN has such maps. The authors' release has tables, mmgeneration has free maps, and both report a
much lower FID on the 1,000 classes of ImageNet. Many other things differ between them: see `studiogan_mmgeneration`.

Images, networks and steps are those of `norm_budget_pilot`, width 8, where the norms of G have 32 channels. The bound
is 0.177 with 12 classes and 0.083 with 144. Rows, with both numbers of classes:

- table: a gain and a shift for each class, never normalised
- map: 1 + a normalised map of the label, StudioGAN's
- free map: the same, never normalised
- scaled map: the normalised map times a learned number, which starts where "map" does

Three questions for each number of classes, so 6 comparisons of the share of images that obey their class, 8 runs
against 8: does the map harm (map against table), is it the norm (free map against map), and does a free scale undo it
(scaled map against map)? Collapse is a column of its own.

Predicted: with 144 classes the map obeys less often than the table, and the free and the scaled map more often than the
map. With 12 classes no row differs. The hypothesis fails if the map of 144 classes is not worse than the table. If the
free map is not better than the map, it is the map and not its norm. That the harm grows with K is read off the two
differences, map less table. The driver does not test their difference.

    python experiments/run_table.py norm_budget_pilot --out runs/norm_budget_pilot
    python experiments/run_table.py norm_budget --jobs 8 --out runs/norm_budget

The first command must show that tables of 144 classes learn. Else the second tells nothing. It was run: they did not
learn (`docs/norm_budget.md`). So this table was not run. It needs a larger setting, with a pilot of its own.

Costs, not measured: a run takes about half an hour on a CPU core (`norm_budget_pilot`), so 64 runs take 32 core-hours.
It is meant for a GPU with many CPU cores.
"""

from comparisons.norm_budget import GRIDS, experiment, table_of
from sagan_jax.config import Table


def table() -> Table:
    """Returns 64 runs: eight seeds of four forms with the fewest and the most classes."""
    sizes = min(GRIDS), max(GRIDS)
    rows = {}
    for classes in sizes:
        rows[f"table, {classes} classes"] = experiment(classes, "table")
        rows[f"map, {classes} classes"] = experiment(classes, "map")
        rows[f"free map, {classes} classes"] = experiment(classes, "free_map")
        rows[f"scaled map, {classes} classes"] = experiment(classes, "scaled_map")
    baselines = {f"map, {classes} classes": f"table, {classes} classes" for classes in sizes}
    freed = [f"{form} map, {classes} classes" for classes in sizes for form in ("free", "scaled")]
    baselines |= {row: row.partition(" ")[2] for row in freed}
    strips = tuple(row for row in rows if row.endswith(f"{max(sizes)} classes"))
    return table_of(rows, seeds=(0, 1, 2, 3, 4, 5, 6, 7), baselines=baselines, strips=strips)
