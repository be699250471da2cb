"""Does what self-attention buys on `pairs` grow or shrink in wider networks?

Asked before the runs: `attention_buys` compares networks of width 8 without attention and with it at 16x16. Here are
widths 4 and 16, with the same steps, rates and batch. Stated after the runs: a run collapsed if at its end fewer than
1% of its images follow the rule. The tests compare attention with none within each width. The change of the difference
between the widths is not tested.

    python experiments/run_table.py attention_width --out runs/attention_width

A network of width 16 has four times the parameters and takes about three times as long.
"""

from dataclasses import replace

from comparisons.columns import FOLLOWS_RULE, FOLLOWS_RULE_SHARE_OF
from sagan_jax.config import Collapse, Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 12 runs of 3 to 15 minutes on one CPU core."""
    pairs = load_experiment("pairs_32")
    assert isinstance(pairs, Experiment)
    pairs = replace(pairs, name="attention_width", recording=replace(pairs.recording, keep_checkpoints=1))

    def run(width: int, *sizes: int) -> Experiment:
        networks = replace(
            pairs.networks,
            base_channels=width,
            generator_attention_resolutions=sizes,
            discriminator_attention_resolutions=sizes,
        )
        return replace(pairs, networks=networks)

    return Table(
        rows={
            "none, width 4": run(4),
            "at 16, width 4": run(4, 16),
            "none, width 16": run(16),
            "at 16, width 16": run(16, 16),
        },
        seeds=(0, 1, 2),
        scores=FOLLOWS_RULE,
        baselines={f"at 16, width {width}": f"none, width {width}" for width in (4, 16)},
        curves=("score/rule1k", "score/rule1k/hue", "generator/gamma_16"),
        protocols=("rule5k",),
        strips=("none, width 16", "at 16, width 16"),
        share_of=FOLLOWS_RULE_SHARE_OF,
        collapse=Collapse("score/rule1k", below=0.01),
    )
