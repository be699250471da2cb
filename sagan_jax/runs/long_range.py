"""The long-range benchmark: what a layer that looks far buys, measured in the same way for any layer.

Two things are measured. The probe of reach (`sagan_jax.runs.reach`) tells how often a small network compares two parts
rightly that its convolutions cannot see together. And a GAN with the layer in both networks learns to draw two squares
of one hue at distant places; a program tells how often its images follow that rule.

This is version 1, `long_range_v1`. Its settings do not change. Other settings get another number.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sagan_jax.config import AttentionName, Experiment, Named, Recording
from sagan_jax.errors import CollapsedError, InvalidInputError, NonFiniteError
from sagan_jax.evaluation.permutation import difference_p
from sagan_jax.runs.evaluate import evaluate
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.reach import STEPS as REACH_STEPS
from sagan_jax.runs.reach import measure_reach
from sagan_jax.runs.train import train
from sagan_jax.runtime.files import read_json, write_atomically
from sagan_jax.runtime.metrics_log import read_metrics

VERSION = "long_range_v1"
SOURCE = "pairs:forms=1,size=8,distance=16"
STEPS, BATCH, WIDTH, EMA_DECAY = 2000, 32, 8, 0.99
SCORINGS = 5
"""While a run trains, the last one at its end."""
PLACE = 16
"""The feature-map size behind which a layer sits, in G and in D."""
PROTOCOL = "rule5k"
PARTS, LEAST_PARTS = "score/rule1k/parts", 0.02
"""A run collapsed if at its end a smaller share of its images holds two clear blobs."""
RECORDED = Path(__file__).with_name(f"{VERSION}.json")
"""What the layers that come with the project reached. `experiments/benchmarks/record_long_range.py` writes it."""
BASELINE = "none"
QUICK_STEPS = 60
"""Of each network, to see that a layer works; the numbers mean nothing."""


class Trial(NamedTuple):
    """What one seed of a layer came to."""

    beyond_reach: float | None
    """accuracy of the probe of reach on parts that its convolutions cannot see together; None: not measured"""
    learned_at: int | None
    """the first hundred steps after which that is at least 0.9; None: never, or not measured"""
    scores: Mapping[str, float] | None
    """of 5,000 images of the GAN, as `rule_accuracy` names them; None: not measured, or collapsed"""
    collapsed: bool | None
    """whether the GAN collapsed or diverged; None: not measured"""


def experiment(
    attention: AttentionName | Named,
    *,
    generator: tuple[int, ...] = (PLACE,),
    discriminator: tuple[int, ...] = (PLACE,),
    steps: int = STEPS,
    seed: int = 0,
) -> Experiment:
    """Returns the run of a GAN of the benchmark.

    Args:
        attention: the layer.
        generator: the feature-map sizes behind which it sits in G.
        discriminator: the same in D.
        steps: of training.
        seed: of the run.
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
    training = replace(
        pairs.training, total_steps=steps, batch_size=BATCH, ema_decay=EMA_DECAY, seed=seed, precision="float32"
    )
    every = max(1, steps // SCORINGS)
    return replace(
        pairs,
        name=VERSION,
        data=replace(pairs.data, source=SOURCE),
        networks=networks,
        training=training,
        recording=Recording(log_every_steps=100, sample_every_steps=steps, save_every_steps=every, keep_checkpoints=1),
        evaluation=replace(pairs.evaluation, evaluate_every_steps=every),
    )


def measure_layer(
    attention: str,
    seed: int,
    out: Path,
    *,
    quick: bool = False,
    probe: bool = True,
    gan: bool = True,
    on_progress: Callable[[str], Any] | None = None,
) -> Trial:
    """Trains and scores a layer with one seed, or goes on where an earlier call was stopped.

    Args:
        attention: a name, or an import path such as `layers.py:Layer`.
        seed: of the training, in [0, 2**32).
        out: gets `reach-SEED.json` and the run `gan-SEED`.
        quick: a few steps, to see that the layer works; the numbers mean nothing.
        probe: whether the probe of reach is trained.
        gan: whether the GAN is trained.
        on_progress: is called with a line from time to time.

    Raises:
        InvalidInputError: there is no such layer, it breaks its contract, or `out` holds another one.
        StorageError: the disk refused.
        StoppedError: a signal ended it; the GAN is saved.
    """
    reached = _reach(attention, seed, out, quick, on_progress) if probe else (None, None)
    if not gan:
        return Trial(*reached, None, None)
    run = experiment(attention, steps=QUICK_STEPS if quick else STEPS, seed=seed)
    workdir = out / f"gan-{seed}"
    try:
        train(run, workdir)
        curves = read_metrics(workdir / "metrics.jsonl").curves
        if PARTS not in curves:
            raise InvalidInputError(f"The run in {str(workdir)!r} has lost its metrics: remove it, and start again.")
        if not quick and curves[PARTS].values[-1] < LEAST_PARTS:
            return Trial(*reached, None, True)
        return Trial(*reached, _scores(workdir, "rule100" if quick else PROTOCOL), False)
    except (NonFiniteError, CollapsedError):
        return Trial(*reached, None, True)


def _scores(workdir: Path, protocol: str) -> dict[str, float]:
    """Returns the scores of a run as `rule_accuracy` names them."""
    found = evaluate(workdir, protocol)
    return {name.removeprefix(protocol).removeprefix("/") or "follows_rule": value for name, value in found.items()}


def _reach(
    attention: str, seed: int, out: Path, quick: bool, on_progress: Callable[[str], Any] | None
) -> tuple[float, int | None]:
    """Returns what the probe of reach came to, from its file if that is there."""
    path, steps = out / f"reach-{seed}.json", QUICK_STEPS if quick else REACH_STEPS
    asked = {"attention": attention, "seed": seed, "steps": steps}
    if path.exists():
        found = read_json(path)
        if not isinstance(found, dict) or {name: found.get(name) for name in asked} != asked:
            raise InvalidInputError(f"{str(path)!r} is of another layer or damaged: give another --out.")
        return float(found["beyond_reach"]), found["learned_at"]

    def told(step: int, accuracy: float) -> None:
        if on_progress:
            on_progress(f"probe of reach, seed {seed}, step {step} of {steps}: {accuracy:.3f} beyond reach")

    result = measure_reach(attention, seed=seed, steps=steps, on_progress=told)
    beyond, learned_at = result.beyond_reach.accuracy, result.first_step()
    out.mkdir(parents=True, exist_ok=True)
    kept = asked | {"beyond_reach": beyond, "learned_at": learned_at}
    write_atomically(path, (json.dumps(kept) + "\n").encode())
    return beyond, learned_at


def recorded_rows() -> dict[str, list[Trial]]:
    """Returns what the layers that come with the project reached, the seeds of each, in the order of the table."""
    rows = read_json(RECORDED)["rows"]
    return {row: [Trial(**trial) for trial in trials] for row, trials in rows.items()}


def folder_name(attention: str) -> str:
    """Returns the folder of a layer.

    >>> folder_name("my/layers.py:Layer")
    'my_layers.py_Layer'
    """
    return re.sub(r"[^A-Za-z0-9_.]", "_", attention)


def beside_ours(attention: str, trials: Sequence[Trial]) -> str:
    """Returns the table, in Markdown: our layers, and below them one more.

    Args:
        attention: the name of the layer.
        trials: one for each seed.
    """
    rows = {**recorded_rows(), f"**{attention}**": list(trials)}
    heads = ["layer", "beyond reach", "0.9 at step", "follow the rule", "same hue", "by chance", "two clear blobs"]
    heads += ["collapsed", "seeds", "p of the rule against none"]
    baseline = rows.get(BASELINE, [])
    lines = [[row, *_cells(found, baseline if row != BASELINE else [])] for row, found in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *lines])


