"""Scores of a run, while it trains and afterwards, and of images against images."""

import dataclasses
import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagan_jax.cli.checks import require_experiment
from sagan_jax.cli.wiring import load_run, open_data
from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource, natural_resolution, open_source
from sagan_jax.data.cache import cache_folder
from sagan_jax.errors import CollapsedError, InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, inception_embedding
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.image_sets import GeneratedImages, RealImages
from sagan_jax.evaluation.inception import find_weights
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.scores import Evaluator, Score
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.processes import is_first
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

LEAST_DIVERSITY = 0.1
"""Two images of a class that differ less than this, in the mean and as a share of two real ones, are a collapse, once
they have differed by more: a generator begins with little."""

_WORSE, _TIMES = 2.0, 3  # a score so many times its best, so often in a row, is one too


def default_protocols(source: ImageSource, inception: Embedding | None) -> tuple[str, ...]:
    """Returns what to measure where nobody says: FID where its network is there, else what needs no download."""
    if source.rule:
        return ("rule1k",)
    if inception:
        return ("fid50k_train",)
    return ("fd5k_train_random", *(("classifier_accuracy",) if source.num_classes > 1 else ()))


def generator_for(protocol: Protocol, load: Callable[[bool], TrainedGenerator]) -> TrainedGenerator:
    """Returns the generator as a protocol wants it.

    Args:
        protocol: says which weights, and what batch norm normalises with.
        load: returns the generator, with the weights as trained where it is given True.
    """
    generator = load(protocol.raw)
    if protocol.statistics == "standing":
        return generator.with_standing_statistics()
    return generator.with_batch_statistics() if protocol.statistics == "batch" else generator


def result(score: Score) -> dict[str, Any]:
    """Returns what a result file holds: the values, everything that the name fixes, and what they were measured on."""
    environment = reproducibility_info()
    return {
        "values": score.values,
        "protocol": score.protocol.settings(),
        **score.details,
        "versions": environment["versions"],
        "devices": f"{environment['device_count']} {environment['device_kind']}",
    }


def write_result(path: Path, score: Score) -> None:
    """Writes a result file, whole or not at all."""
    write_atomically(path, (json.dumps(result(score), indent=2) + "\n").encode())


def result_path(workdir: Path, protocol: Protocol, step: int) -> Path:
    """Returns where the score of a run at a step is written."""
    return workdir / "scores" / f"{protocol.name}-{step:08d}.json"


