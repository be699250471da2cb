"""Measures the sensitivity of scores: scores real images that are damaged more and more, or lack classes.

    python experiments/benchmarks/score_sensitivity.py --cifar10 cifar10-train.zip --faces faces-train.zip --out s.json
    python experiments/benchmarks/score_sensitivity.py --tables s.json --into docs/score_sensitivity.md --plot s.png

Each set is split into a reference and a pool. The first images of the pool are damaged, so strength 0 is the floor:
real images against other real images. Further draws from the pool show the deviation of the floor. A score is monotone
if no increase of strength improves it by more than twice that deviation, and the strongest damage worsens it by more
than twice that deviation.

Every cell is written to --out as soon as it is measured, and is not measured again. So the command can be stopped at
any time, and resumes where it was.
"""

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from all import fill
from damages import DAMAGES, MISSING, MIXED
from measuring import progress, read_result
from sensitivity_tables import draw, tables

from sagan_jax.cli.main import explained
from sagan_jax.data import ImageSource, open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import classifier
from sagan_jax.evaluation.array_cache import as_arrays, cached, from_arrays
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, lite0_embedding, random_embedding
from sagan_jax.evaluation.linear_classifier import LinearClassifier, fit_linear_classifier
from sagan_jax.functional.distances import (
    Moments,
    density_coverage,
    inception_score,
    kernel_distance,
    moments_of,
    precision_recall,
)
from sagan_jax.runtime.cache_folders import cache_folder
from sagan_jax.runtime.files import read_json, write_atomically
from sagan_jax.runtime.progress import NullProgress

NETWORKS = ("random", "lite0", "classifier")
OTHERS = {"cifar10": "digits", "digits": "cifar10", "faces": "cifar10"}
"""For each set, the set whose images are mixed into it."""
RESOLUTIONS = {"cifar10": 32, "digits": 32, "faces": 64}
DRAWS = 4
"""Number of disjoint draws of real images, from which the deviation of the floor is computed."""
_KEPT = 500

Scores = dict[str, float]


class Part(NamedTuple):
    """Images with their labels; `classes` is 0 without labels."""

    images: np.ndarray
    labels: np.ndarray
    classes: int


class Subject(NamedTuple):
    """A set of real images, with a reference and a pool that share no image."""

    name: str
    reference: Part
    pool: Part
    rest: Part
    """training images of the small classifier: all images outside the pool"""

    def with_classes(self, missing: int, count: int) -> np.ndarray:
        """Returns the indices in the pool of the first images that are not of the first `missing` classes."""
        return np.flatnonzero(self.pool.labels >= missing)[:count]


def split(name: str, source: ImageSource, reference: int, count: int) -> Subject:
    """Returns the reference and the pool of a set, each with its classes in turn.

    Args:
        name: the name of the set.
        source: the images of the set.
        reference: number of images of the reference.
        count: number of images of a cell. The pool has as many images of the last two classes, so that eight of ten
            classes can be missing.

    Raises:
        InvalidInputError: there are too few images.
    """
    order, classes = in_turn(source.labels), source.num_classes if source.num_classes > 1 else 0
    beyond = order[reference:]
    last = np.flatnonzero(source.labels[beyond] >= classes - 2)[:count] if classes else np.arange(0)
    if len(beyond) < DRAWS * count or (classes and len(last) < count):
        raise InvalidInputError(
            f"{name} needs {reference + DRAWS * count:,} images, and {count:,} of the last two classes beside the "
            f"reference; got {source.description}."
        )
    needed = max([DRAWS * count, *(last + 1)])
    parts = order[:reference], beyond[:needed], np.concatenate([order[:reference], beyond[needed:]])
    return Subject(name, *(_read(source, places, classes) for places in parts))


def in_turn(labels: np.ndarray) -> np.ndarray:
    """Returns a random order of images, with seed 0, in which the classes take turns.

    >>> labels = np.array([0, 0, 0, 1, 1, 1])
    >>> labels[in_turn(labels)].reshape(3, 2).sum(axis=1).tolist()
    [1, 1, 1]
    """
    drawn = np.random.default_rng(0).permutation(len(labels))
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[drawn] == label)
        turn[of_class] = np.arange(len(of_class))
    return drawn[np.argsort(turn, kind="stable")]


