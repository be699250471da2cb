"""What does a layer that looks far buy a GAN whose images hold two far-apart parts that must agree? Version 1.

Asked before the runs. The images are those of `pairs:forms=1,size=8,distance=16`: two squares eight pixels wide, whose
middles are at least 16 pixels apart, and which share one of six hues. How large a share of a generator's images follow
this rule, and how many runs collapse? Squares of independent hues would follow it in 1/6 of the images. A program
scores 5,000 images of each run. `sagan-jax benchmark long_range` does the same with a layer of yours.

A layer sits in both networks, after the block of the size that its row names. The rows:

- none, and none with four times the steps: is the layer worth more than time?
- residual: convolutions with as many parameters as the release's layer, to within 0.1% of all parameters
- squeeze-and-excite: looks at all positions at once, and only weighs channels; 1.2% fewer parameters
- uniform: the release's layer with a mean over all positions in place of its map; as many parameters
- release, article, multi-head: attention; the first two have as many parameters, multi-head has 3.1% more
- G only, D only: the release's layer in one of the networks
- release at 8, at 16 and 8: the release's layer elsewhere, and twice

Each row is compared with none. The family of tests is the share that follows the rule and the share of runs that
collapse. A run collapsed if at its end fewer than 2% of its images hold two clear blobs. Version 1 does not change.
Other settings get another number.

The images were chosen on runs without attention alone, seed 100, 2,000 steps. Eight settings were tried, and six of
these runs were finished. Share of images with two clear blobs, of these those of one hue, and that by chance:

- forms=1,size=10,distance=15: 0.40, 0.62, 0.43; with hues=3 0.52, 0.76, 0.52; with an average of decay 0.999 0.01
- forms=1,size=12,distance=18,hues=3: 0.62, 0.81, 0.50
- forms=1,size=8,distance=12,blobs=3: 0.38, 0.64, 0.21
- forms=1,size=8,distance=16: 0.40, 0.33, 0.32: all six hues are drawn, and convolutions do not make them agree

    python experiments/run_table.py long_range_v1 --out runs/long_range_v1
"""

from comparisons.columns import FOLLOWS_RULE, FOLLOWS_RULE_SHARE_OF
from sagan_jax.config import Collapse, Table
from sagan_jax.runs.long_range import LEAST_PARTS, PARTS, PROTOCOL, STEPS, experiment

LONGER = 4
"""How many times the steps a row without attention gets."""


def table() -> Table:
    """Returns 96 runs of a few minutes, eight of each row."""
    rows = {
        "none": experiment("none"),
        "none, 4 times the steps": experiment("none", steps=LONGER * STEPS),
        "residual at 16": experiment("residual"),
        "squeeze-and-excite at 16": experiment("squeeze_excite"),
        "uniform at 16": experiment("uniform"),
        "release at 16": experiment("release"),
        "article at 16": experiment("article"),
        "multi-head at 16": experiment("multi_head"),
        "release at 16, G only": experiment("release", discriminator=()),
        "release at 16, D only": experiment("release", generator=()),
        "release at 8": experiment("release", generator=(8,), discriminator=(8,)),
        "release at 16 and 8": experiment("release", generator=(16, 8), discriminator=(16, 8)),
    }
    columns = {score: heading for score, heading in FOLLOWS_RULE.items() if "form" not in score}  # there is one
    return Table(
        rows=rows,
        seeds=(0, 1, 2, 3, 4, 5, 6, 7),
        scores=columns,
        baselines={row: "none" for row in rows if row != "none"},
        curves=(
            "score/rule1k",
            "score/rule1k/hue",
            "score/rule1k/parts",
            "generator/gamma_16",
            "discriminator/gamma_16",
        ),
        protocols=(PROTOCOL,),
        strips=("none", "release at 16"),
        share_of={score: of for score, of in FOLLOWS_RULE_SHARE_OF.items() if score in columns},
        tested=(PROTOCOL, "collapsed"),
        ranked=PROTOCOL,
        collapse=Collapse(PARTS, below=LEAST_PARTS),
    )
