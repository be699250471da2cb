"""The long-range benchmark: measures what an attention layer adds on tasks with long-range dependencies.

It has two parts. The probe of reach (`sagan_jax.runs.reach`) measures how accurately a small network compares two parts
that are too far apart for its convolutions. In the other part, a GAN with the layer in both networks learns to draw two
distant squares of the same hue. A program counts how many of its images follow that rule.

This is version 1, `long_range_v1`. Its settings do not change. Other settings get another version number.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sagan_jax.config import AttentionName, Experiment, Named, Recording
from sagan_jax.errors import CollapsedError, InvalidInputError, NonFiniteError
from sagan_jax.import_paths import is_import_path, source_digest
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.evaluate import evaluate
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.reach import STEPS as REACH_STEPS
from sagan_jax.runs.reach import measure_reach, probe_layer
from sagan_jax.runs.train import train
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime.files import read_json, write_atomically
from sagan_jax.runtime.metrics_log import read_metrics

VERSION = "long_range_v1"
SOURCE = "pairs:forms=1,size=8,distance=16"
STEPS, BATCH, WIDTH, EMA_DECAY = 2000, 32, 8, 0.99
SCORINGS = 5
"""Number of evaluations during a run. The last one is at its end."""
PLACE = 16
"""The feature-map size after which the layer is placed, in G and in D."""
PROTOCOL = "rule5k"
PARTS, LEAST_PARTS = "score/rule1k/parts", 0.02
"""The metric is the share of images with two clear blobs. A run that ends below the limit counts as collapsed."""
QUICK_REACH_STEPS, QUICK_STEPS = 60, 10
"""Training steps of the probe and of the GAN that only check that a layer works; the numbers mean nothing."""


class Trial(NamedTuple):
    """The results of a layer with one seed."""

    beyond_reach: float | None
    """accuracy of the probe on parts that are too far apart for its convolutions; None: not measured, or diverged"""
    learned_at: int | None
    """first multiple of 100 steps with an accuracy of at least 0.9; None: never, or not measured"""
    scores: Mapping[str, float] | None
    """scores of 5,000 images of the GAN, by the names of `rule_accuracy`; None: not measured, or collapsed"""
    collapsed: bool | None
    """whether the GAN collapsed or diverged; None: not measured"""
    probe_diverged: bool = False
    """whether the loss of the probe became NaN or infinite; `beyond_reach` is then None"""


def experiment(
    attention: AttentionName | Named,
    *,
    generator: tuple[int, ...] = (PLACE,),
    discriminator: tuple[int, ...] = (PLACE,),
    steps: int = STEPS,
    seed: int = 0,
) -> Experiment:
    """Returns the config of a GAN of the benchmark.

    Args:
        attention: the layer.
        generator: the feature-map sizes after which the layer is placed in G.
        discriminator: the same in D.
        steps: number of training steps.
        seed: seed of the run.
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
    seeds: Sequence[int],
    out: Path,
    *,
    quick: bool = False,
    probe: bool = True,
    gan: bool = True,
    notify: Callable[[str], Any] = lambda line: None,
) -> Iterator[list[Trial]]:
    """Trains and scores a layer, and resumes where an earlier call was stopped.

    Args:
        attention: a name, or an import path such as `layers.py:Layer`.
        seeds: seeds of the training, at least one, each in [0, 2**32).
        out: folder for `layer.json`, and for each seed `reach-SEED.json`, the run `gan-SEED` and its `gan-SEED.json`.
        quick: train only a few steps, to check that the layer works; the numbers mean nothing.
        probe: whether to train the probe of reach.
        gan: whether to train the GAN.
        notify: receives a line of progress from time to time.

    Yields:
        All trials that are in `out`, after each seed.

    Raises:
        InvalidInputError: `seeds` is empty, there is no such layer, it breaks its contract, or `out` holds results of
            another layer or of another source of the layer. Raised before anything is written.
        StorageError: a file cannot be written.
        StoppedError: a signal ended the training of the GAN, which is saved.
    """
    if not seeds:
        raise InvalidInputError("measure_layer needs at least one seed; got none.")
    runs = {seed: experiment(attention, steps=QUICK_STEPS if quick else STEPS, seed=seed) for seed in seeds}
    for run in runs.values():
        check_config(run)
    if probe:
        probe_layer(attention, attention)
    if gan:
        build_adversarial_task(runs[seeds[0]])
    _claim(attention, out, quick)
    for seed, run in runs.items():
        if probe and _read(out / f"reach-{seed}.json", _REACHED) is None:
            _write(out / f"reach-{seed}.json", _reach(attention, seed, quick, notify))
        if gan and _read(out / f"gan-{seed}.json", _DRAWN) is None:
            _write(out / f"gan-{seed}.json", _draw(run, out / f"gan-{seed}", quick, notify))
        yield finished_trials(out)


