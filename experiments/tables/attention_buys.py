"""What does self-attention buy, where far-apart parts of an image must agree?

Asked before the runs: images of `pairs` hold two blobs that share a hue and a form. How large a share of a generator's
images follow that rule, and how many of the twelve kinds does it make? The rows are: without attention, with it at
16x16, at 8x8, at both, in the article's form, and with one or two residual blocks of as many parameters in its place.

    python experiments/run_table.py attention_buys --out runs/attention_buys

Five seeds a row, all with the steps, the rates and the batch of `pairs_32`. A program scores 5,000 generated images:
see `sagan_jax/evaluation/rules.py`. Independent blobs would follow the rule in 1/12 of the images. Stated after the
runs: a run collapsed if at its end fewer than 2% of its images hold two clear blobs.
"""

from dataclasses import replace
from typing import Literal

from comparisons.columns import FOLLOWS_RULE, FOLLOWS_RULE_SHARE_OF
from sagan_jax.config import Collapse, Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 35 runs of about five minutes on one CPU core."""
    pairs = load_experiment("pairs_32")
    assert isinstance(pairs, Experiment)
    pairs = replace(pairs, name="attention_buys", recording=replace(pairs.recording, keep_checkpoints=1))

    def attention(*sizes: int, kind: Literal["release", "article", "residual"] = "release") -> Experiment:
        networks = replace(
            pairs.networks,
            generator_attention_resolutions=sizes,
            discriminator_attention_resolutions=sizes,
            attention=kind,
        )
        return replace(pairs, networks=networks)

    rows = {
        "none": attention(),
        "at 16": attention(16),
        "at 8": attention(8),
        "at 16 and 8": attention(16, 8),
        "article at 16": attention(16, kind="article"),
        "residual at 16": attention(16, kind="residual"),
        "residual at 16 and 8": attention(16, 8, kind="residual"),
    }
    return Table(
        rows=rows,
        seeds=(0, 1, 2, 3, 4),
        scores={**FOLLOWS_RULE, "rule5k/entropy": "entropy"},
        baselines={row: "none" for row in rows if row != "none"},
        curves=(
            "score/rule1k",
            "score/rule1k/hue",
            "score/rule1k/parts",
            "score/rule1k/kinds",
            "generator/gamma_16",
            "discriminator/gamma_16",
            "generator/partner_lift_16",
        ),
        protocols=("rule5k",),
        strips=("none", "at 16"),
        share_of={**FOLLOWS_RULE_SHARE_OF, "rule5k/entropy": "rule5k"},
        collapse=Collapse("score/rule1k/parts", below=0.02),
    )