def _read(source: ImageSource, places: np.ndarray, classes: int) -> Part:
    images = np.stack([source[int(place)][0] for place in places])
    return Part(images, source.labels[places].astype(np.int32), classes)


def outputs_of(embedding: Embedding, images: np.ndarray, size: int = 100) -> dict[str, np.ndarray]:
    """Returns the outputs of a network for images `[N, R, R, 3]`, `{name: [N, ..]}`."""

    def batches() -> Iterator[ImageBatch]:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padded = np.resize(batch, (size, *images.shape[1:]))
            yield ImageBatch(padded, np.zeros(len(batch), np.int32), start)

    rows = [outputs for outputs, _ in embedding(batches())]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def kept_outputs(embedding: Embedding, images: np.ndarray, folder: Path | None) -> dict[str, np.ndarray]:
    """Returns the outputs of a network for real images. They are cached on disk in parts of a few hundred."""

    def kept(part: np.ndarray) -> dict[str, np.ndarray]:
        key = ("sensitivity 1", embedding.identity, hashlib.sha256(part.tobytes()).hexdigest())
        return cached(folder, key, lambda: outputs_of(embedding, part))

    rows = [kept(images[start : start + _KEPT]) for start in range(0, len(images), _KEPT)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class Judge(NamedTuple):
    """A network with the scores in its features.

    Attributes:
        name: the name of the network.
        embedding: the network.
        pool: the outputs for the pool.
        others: the outputs for images that are mixed in, as many as a cell has.
        scores: `(outputs, labels) -> scores`, against the reference.
    """

    name: str
    embedding: Embedding
    pool: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    scores: Callable[[Mapping[str, np.ndarray], np.ndarray], Scores]


def feature_scores(real: np.ndarray, count: int, head: LinearClassifier | None = None) -> Callable[..., Scores]:
    """Returns a function that scores outputs of a network against features of real images.

    Args:
        real: `[N, D]`. Precision, recall, density and coverage use the first `count`, the distances use all.
        count: number of images of a cell.
        head: a classifier of features, or None.
    """
    moments = moments_of(real)
    root = np.linalg.cholesky(moments.covariance + 1e-10 * np.trace(moments.covariance) * np.eye(real.shape[1]))

    def scores(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Scores:
        fake = outputs["features"]
        found = {"fd": distance_to_few(moments, root, fake)}
        found["kd"] = kernel_distance(real, fake)
        found["precision"], found["recall"] = precision_recall(real[:count], fake, 3)
        found["density"], found["coverage"] = density_coverage(real[:count], fake, 5)
        if "logits" in outputs:
            found["is"] = inception_score(outputs["logits"], 1)[0]
        if head:
            found["accuracy"] = float((head.logits(fake).argmax(axis=1) == labels).mean())
        return found

    return scores


def distance_to_few(real: Moments, root: np.ndarray, fake: np.ndarray) -> float:
    """Returns the Fréchet distance for few images, as `frechet_distance` does but in a fraction of the time.

    With C_1 = L L^T and centred features X of N images, C_2 = X^T X / (N - 1). The trace of the root of C_1 C_2 is then
    the sum of the singular values of X L / sqrt(N - 1), of which there are only N.

    Args:
        real: moments of the reference.
        root: L `[D, D]`.
        fake: `[N, D]`.

    >>> features = np.random.default_rng(0).standard_normal((9, 3))
    >>> few = distance_to_few(moments_of(features), np.linalg.cholesky(np.cov(features.T)), features + 2)
    >>> round(few, 6)
    12.0
    """
    fake = fake.astype(np.float64)
    centred = (fake - fake.mean(axis=0)) / np.sqrt(len(fake) - 1)
    singular = np.linalg.svd(centred @ root, compute_uv=False)
    difference = real.mean - fake.mean(axis=0)
    return float(difference @ difference + np.trace(real.covariance) + (centred**2).sum() - 2 * singular.sum())


def judge_of(name: str, subject: Subject, other: Part, count: int, folder: Path | None) -> Judge:
    """Returns a network with its outputs for the real images of a set."""
    if name == "classifier":
        embedding, real = trained_classifier(subject, folder), np.zeros((0, 0))

        def scores(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Scores:
            return {"accuracy": float((outputs["features"].argmax(axis=1) == labels).mean())}
    else:
        embedding = random_embedding() if name == "random" else lite0_embedding()
        real = kept_outputs(embedding, subject.reference.images, folder)["features"]
        labelled = name == "lite0" and subject.reference.classes
        head = fit_linear_classifier(real, subject.reference.labels, subject.reference.classes) if labelled else None
        scores = feature_scores(real, count, head)
    pool, others = (kept_outputs(embedding, images, folder) for images in (subject.pool.images, other.images[:count]))
    return Judge(name, embedding, pool, others, scores)


def trained_classifier(subject: Subject, folder: Path | None) -> Embedding:
    """Returns the small network of `classifier_accuracy`, trained on all images outside the pool."""
    images, labels, classes = subject.rest
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    names = tuple(map(str, range(classes)))
    source = ImageSource(images, labels, names, subject.name, content=lambda: digest)
    identity = f"{classifier.NAME}:{digest}"
    arrays = cached(folder, (identity,), lambda: as_arrays(classifier.train_classifier(source, NullProgress())))
    return classifier.build(classes, from_arrays(classifier.template(classes), arrays), identity)


def cells(subject: Subject, judge: Judge, count: int) -> Iterator[tuple[str, Callable[[], Scores]]]:
    """Yields the name of each cell of a set in a network, and a function that measures it; one per draw or strength."""
    labels = subject.pool.labels

    def of_pool(places: np.ndarray | slice) -> Scores:
        return judge.scores({name: rows[places] for name, rows in judge.pool.items()}, labels[places])

    def of_images(images: np.ndarray) -> Scores:
        return judge.scores(outputs_of(judge.embedding, images), labels[:count])

    def damaged(name: str, strength: float) -> Scores:
        random = np.random.default_rng(list(DAMAGES).index(name))
        return of_images(DAMAGES[name].apply(subject.pool.images[:count], strength, random))

    def mixed(share: float) -> Scores:
        replaced = np.random.default_rng(0).permutation(count) < round(share * count)
        both = {name: rows[:count].copy() for name, rows in judge.pool.items()}
        for name, rows in both.items():
            rows[replaced] = judge.others[name][replaced]
        return judge.scores(both, labels[:count])

    shape = (count, *subject.pool.images.shape[1:])
    for number in range(DRAWS):
        yield f"floor/{number}", functools.partial(of_pool, slice(number * count, (number + 1) * count))
    yield "uniform", lambda: of_images(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    for share in MIXED:
        yield f"mixed/{share}", functools.partial(mixed, share)
    for missing in MISSING if subject.pool.classes else ():
        yield f"missing/{missing}", functools.partial(of_pool, subject.with_classes(missing, count))
    for name, damage in DAMAGES.items():
        for strength in damage.strengths:
            yield f"{name}/{strength}", functools.partial(damaged, name, strength)


class Results:
    """The file of the results: settings, images, networks and a line per cell. It is written after each cell."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self._path = path
        found = read_json(path) if path.exists() else {"settings": dict(settings), "cells": {}}
        if found["settings"] != settings:
            raise InvalidInputError(
                f"{str(path)!r} holds results of other settings, {found['settings']}; now they are {settings}. Give "
                f"another --out."
            )
        self._content = {"images": {}, "networks": {}, **found}

    def require(self, kind: str, name: str, value: str) -> None:
        """Stores what the cells of a name were measured with, such as the network.

        Raises:
            InvalidInputError: the file holds cells that were measured with another.
        """
        known = self._content.setdefault(kind, {})
        if known.setdefault(name, value) != value:
            raise InvalidInputError(
                f"{str(self._path)!r} holds results of other {kind} for {name}: {known[name]}; now {value}. Give "
                f"another --out."
            )

    def __contains__(self, cell: str) -> bool:
        return cell in self._content["cells"]

    def add(self, cell: str, scores: Scores) -> None:
        """Stores the scores of a cell, with five digits."""
        self._content["cells"][cell] = {name: float(f"{value:.5g}") for name, value in scores.items()}
        lines = (f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in self._content["cells"].items())
        heads = (
            f" {json.dumps(name)}: {json.dumps(self._content[name])}" for name in ("settings", "images", "networks")
        )
        text = ",\n".join([*heads, ' "cells": {\n' + ",\n".join(lines) + "\n }"])
        write_atomically(self._path, f"{{\n{text}\n}}\n".encode())


def measure(given: argparse.Namespace) -> None:
    """Measures the cells that are not in the file yet."""
    results = Results(given.out, {"images": given.images, "reference": given.reference})
    folder = cache_folder(given.cache, "sensitivity")
    places = {"cifar10": given.cifar10, "digits": "digits", "faces": given.faces}
    sources = {
        name: open_source(place, resolution=RESOLUTIONS[name], cache=given.cache)
        for name, place in places.items()
        if place
    }
    for name, source in sources.items():
        results.require("images", name, source.fingerprint)
    subjects = {name: split(name, source, given.reference, given.images) for name, source in sources.items()}
    for network in given.network:
        for name, subject in subjects.items():
            if name not in given.set or (network == "classifier" and not subject.pool.classes):
                continue
            of_other = OTHERS[name] if OTHERS[name] in subjects else "digits"
            judge = judge_of(network, subject, subjects[of_other].pool, given.images, folder)
            results.require("networks", f"{name}/{network}", judge.embedding.identity)
            for cell, found in cells(subject, judge, given.images):
                full = f"{name}/{network}/{cell}"
                if full not in results and not (cell.startswith("mixed/") and of_other == name):
                    progress(full)
                    results.add(full, found())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cifar10", default="", help="training images of CIFAR-10 with their classes, such as a .zip")
    parser.add_argument("--faces", default="", help="photographs of faces")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="repeatable; default all")
    parser.add_argument("--set", action="append", choices=[*RESOLUTIONS], help="repeatable; default all given sets")
    parser.add_argument("--images", type=int, default=500, help="number of images of a cell")
    parser.add_argument("--reference", type=int, default=2500, help="real images of the reference")
    parser.add_argument("--cache", default="auto", help='folder for the features of real images; "" for none')
    parser.add_argument("--out", type=Path, help="JSON file, written after each cell")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument("--into", type=Path, help="with --tables: a page to write them into, between its two marks")
    parser.add_argument("--plot", type=Path, help="with --tables: a .png file of curves")
    given = parser.parse_args(arguments)
    for name in given.set or ():
        if name != "digits" and not getattr(given, name):
            raise InvalidInputError(f"--set {name} needs --{name}, its images.")
    if (given.into or given.plot) and not given.tables:
        raise InvalidInputError("--into and --plot need --tables, a file with results.")
    given.network, given.set = given.network or NETWORKS, given.set or [*RESOLUTIONS]
    if bool(given.out) == bool(given.tables):
        raise InvalidInputError("Either --out or --tables is needed: a file for the results, or one with results.")
    if given.images < 6 or given.reference < given.images:
        raise InvalidInputError(
            f"--images needs at least 6, and --reference as many; got {given.images} and {given.reference}."
        )
    return given


def run(arguments: Sequence[str]) -> None:
    """Measures, or prints and draws earlier results."""
    given = parse(arguments)
    if not given.tables:
        measure(given)
        return
    results = read_result(given.tables)
    fill(given.into, tables(results)) if given.into else print(tables(results))
    if given.plot:
        draw(results, given.plot)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "score_sensitivity"))