def finished_trials(out: Path) -> list[Trial]:
    """Returns the trials in a folder of `measure_layer`, one per seed.

    Raises:
        InvalidInputError: a file in it is damaged.
    """
    places = {path for kind in ("reach", "gan") for path in out.glob(f"{kind}-*.json")}
    seeds = sorted({int(path.stem.rpartition("-")[2]) for path in places if path.stem.rpartition("-")[2].isdecimal()})
    trials = []
    for seed in seeds:
        reached = _read(out / f"reach-{seed}.json", _REACHED)
        drawn = _read(out / f"gan-{seed}.json", _DRAWN) or dict.fromkeys(_DRAWN)
        diverged = reached is not None and reached["beyond_reach"] is None
        trials.append(Trial(**reached or dict.fromkeys(_REACHED), **drawn, probe_diverged=diverged))
    return trials


_REACHED = {"beyond_reach": (float, int, type(None)), "learned_at": (int, type(None))}
_DRAWN = {"scores": (dict, type(None)), "collapsed": (bool,)}
"""The fields of the two kinds of result files, with their types."""


def _claim(attention: str, out: Path, quick: bool) -> None:
    """Marks a folder for the results of a layer. Raises InvalidInputError if it is marked for another layer."""
    source = source_digest(attention, "--attention") if is_import_path(attention) else ""
    whose = {"version": VERSION, "attention": attention, "source": source, "quick": quick}
    path = out / "layer.json"
    try:
        known = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        _write(path, whose)
        return
    if not isinstance(known, dict) or known.keys() != whose.keys():
        raise InvalidInputError(f"{str(path)!r} is damaged: restore it, or give another --out.")
    if known != whose:
        raise InvalidInputError(
            f"{str(out)!r} holds results of another layer, or of {attention} with another source: give another --out."
        )


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(values) + "\n").encode())


def _read(path: Path, fields: Mapping[str, tuple[type, ...]]) -> dict[str, Any] | None:
    """Returns the fields of a result file; None if there is none."""
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    known = isinstance(found, dict) and found.keys() == fields.keys()
    known = known and all(isinstance(found[name], kinds) for name, kinds in fields.items())
    if not known or not _are_scores(found.get("scores")):
        raise InvalidInputError(f"{str(path)!r} is damaged: remove it, and it is measured again.")
    return found


def _are_scores(values: Any) -> bool:
    """Returns whether a value of a result file is None, or scores as `_draw` returns them."""
    return values is None or (
        {"follows_rule", "beyond_chance"} <= set(values)
        and all(isinstance(value, float | int) for value in values.values())
    )


def _reach(attention: str, seed: int, quick: bool, notify: Callable[[str], Any]) -> dict[str, Any]:
    """Trains the probe of reach, and returns the result. If the probe diverges, the values are None."""
    steps = QUICK_REACH_STEPS if quick else REACH_STEPS

    def told(step: int, accuracy: float) -> None:
        notify(f"probe of reach, seed {seed}, step {step} of {steps}: {accuracy:.3f} beyond reach")

    try:
        result = measure_reach(attention, seed=seed, steps=steps, on_progress=told)
    except NonFiniteError as error:
        notify(f"probe of reach, seed {seed}, diverged. {error}")
        return {"beyond_reach": None, "learned_at": None}
    return {"beyond_reach": result.beyond_reach.accuracy, "learned_at": result.first_step()}


def _draw(run: Experiment, workdir: Path, quick: bool, notify: Callable[[str], Any]) -> dict[str, Any]:
    """Trains and scores a GAN, and returns the result. A GAN that diverges counts as collapsed."""
    collapsed, protocol = {"scores": None, "collapsed": True}, "rule100" if quick else PROTOCOL
    try:
        train(run, workdir)
        curves = read_metrics(workdir / "metrics.jsonl").curves
        if PARTS not in curves:
            raise InvalidInputError(f"The run in {str(workdir)!r} has lost its metrics: remove it, and start again.")
        if not quick and curves[PARTS].values[-1] < LEAST_PARTS:
            return collapsed
        found = evaluate(workdir, protocol)
    except (NonFiniteError, CollapsedError) as error:
        notify(f"seed {run.training.seed} counts as collapsed. {error}")
        return collapsed
    scores = {name.removeprefix(protocol).removeprefix("/") or "follows_rule": value for name, value in found.items()}
    return {"scores": scores, "collapsed": False}


def folder_name(attention: str) -> str:
    """Returns the name of a layer's folder.

    >>> folder_name("my/layers.py:Layer")
    'my_layers.py_Layer'
    """
    return re.sub(r"[^A-Za-z0-9_.]", "_", attention)
