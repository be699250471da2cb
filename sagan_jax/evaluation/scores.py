"""From a protocol to a number."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation import classifier
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, random_embedding
from sagan_jax.evaluation.image_sets import ImageSet, RealImages
from sagan_jax.evaluation.protocols import Protocol
from sagan_jax.evaluation.references import as_arrays, cached, from_arrays
from sagan_jax.evaluation.rules import judge, num_modes, rule_accuracy
from sagan_jax.functional.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    merge_moments,
    moments_of,
    precision_recall,
)
from sagan_jax.runtime.processes import gather
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

INCEPTION_SCORE_SPLITS = 10
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
PRECISION_RECALL = "precision", "recall", "density", "coverage"
MOST_REAL_FEATURES = 50_000
"""Kernel distances compare with at most this many real images, drawn with seed 0."""


@dataclasses.dataclass(frozen=True)
class Score:
    """What a protocol gave.

    Attributes:
        protocol: the name is the score's.
        values: by name, the protocol's own first.
        details: what else a result file says: of the images, the reference, the features, and by class.
    """

    protocol: Protocol
    values: dict[str, float]
    details: dict[str, Any]

    @property
    def value(self) -> float:
        """The number that goes by the protocol's name."""
        return next(iter(self.values.values()))

    def __str__(self) -> str:
        """Returns the score for a person: its values, and what it must not be taken for."""
        words = ["  ".join(f"{name} {value:.6g}" for name, value in self.values.items())]
        if self.protocol.kind == "classifier_accuracy":
            words.append(
                f"(a classifier trained on the real images, right on {self.details['on_real_images_kept_from_it']:.1%} "
                f"of those kept from it; compares only with itself)"
            )
        elif self.protocol.only_with_itself:
            words.append("(features of random weights: compares only with itself, never with a published FID)")
        if "warning" in self.details:
            words.append(f"(warning: {self.details['warning']})")
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Measures images against real ones; what it learns of the real ones it keeps.

    Attributes:
        train: the images that were trained on; also what the classifier learns from.
        held_out: those that were not; None where there are none.
        inception: the FID network, where its weights are there.
        cache: a folder for what was worked out of the real images; None keeps nothing.
        watcher: is told how far it is.
    """

    train: RealImages
    held_out: RealImages | None = None
    inception: Embedding | None = None
    cache: Path | None = None
    watcher: ProgressCallback = dataclasses.field(default_factory=NullProgress)
    _memory: dict[tuple[Any, ...], dict[str, np.ndarray]] = dataclasses.field(default_factory=dict, repr=False)

    def score(self, protocol: Protocol, pictures: ImageSet, *, seed: int = 0) -> Score:
        """Returns what the protocol makes of the pictures.

        Args:
            protocol: see `sagan_jax.evaluation.protocols`.
            pictures: what is scored.
            seed: of latents and classes, or of which images are taken.

        Raises:
            InvalidInputError: the protocol needs what is not there: weights, a reference, classes, more images.
            NonFiniteError: the features or the score are no numbers.
        """
        self.check(protocol, pictures.num_classes)
        measure = {
            "fid": self._frechet,
            "fd": self._frechet,
            "intra_fid": self._intra_frechet,
            "intra_fd": self._intra_frechet,
            "is": self._inception_score,
            "kid": self._kernel,
            "kd": self._kernel,
            "prdc": self._precision_recall,
            "classifier_accuracy": self._classifier_accuracy,
            "rule": self._rule,
        }[protocol.kind]
        values, details = measure(protocol, pictures, seed)
        for name, value in values.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} is {value}: the images or the network's weights are no numbers.")
        reference = self._reference(protocol)
        details = {"seed": seed, **pictures.describe(), **details}
        if protocol.embedding in ("random", "inception"):
            details["embedding"] = self._embedding(protocol).identity
        if reference:
            details["reference"] = reference.describe()
        return Score(protocol, values, details)

    def check(self, protocol: Protocol, num_classes: int) -> None:
        """Raises InvalidInputError when the protocol needs something that is not there.

        Args:
            protocol: see `sagan_jax.evaluation.protocols`.
            num_classes: of what will be scored; 0 means unlabelled.
        """
        name, reference = protocol.name, self._reference(protocol)
        if protocol.kind == "rule":
            source = self.train.source
            if source.rule is None:
                raise InvalidInputError(
                    f"{name} is told by the rule that real images were drawn by, as those of `pairs` and `mirror` "
                    f"were; got {source.description}."
                )
            if source[0][0].shape[-1] != 3:
                raise InvalidInputError(f"{name} needs images of 3 channels; got {source[0][0].shape[-1]}.")
            return
        self._embedding(protocol)
        if protocol.held_out and reference is None:
            raise InvalidInputError(
                f"{name} compares with images that were not trained on: name them with --held-out, a folder, zip, "
                f".parquet or .npz."
            )
        if protocol.kind.startswith("intra") or protocol.kind == "classifier_accuracy":
            for what, classes in (
                ("the real images have", self.train.num_classes),
                ("what is scored has", num_classes),
            ):
                if not classes:
                    raise InvalidInputError(f"{name} needs classes; {what} none.")
        if protocol.kind.startswith("intra") and reference:
            fewest = np.bincount(reference.source.labels, minlength=reference.num_classes).min()
            if fewest < 2:
                raise InvalidInputError(f"{name} needs at least 2 real images of each class; one class has {fewest}.")
        if protocol.kind == "prdc" and reference and len(reference.source) < protocol.images:
            raise InvalidInputError(
                f"{name} needs {protocol.images:,} real images; got {reference.source.description}."
            )
        if protocol.kind in ("kid", "kd"):
            for what, count in (
                ("images", protocol.images),
                ("real images", len(reference.source) if reference else 0),
            ):
                if count < KERNEL_SUBSET_SIZE:
                    raise InvalidInputError(
                        f"{name} takes subsets of {KERNEL_SUBSET_SIZE:,}, so it needs as many {what}; got {count:,}."
                    )
        if protocol.kind == "is" and protocol.images < 2 * INCEPTION_SCORE_SPLITS:
            raise InvalidInputError(f"{name} makes {INCEPTION_SCORE_SPLITS} splits: it needs more images.")
        if protocol.kind in ("fid", "fd"):
            for what, count in (("", protocol.images), ("real ", len(reference.source) if reference else 0)):
                if count < 2:
                    raise InvalidInputError(f"{name} needs at least 2 {what}images; got {count}.")

    def value_names(self, protocol: Protocol) -> tuple[str, ...]:
        """Returns what the values of a score are called, the one that it goes by first, before it is measured.

        Args:
            protocol: one that `check` lets pass.
        """
        own, parts = (protocol.name,), ()
        if protocol.kind == "is":
            parts = ("deviation", "one_split")
        elif protocol.kind in ("kid", "kd"):
            parts = ("deviation",)
        elif protocol.kind == "prdc":
            own, parts = (), PRECISION_RECALL
        elif protocol.kind == "rule":
            rule = self.train.source.rule
            assert rule is not None
            nothing = judge(np.zeros((1, *self.train.source[0][0].shape), np.uint8), rule)
            parts = tuple(name for name in rule_accuracy(nothing, num_modes(rule)) if name != "obey")
        return (*own, *(f"{protocol.name}/{part}" for part in parts))

    # Each of these returns the values by name and details for the result file.

    def _frechet(self, protocol: Protocol, pictures: ImageSet, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
        real = self._reference_moments(protocol)
        fake = self._moments(protocol, self._drawn(protocol, pictures, seed))
        value = frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)
        return {protocol.name: value}, _warning(real, fake)

    def _intra_frechet(
        self, protocol: Protocol, pictures: ImageSet, seed: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        reference = self._reference(protocol)
        assert reference is not None
        by_class, warning = {}, {}
        for label, name in enumerate(reference.source.class_names):
            real = self._reference_moments(protocol, label)
            self.watcher.begin(f"images of {name}", real.count)
            fake = self._moments(protocol, pictures.draw_class(label, real.count, seed))
            by_class[name] = frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)
            warning = warning or _warning(real, fake)
        return {protocol.name: float(np.mean(list(by_class.values())))}, {"by_class": by_class, **warning}

    def _inception_score(
        self, protocol: Protocol, pictures: ImageSet, seed: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        logits = self._features(protocol, self._drawn(protocol, pictures, seed), "logits_unbiased")
        mean, deviation = inception_score(logits, INCEPTION_SCORE_SPLITS)
        whole, _ = inception_score(logits, 1)  # the release's own way
        values = {protocol.name: mean, f"{protocol.name}/deviation": deviation, f"{protocol.name}/one_split": whole}
        return values, {"splits": INCEPTION_SCORE_SPLITS, "logits": "without bias"}

    def _kernel(self, protocol: Protocol, pictures: ImageSet, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
        real = self._reference_features(protocol, MOST_REAL_FEATURES)
        fake = self._features(protocol, self._drawn(protocol, pictures, seed))
        drawn = np.random.default_rng(seed)

        def subset(features: np.ndarray) -> np.ndarray:
            return features[drawn.choice(len(features), KERNEL_SUBSET_SIZE, replace=False)]

        found = [kernel_distance(subset(real), subset(fake)) for _ in range(KERNEL_SUBSETS)]
        values = {protocol.name: float(np.mean(found)), f"{protocol.name}/deviation": float(np.std(found))}
        return values, {"subsets": KERNEL_SUBSETS, "subset_size": KERNEL_SUBSET_SIZE, "real_images_used": len(real)}

    def _precision_recall(
        self, protocol: Protocol, pictures: ImageSet, seed: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        real = self._reference_features(protocol, protocol.images)
        fake = self._features(protocol, self._drawn(protocol, pictures, seed))
        values = dict(
            zip(
                PRECISION_RECALL,
                (
                    *precision_recall(real, fake, PRECISION_NEIGHBOURS),
                    *density_coverage(real, fake, DENSITY_NEIGHBOURS),
                ),
                strict=True,
            )
        )
        neighbours = {"precision, recall": PRECISION_NEIGHBOURS, "density, coverage": DENSITY_NEIGHBOURS}
        return {f"{protocol.name}/{name}": value for name, value in values.items()}, {"neighbours": neighbours}

    def _classifier_accuracy(
        self, protocol: Protocol, pictures: ImageSet, seed: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        classes = self.train.num_classes
        counts = [len(range(label, protocol.images, classes)) for label in range(classes)]
        draws = [pictures.draw_class(label, count, seed) for label, count in enumerate(counts) if count]
        judge = self._classifier
        self.watcher.begin("images", protocol.images)
        details = {"classifier": judge.embedding.identity, "on_real_images_kept_from_it": judge.accuracy}
        return {protocol.name: float(self._right(judge.embedding, *draws))}, details

    def _rule(self, protocol: Protocol, pictures: ImageSet, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
        rule = self.train.source.rule
        assert rule is not None
        # A process that draws none has the verdicts of no images.
        verdicts = [judge(np.zeros((0, *self.train.source[0][0].shape), np.uint8), rule)]
        for batch in self._drawn(protocol, pictures, seed):
            verdicts.append(judge(np.asarray(batch.images)[: len(batch.labels)], rule))
            self.watcher.tick(len(batch.labels))
        everywhere = jax.tree.map(lambda *parts: np.concatenate(gather(np.concatenate(parts))), *verdicts)
        found = rule_accuracy(everywhere, num_modes(rule))
        values = {protocol.name: found.pop("obey")} | {f"{protocol.name}/{name}": found[name] for name in found}
        return values, {"rule": repr(rule)}

    def _drawn(self, protocol: Protocol, pictures: ImageSet, seed: int) -> Iterator[ImageBatch]:
        batches = pictures.draw(protocol.images, seed)
        self.watcher.begin("images", protocol.images)
        return batches

    # What is known of the real images.

    def _reference(self, protocol: Protocol) -> RealImages | None:
        if protocol.reference is None:
            return None
        return self.held_out if protocol.held_out else self.train

    def _embedding(self, protocol: Protocol) -> Embedding:
        if protocol.embedding != "inception":
            return random_embedding()
        if self.inception is None:
            raise InvalidInputError(
                f"{protocol.name} needs the weights of the FID network, which are not here: `sagan-jax fetch-weights` "
                f"brings them, --inception-weights names a file. Without, fd5k_train_random compares only with itself."
            )
        return self.inception

    def _facts(self, protocol: Protocol, reference: RealImages, *more: Any) -> tuple[Any, ...]:
        shape = reference.source[0][0].shape
        return ("reference 1", reference.source.fingerprint, shape, self._embedding(protocol).identity, *more)

    def _remembered(
        self, facts: tuple[Any, ...], work_out: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        if facts not in self._memory:
            self._memory[facts] = cached(self.cache, facts, work_out)
        return self._memory[facts]

    def _reference_moments(self, protocol: Protocol, label: int | None = None) -> Moments:
        reference = self._reference(protocol)
        assert reference is not None

        def work_out() -> dict[str, np.ndarray]:
            indices = np.arange(len(reference.source)) if label is None else reference.of_class(label)
            batches = reference.of(indices)
            self.watcher.begin("real images", len(indices))
            moments = self._moments(protocol, batches)
            return {name: np.asarray(value) for name, value in moments._asdict().items()}

        kept = self._remembered(self._facts(protocol, reference, "moments", label), work_out)
        return Moments(int(kept["count"]), kept["mean"], kept["scatter"])

    def _reference_features(self, protocol: Protocol, most: int) -> np.ndarray:
        reference = self._reference(protocol)
        assert reference is not None
        count = min(most, len(reference.source))

        def work_out() -> dict[str, np.ndarray]:
            self.watcher.begin("real images", count)
            return {"features": self._features(protocol, reference.draw(count, seed=0))}

        return self._remembered(self._facts(protocol, reference, "features", count), work_out)["features"]

    @functools.cached_property
    def _classifier(self) -> classifier.Classifier:
        source = self.train.source
        identity = f"{classifier.NAME}:{source.fingerprint}"

        def build(arrays: dict[str, np.ndarray]) -> Embedding:
            variables = from_arrays(classifier.template(source.num_classes), arrays)
            return classifier.build(source.num_classes, variables, identity)

        def work_out() -> dict[str, np.ndarray]:
            self.watcher.begin("training a classifier: images", classifier.IMAGES)
            arrays = as_arrays(classifier.train_classifier(source, self.watcher.tick))
            kept_out = np.flatnonzero(classifier.kept_out(len(source)))
            self.watcher.begin("real images kept from the classifier", len(kept_out))
            return arrays | {"accuracy": self._right(build(arrays), self.train.of(kept_out))}

        arrays = self._remembered(("classifier 2", identity, source[0][0].shape), work_out)
        return classifier.Classifier(build(arrays), float(arrays["accuracy"]))

    def _right(self, judge: Embedding, *draws: Iterable[ImageBatch]) -> np.ndarray:
        """Returns the share of the images, over all processes, that a classifier calls what they are labelled."""
        found = np.sum([classifier.accuracy(judge, batches, self.watcher.tick) for batches in draws], axis=0)
        right, number = np.sum(gather(found[None]), axis=(0, 1))
        return np.asarray(right / number)

    # From batches to what distances take, over all processes.

    def _moments(self, protocol: Protocol, batches: Iterable[ImageBatch]) -> Moments:
        """Returns the moments of the features, in one stream: no image is held longer than its batch."""
        embedding, held, moments = self._embedding(protocol), [], []
        for outputs, _ in self._looked_at(embedding, batches):
            held.append(outputs["features"])
            if sum(map(len, held)) >= 1000:  # a merge costs as much as a thousand rows
                moments = [functools.reduce(merge_moments, [*moments, moments_of(np.concatenate(held))])]
                held = []
        if held:
            moments = [functools.reduce(merge_moments, [*moments, moments_of(np.concatenate(held))])]
        size = embedding.size
        counts = gather(np.array([part.count for part in moments], np.int64))
        means = gather(np.reshape([part.mean for part in moments], (-1, size)))
        scatters = gather(np.reshape([part.scatter for part in moments], (-1, size, size)))
        everywhere = zip(*map(np.concatenate, (counts, means, scatters)), strict=True)
        return functools.reduce(
            merge_moments, (Moments(int(count), mean, scatter) for count, mean, scatter in everywhere)
        )

    def _features(self, protocol: Protocol, batches: Iterable[ImageBatch], name: str = "features") -> np.ndarray:
        """Returns the features `[N, D]` in the order of the draw, whichever process looked at them."""
        embedding = self._embedding(protocol)
        rows, places = (
            [np.zeros((0, embedding.size), np.float32)] if name == "features" else [],
            [np.zeros(0, np.int64)],
        )
        for outputs, batch in self._looked_at(embedding, batches):
            rows.append(outputs[name])
            places.append(batch.start + np.arange(len(batch.labels)))
        order = np.concatenate(gather(np.concatenate(places))).argsort()
        return np.concatenate(gather(np.concatenate(rows)))[order]

    def _looked_at(
        self, embedding: Embedding, batches: Iterable[ImageBatch]
    ) -> Iterator[tuple[dict[str, np.ndarray], ImageBatch]]:
        for outputs, batch in embedding(batches):
            if not all(np.isfinite(values).all() for values in outputs.values()):
                raise NonFiniteError(f"The {embedding.name} network's features are no numbers: are its weights?")
            self.watcher.tick(len(batch.labels))
            yield outputs, batch


def _warning(*moments: Moments) -> dict[str, str]:
    fewest, size = min(part.count for part in moments), len(moments[0].mean)
    if fewest > size:
        return {}
    return {"warning": f"{fewest:,} images for {size:,} features: the covariance is singular and the distance biased"}
