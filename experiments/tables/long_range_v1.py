"""What does a layer that looks far buy a GAN whose images hold two far-apart parts that must agree? Version 1.

Asked before the runs. The images are those of `pairs:forms=1,size=10,distance=15`: two squares ten pixels wide, whose
middles are at least 15 pixels apart, and which share one of six hues. How large a share of a generator's images follow
this rule, and how many runs collapse? Squares of independent hues would follow it in 1/6 of the images. A program
scores 5,000 images of each run.

A layer sits in both networks, after the block of the size that its row names. The rows:

- none, and none with four times the steps: is the layer worth more than time?
- residual: convolutions with as many parameters as the release's layer, to within 0.1% of all parameters
- squeeze-and-excite: looks at all positions at once, and only weighs channels; 1.2% fewer parameters
- uniform: the release's layer with a mean over all positions in place of its map; as many parameters
- release, article, multi-head: attention; the first two have as many parameters, multi-head has 3.1% more
- G only, D only: the release's layer in one of the networks
- release at 8, at 16 and 8: the release's layer elsewhere, and twice

Each row is compared with none. The family of tests is the share that follows the rule and the share of runs that
collapse. A run collapsed if at its end fewer than 2% of its images hold two clear blobs. Images, steps and averages
were chosen on runs without attention alone. Version 1 does not change. Other settings get another number.

    python experiments/run_table.py long_range_v1 --out runs/long_range_v1
"""

from dataclasses import replace

from comparisons.columns import FOLLOWS_RULE, FOLLOWS_RULE_SHARE_OF
from sagan_jax.config import AttentionName, Collapse, Experiment, Recording, Table
from sagan_jax.runs.experiments import load_experiment

SOURCE = "pairs:forms=1,size=10,distance=15"
STEPS = 2000
EMA_DECAY = 0.99
WIDTH = 8
BATCH = 32
SCORINGS = 5
"""While a run trains, the last one at its end."""
LONGER = 4
"""How many times the steps a row without attention gets."""


def experiment(
    attention: AttentionName,
    *,
    generator: tuple[int, ...] = (),
    discriminator: tuple[int, ...] = (),
    steps: int = STEPS,
) -> Experiment:
    """Returns the run of a row.

    Args:
        attention: the layer.
        generator: the feature-map sizes behind which it sits in G.
        discriminator: the same in D.
        steps: of training.
    """
    pairs = load_experiment("pairs_32")
    assert isinstance(pairs, Experiment)
    networks = replace(
        pairs.networks,
        base_channels=WIDTH,
        generator_attention_resolutions=generator,
        discriminator_attention_resolutions=discriminator,
        attention=attention,
    )
    every = steps // SCORINGS
    return replace(
        pairs,
        name="long_range_v1",
        data=replace(pairs.data, source=SOURCE),
        networks=networks,
        training=replace(pairs.training, total_steps=steps, batch_size=BATCH, ema_decay=EMA_DECAY),
        recording=Recording(log_every_steps=100, sample_every_steps=steps, save_every_steps=every, keep_checkpoints=1),
        evaluation=replace(pairs.evaluation, evaluate_every_steps=every),
    )


def table() -> Table:
    """Returns 96 runs of a few minutes, eight of each row."""
    both = {"generator": (16,), "discriminator": (16,)}
    rows = {
        "none": experiment("release"),
        "none, 4 times the steps": experiment("release", steps=LONGER * STEPS),
        "residual at 16": experiment("residual", **both),
        "squeeze-and-excite at 16": experiment("squeeze_excite", **both),
        "uniform at 16": experiment("uniform", **both),
        "release at 16": experiment("release", **both),
        "article at 16": experiment("article", **both),
        "multi-head at 16": experiment("multi_head", **both),
        "release at 16, G only": experiment("release", generator=(16,)),
        "release at 16, D only": experiment("release", discriminator=(16,)),
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
        protocols=("rule5k",),
        strips=("none", "release at 16"),
        share_of={score: of for score, of in FOLLOWS_RULE_SHARE_OF.items() if score in columns},
        tested=("rule5k", "collapsed"),
        ranked="rule5k",
        collapse=Collapse("score/rule1k/parts", below=0.02),
    )
