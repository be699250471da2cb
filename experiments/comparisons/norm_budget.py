"""Shared parts of the tables that ask whether spectral norm of class gains hurts with many classes."""

from collections.abc import Mapping
from typing import Literal

from sagan_jax.config import Collapse, Data, Evaluation, Experiment, Networks, Recording, Table, Training

GRIDS = {12: (3, 2, 2), 48: (3, 4, 4), 144: (9, 4, 4)}
"""Hues, columns and rows by the number of classes, their product."""
STEPS, WIDTH, BATCH = 8000, 8, 32
EVERY = 1000
"""Steps between two scores of 1,000 images."""
PARTS, LEAST_PARTS = "score/rule1k/parts", 0.02
"""A run counts as collapsed if this metric, the share of images with one clear blob, is below the limit at its end."""


def experiment(classes: int, gain: Literal["table", "map", "free_map", "scaled_map"] = "table") -> Experiment:
    """Returns a run on blobs with `classes` classes; networks, rates and averages are otherwise those of `pairs_32`.

    Args:
        classes: 12, 48 or 144.
        gain: the form of the class gains in the norms of G.
    """
    hues, columns, rows = GRIDS[classes]
    return Experiment(
        name="norm_budget",
        data=Data(source=f"blobs:hues={hues},columns={columns},rows={rows}"),
        networks=Networks(
            resolution=32,
            num_classes=classes,
            base_channels=WIDTH,
            latent_size=64,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_decay=0.99,
            final_norm_decay=0.99,
            conditional_gain=gain,
        ),
        training=Training(
            total_steps=STEPS,
            batch_size=BATCH,
            generator_learning_rate=5e-4,
            discriminator_learning_rate=1e-3,
            ema_decay=0.99,
            precision="float32",
        ),
        recording=Recording(log_every_steps=100, sample_every_steps=EVERY, save_every_steps=EVERY, keep_checkpoints=1),
        evaluation=Evaluation(protocols=("rule1k",), evaluate_every_steps=EVERY),
    )


def table_of(
    rows: Mapping[str, Experiment], seeds: tuple[int, ...], baselines: Mapping[str, str], strips: tuple[str, ...]
) -> Table:
    """Returns the table of some rows: the share of images that match their class, and each factor of the class."""
    return Table(
        rows=rows,
        seeds=seeds,
        scores={
            "rule5k": "obey the class",
            "rule5k/parts": "one clear blob",
            "rule5k/hue": "its hue",
            "rule5k/column": "its column",
            "rule5k/row": "its row",
            "rule5k/kinds": "classes",
        },
        baselines=baselines,
        curves=("score/rule1k", "score/rule1k/parts", "score/rule1k/hue", "score/rule1k/column", "score/rule1k/row"),
        protocols=("rule5k",),
        strips=strips,
        share_of={**{f"rule5k/{name}": "rule5k/parts" for name in ("hue", "column", "row")}, "rule5k/kinds": "rule5k"},
        tested=("rule5k",),
        collapse=Collapse(PARTS, below=LEAST_PARTS),
    )