def _cells(trials: Sequence[Trial], baseline: Sequence[Trial]) -> list[str]:
    def scores(name: str) -> list[float]:
        return [trial.scores[name] for trial in trials if trial.scores and name in trial.scores]

    gans = [trial for trial in trials if trial.collapsed is not None]
    beyond = [trial.beyond_reach for trial in trials if trial.beyond_reach is not None]
    collapsed = f"{sum(bool(trial.collapsed) for trial in gans)} of {len(gans)}" if gans else "–"
    columns = [spread(scores(name)) for name in ("follows_rule", "hue", "hue_chance", "parts")]
    learned = [str(trial.learned_at or "never") for trial in trials if trial.beyond_reach is not None]
    return [spread(beyond), ", ".join(learned) or "–", *columns, collapsed, str(len(trials)), _p(gans, baseline)]


def _p(gans: Sequence[Trial], baseline: Sequence[Trial]) -> str:
    """Returns the p of an exact permutation test of what follows the rule; a run that collapsed is the worst."""
    groups = [
        [trial.scores["follows_rule"] if trial.scores else None for trial in group if trial.collapsed is not None]
        for group in (gans, baseline)
    ]
    if min(map(len, groups)) < 2:
        return "–"
    return f"{difference_p(groups[0], groups[1], lower_is_better=False):.2g}"


def spread(values: Sequence[float]) -> str:
    """Returns the mean of some seeds, and their range.

    >>> spread([0.25, 0.75]), spread([0.5]), spread([])
    ('0.500 (0.250 to 0.750)', '0.500', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"