class ScoreMonitor:
    """The scores of a run while it trains: each is written and kept track of, and so is the best checkpoint.

    Args:
        experiment: the run.
        workdir: gets `scores/` and `best/`.
        source: what it is trained on.

    Raises:
        InvalidInputError: a protocol needs what is not there; found before the run starts.
    """

    def __init__(self, experiment: Experiment, workdir: Path, source: ImageSource) -> None:
        evaluation = experiment.evaluation
        self._workdir, self._evaluation = workdir, evaluation
        self._total_steps = experiment.training.total_steps
        self._protocols = [parse_protocol(name) for name in evaluation.protocols]
        self._judge, _ = evaluator_for_run(experiment, source, self._protocols)
        for protocol in self._protocols:
            self._judge.check(protocol, experiment.networks.num_classes)
        judged_by = {name: protocol for protocol in self._protocols for name in self._judge.value_names(protocol)}
        self._by = evaluation.keep_best_by or next(iter(judged_by))
        if self._by not in judged_by:
            raise InvalidInputError(
                f"--keep-best-by needs one of what the --protocols measure, {', '.join(judged_by)}; got {self._by!r}."
            )
        self._higher_is_better = judged_by[self._by].higher_is_better
        self._real_distance = _mean_distance(*_two_of_a_class(source))
        if not self._real_distance:
            raise InvalidInputError("--protocols need training images that differ, for variety to be told; got one.")
        self._best: tuple[int, float] | None = None
        self._worse, self._varied = 0, False

    def missed(self, step: int) -> bool:
        """Tells whether the scores of a step are due and not there: the run was ended while they were measured."""
        due = step > 0 and step % self._evaluation.evaluate_every_steps == 0
        return due and not all(result_path(self._workdir, protocol, step).exists() for protocol in self._protocols)

    def go_on_from(self, step: int) -> None:
        """Forgets what lies after a step, whose future will be done again, and remembers the best before it."""
        best = self._workdir / "best"
        with Checkpoints(best) as checkpoints:
            found = checkpoints.newest_meta()
        if found and found[0] <= step and found[1].get("score") == self._by:
            self._best = (found[0], float(found[1]["value"]))
        elif is_first():
            shutil.rmtree(best, ignore_errors=True)
        if is_first():
            for path in (self._workdir / "scores").glob("*.json"):
                if path.stem.rpartition("-")[2].isdecimal() and int(path.stem.rpartition("-")[2]) > step:
                    path.unlink(missing_ok=True)

    def __call__(self, step: int, load: Callable[[bool], TrainedGenerator]) -> dict[str, float]:
        """Returns the values of all scores by the name `score/NAME`, and `score/diversity`; writes and prints them.

        Args:
            step: generator updates done.
            load: returns the generator, with the weights as trained where it is given True.

        Raises:
            CollapsedError: when a collapse is to end the run.
        """
        values, started = {}, time.monotonic()
        for protocol in self._protocols:
            score = self._judge.score(protocol, GeneratedImages(generator_for(protocol, load)))
            values |= score.values
            if is_first():
                write_result(result_path(self._workdir, protocol, step), score)
                print(f"step {step}: {score}", file=sys.stderr, flush=True)
        self._last = values[self._by]
        diversity = _mean_distance(*_two_generated_of_a_class(load(False))) / self._real_distance
        self._look_for_collapse(step, diversity)
        values |= {"diversity": diversity, "seconds": time.monotonic() - started}
        return {f"score/{name}": value for name, value in values.items()}

    def keep_best(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves the state to `best/` if the score of this step is the best so far; what is no number never is.

        Args:
            step: the one that was just scored.
            state: as for `Checkpoints.save`.
            meta: as for `Checkpoints.save`; the score's name and value are added.
        """
        if self._best and not self._better(self._last, self._best[1]):
            return
        with Checkpoints(self._workdir / "best") as checkpoints:
            checkpoints.save(step, state, meta | {"score": self._by, "value": self._last})
        self._best = (step, self._last)

    def _better(self, value: float, than: float) -> bool:
        return value > than if self._higher_is_better else value < than

    def _look_for_collapse(self, step: int, diversity: float) -> None:
        """Says it when the images of a class have become one, or the score has gone bad; ends the run if asked to."""
        worse = False
        if self._best:
            best = self._best[1]
            worse = self._last < best / _WORSE if self._higher_is_better else self._last > best * _WORSE
        self._worse = self._worse + 1 if worse else 0
        was_varied, self._varied = self._varied, self._varied or diversity >= LEAST_DIVERSITY
        if was_varied and diversity < LEAST_DIVERSITY:
            what = f"two images of a class differ by {diversity:.1%} of what two real ones do"
        elif self._worse >= _TIMES:
            what = f"{self._by} is {self._last:.4g} after a best of {self._best[1] if self._best else 0:.4g}"
        else:
            return
        message = f"Step {step}: the generator has collapsed: {what}; the best checkpoint is in best/."
        if self._evaluation.stop_on_collapse:
            raise CollapsedError(message)
        if is_first():
            print(f"warning: {message}", file=sys.stderr, flush=True)


def scores_of_run(
    workdir: Path,
    names: Sequence[str] = (),
    *,
    source: str = "",
    held_out: str = "",
    checkpoint: Literal["newest", "best"] = "newest",
    inception_weights: str = "",
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    cache: str = "auto",
    watcher: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of a run's checkpoint, each written to a result file before.

    Args:
        workdir: of a run that has saved.
        names: of protocols; see `default_protocols`.
        source: where the images of the run lie, unless they are where the config says.
        held_out: images of the same kind that were not trained on, unless the config says them.
        checkpoint: the newest, or the one with the best score.
        inception_weights: a file, unless the weights are in their usual place.
        seed: of latents and classes.
        batch_size: images a pass; with `_batch` statistics part of what is measured, and then always 100.
        out: folder of the result files; `scores/` in the workdir unless given.
        cache: as `Data.cache`.
        watcher: is told how far it is.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; before anything is measured.
    """
    experiment = require_experiment(workdir)
    data = dataclasses.replace(
        experiment.data,
        source=source or experiment.data.source,
        held_out=held_out or experiment.data.held_out,
        cache=cache,
    )
    evaluation = dataclasses.replace(
        experiment.evaluation, inception_weights=inception_weights or experiment.evaluation.inception_weights
    )
    experiment = dataclasses.replace(experiment, data=data, evaluation=evaluation)
    protocols = [parse_protocol(name) for name in names]

    @functools.cache
    def load(raw: bool) -> TrainedGenerator:
        return load_run(workdir, checkpoint=checkpoint, raw=raw)

    load(False)
    judge, protocols = evaluator_for_run(experiment, open_data(experiment), protocols, watcher=watcher)
    for protocol in protocols:
        judge.check(protocol, experiment.networks.num_classes)
    for protocol in protocols:
        generator = generator_for(protocol, load)
        size = 100 if protocol.statistics == "batch" else batch_size
        score = judge.score(protocol, GeneratedImages(generator, size), seed=seed)
        write_result(out / f"{protocol.name}.json" if out else result_path(workdir, protocol, generator.step), score)
        yield score


def scores_of_images(
    images: str,
    reference: str,
    names: Sequence[str] = (),
    *,
    inception_weights: str = "",
    resolution: int = 0,
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    cache: str = "auto",
    watcher: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of images, wherever they come from, against others; each is written where `out` says.

    Args:
        images: what is scored, as `sagan_jax.data.open_source` takes it.
        reference: the real ones, likewise, whatever the protocol calls them.
        names: of protocols; see `default_protocols`.
        inception_weights: a file, unless the weights are in their usual place.
        resolution: both sets are cropped and resized to it; the shorter side of the first of `images` unless given.
        seed: of which images are taken where there are more than the protocol needs.
        batch_size: images a pass.
        out: folder of the result files; none are written unless given.
        cache: as `Data.cache`.
        watcher: is told how far it is.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; before anything is measured.
    """
    protocols = [parse_protocol(name) for name in names]
    for protocol in protocols:
        if protocol.statistics != "stored" or protocol.raw:
            raise InvalidInputError(f"{protocol.name} says how a generator is used; images have none.")
    resolution = resolution or natural_resolution(images)
    scored, real = (open_source(path, resolution=resolution, cache=cache) for path in (images, reference))
    judge, protocols = evaluator_for(
        RealImages(real, batch_size),
        RealImages(real, batch_size),
        protocols,
        inception_weights=inception_weights,
        cache=cache,
        watcher=watcher,
    )
    for protocol in protocols:
        judge.check(protocol, scored.num_classes)
    for protocol in protocols:
        score = judge.score(protocol, RealImages(scored, batch_size), seed=seed)
        score.details["resolution"] = resolution
        if out:
            write_result(out / f"{protocol.name}.json", score)
        yield score


def evaluator_for_run(
    experiment: Experiment,
    source: ImageSource,
    protocols: Sequence[Protocol],
    *,
    watcher: ProgressCallback | None = None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns what measures the images of a run, with what the protocols need and no more; and the protocols.

    Args:
        experiment: of the run.
        source: what it was trained on.
        protocols: the usual ones unless some are given.
        watcher: is told how far it is.
    """
    held_out = None
    if any(protocol.held_out for protocol in protocols) and experiment.data.held_out:
        held_out = RealImages(open_data(experiment, held_out=True))
    return evaluator_for(
        RealImages(source),
        held_out,
        protocols,
        inception_weights=experiment.evaluation.inception_weights,
        cache=experiment.data.cache,
        watcher=watcher,
    )


def evaluator_for(
    train: RealImages,
    held_out: RealImages | None,
    protocols: Sequence[Protocol],
    *,
    inception_weights: str,
    cache: str,
    watcher: ProgressCallback | None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns what measures, with what the protocols need and no more; and the protocols.

    Args:
        train: the images that were trained on.
        held_out: those that were not.
        protocols: the usual ones unless some are given.
        inception_weights: a file, unless the weights are in their usual place.
        cache: as `Data.cache`.
        watcher: is told how far it is.
    """
    wanted = not protocols or any(protocol.embedding == "inception" for protocol in protocols)
    inception = find_inception(inception_weights) if wanted else None
    protocols = protocols or [parse_protocol(name) for name in default_protocols(train.source, inception)]
    return Evaluator(
        train, held_out, inception, cache_folder(cache, "references"), watcher or NullProgress()
    ), protocols


def find_inception(path: str) -> Embedding | None:
    """Returns the FID network with the weights that are named, else with those in their usual place, else None."""
    found = find_weights(path or None)
    return inception_embedding(found) if found else None


def _two_of_a_class(source: ImageSource, pairs: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of real images of one class, two different ones where the class has them."""
    drawn = np.random.default_rng(0)
    first = drawn.permutation(len(source))[:pairs]
    labels = source.labels
    second = [drawn.choice(np.flatnonzero(labels == labels[index])) for index in first]
    return tuple(np.stack([source[int(index)][0] for index in part]) for part in (first, second))  # type: ignore


def _two_generated_of_a_class(generator: TrainedGenerator, pairs: int = 100) -> tuple[np.ndarray, np.ndarray]:
    labels = np.resize(np.arange(max(1, generator.num_classes)), pairs)
    images = generator.generate(2 * pairs, labels=np.concatenate([labels, labels]) if generator.num_classes else None)
    return images.images[:pairs], images.images[pairs:]


def _mean_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean L2 distance between the pixels of each pair."""
    differences = first.astype(np.float64) - second
    return float(np.sqrt((differences**2).sum(axis=(1, 2, 3))).mean())


class ScoreProgress:
    """Shows how far a score is, as a context manager: a bar on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        self._bar = None
        if sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True)
        self._what, self._images, self._done = "", 0, 0
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, what: str, images: int) -> None:
        """A pass over so many images begins."""
        self._what, self._images, self._done = what, images, 0
        self._start = self._said = time.monotonic()
        if self._bar:
            for task in list(self._bar.task_ids):
                self._bar.remove_task(task)
            self._task = self._bar.add_task(what, total=images)

    def tick(self, images: int) -> None:
        """So many more were looked at."""
        self._done += images
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif now - self._said > 30:
            self._said, speed = now, self._done / (now - self._start)
            left = (self._images - self._done) / speed
            print(
                f"{self._what}: {self._done:,}/{self._images:,}  {speed:.1f}/s  {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )
