"""Statistics of the real images for scores: moments, features and a classifier, each computed once and cached."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import classifier
from sagan_jax.evaluation.array_cache import Arrays, as_arrays, cached, from_arrays, stored
from sagan_jax.evaluation.embeddings import Embedding, as_clean_fid, lite0_embedding, random_embedding
from sagan_jax.evaluation.features import RecentFeatures, gather_features, gather_moments, moments_of_features
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.linear_classifier import MOST_ITERATIONS, PENALTY, LinearClassifier, fit_linear_classifier
from sagan_jax.evaluation.protocols import Protocol
from sagan_jax.evaluation.statistics_files import FeatureStatistics
from sagan_jax.functional.distances import Moments
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

MOST_REAL_FEATURES = 50_000
"""Kernel distances and linear classifiers use at most this many real images, drawn with seed 0."""


@dataclasses.dataclass(frozen=True)
class ReferenceStatistics:
    """The real images that scores compare with, and their statistics.

    Each statistic is computed once and kept in memory, and in `cache` for other runs on the same images.

    Attributes:
        train: the images that the networks and the classifier are trained on. None if there are none.
        held_out: images that the networks were not trained on; None if there are none.
        inception: the FID network; None if its weights are missing.
        dinov2: DINOv2; None if its weights are missing.
        cache: the folder for statistics; None keeps them only in memory.
        progress: receives the progress of each pass over images.
        statistics: moments of features that replace the real images; None if there are none.
        scored: the features of the last scored images.
    """

    train: RealImages | None
    held_out: RealImages | None = None
    inception: Embedding | None = None
    cache: Path | None = None
    progress: ProgressCallback = dataclasses.field(default_factory=NullProgress)
    statistics: FeatureStatistics | None = None
    dinov2: Embedding | None = None
    scored: RecentFeatures = dataclasses.field(default_factory=RecentFeatures, repr=False)
    _memory: dict[tuple[Any, ...], Arrays] = dataclasses.field(default_factory=dict, repr=False)

    def images(self, protocol: Protocol) -> RealImages | None:
        """Returns the real images that a protocol compares with; None if it compares with none or they are missing."""
        if protocol.reference is None:
            return None
        return self.held_out if protocol.held_out else self.train

    def require_images(self, protocol: Protocol) -> RealImages:
        """Returns the real images that a protocol compares with.

        Raises:
            InvalidInputError: there are none: the protocol compares with held-out images, or there are only statistics.
        """
        found = self.images(protocol)
        if found is None and self.statistics:
            raise self._needs_images(protocol.name)
        if found is None:
            raise InvalidInputError(
                f"{protocol.name} compares with images that were not trained on: name them with --held-out, a folder, "
                f"zip, .parquet or .npz."
            )
        return found

    def require_train(self, protocol: Protocol | None = None) -> RealImages:
        """Returns the training images.

        Raises:
            InvalidInputError: there are only statistics of them.
        """
        if self.train is None:
            raise self._needs_images(protocol.name if protocol else "This")
        return self.train

    def require_fit(self, protocol: Protocol) -> None:
        """Checks that the statistics, if any, belong to the features of a protocol.

        Raises:
            InvalidInputError: they belong to another network, or the network's weights are missing.
        """
        misfit = self.statistics.misfit(self.embedding(protocol)) if self.statistics else ""
        if misfit and self.statistics:
            raise InvalidInputError(f"{protocol.name} cannot be measured against {self.statistics.name}: it {misfit}.")

    def describe(self, protocol: Protocol) -> dict[str, Any] | None:
        """Returns a description of a protocol's reference for a result file; None if it has none."""
        if protocol.reference is None:
            return None
        if self.statistics and protocol.kind in ("fid", "fd"):
            return self.statistics.describe()
        return self.require_images(protocol).describe()

    def describe_training(self, protocol: Protocol) -> dict[str, Any] | None:
        """Returns a description of the training images for a score by a classifier or a rule; None for other scores."""
        return self.require_train(protocol).describe() if protocol.kind in ("classifier_accuracy", "rule") else None

    def _needs_images(self, what: str) -> InvalidInputError:
        assert self.statistics
        return InvalidInputError(
            f"{what} needs the real images; {self.statistics.name} holds only the mean and the covariance of "
            f"their features, which serve fid and fd. Name the images themselves as --reference."
        )

    def gaussian(self, protocol: Protocol) -> FeatureStatistics:
        """Returns the mean and the covariance that a Fréchet distance compares with.

        Raises:
            InvalidInputError: as for `moments`, or the statistics belong to other features.
            NonFiniteError: a feature is NaN or infinite.
        """
        if self.statistics:
            self.require_fit(protocol)
            return self.statistics
        moments = self.moments(protocol)
        return FeatureStatistics(moments.mean, moments.covariance, moments.count, "", "")

    def embedding(self, protocol: Protocol) -> Embedding:
        """Returns the network whose features a protocol compares.

        Raises:
            InvalidInputError: its weights are missing.
        """
        if protocol.embedding == "lite0":
            return lite0_embedding()
        if protocol.embedding == "dinov2":
            if self.dinov2 is None:
                raise InvalidInputError(
                    f"{protocol.name} needs the weights of DINOv2, which were not found: run `sagan-jax fetch-weights "
                    f"dinov2`, or name a file with --dinov2-weights."
                )
            return self.dinov2
        if protocol.embedding != "inception":
            return random_embedding()
        if self.inception is None:
            raise InvalidInputError(
                f"{protocol.name} needs the weights of the FID network, which were not found: run `sagan-jax "
                f"fetch-weights`, or name a file with --inception-weights. fd5k_train_lite0 and fd5k_train_random "
                f"need no weights, but are not the FID."
            )
        return self._clean_inception if protocol.clean else self.inception

    @functools.cached_property
    def _clean_inception(self) -> Embedding:
        assert self.inception  # checked by `embedding`
        return as_clean_fid(self.inception)

    def moments(self, protocol: Protocol, label: int | None = None) -> Moments:
        """Returns the moments of the features of the real images, or of those of one class.

        Args:
            protocol: specifies the images and the features.
            label: the class; None for all images.

        Raises:
            InvalidInputError: as for `require_images` and `embedding`.
            NonFiniteError: a feature is NaN or infinite.
        """
        reference = self.require_images(protocol)

        def compute() -> Arrays:
            count = len(reference.source)
            if protocol.shares_features and count <= MOST_REAL_FEATURES:
                features = self.features(protocol, count)
                labels = reference.source.labels[reference.drawn(count, seed=0)]
                return moments_of_features(features if label is None else features[labels == label])._asdict()
            indices = np.arange(count) if label is None else reference.class_indices(label)
            self.progress.begin("real images", len(indices))
            moments = gather_moments(self.embedding(protocol), reference.read(indices), self.progress)
            return moments._asdict()

        kept = self._remember(self._key(protocol, reference, "moments", label), compute)
        return Moments(int(kept["count"]), kept["mean"], kept["scatter"])

    def features(self, protocol: Protocol, most: int) -> np.ndarray:
        """Returns the features `[N, D]` of real images drawn with seed 0.

        The features for a smaller N are the first rows of those for a larger N. If the protocol shares features, cached
        features of more images are reused.

        Args:
            protocol: specifies the images and the features.
            most: N, the number of images; all images if there are fewer.

        Raises:
            InvalidInputError: as for `require_images` and `embedding`.
            NonFiniteError: a feature is NaN or infinite.
        """
        reference = self.require_images(protocol)
        count, largest = (min(number, len(reference.source)) for number in (most, MOST_REAL_FEATURES))

        def compute() -> Arrays:
            self.progress.begin("real images", count)
            drawn = reference.draw(count, seed=0)
            return {"features": gather_features(self.embedding(protocol), drawn, self.progress)}

        kept = self._recall(self._key(protocol, reference, "features", largest)) if protocol.shares_features else None
        if kept and count < largest:
            return kept["features"][:count]
        return self._remember(self._key(protocol, reference, "features", count), compute)["features"]

    def missing_features(self, protocol: Protocol) -> int:
        """Returns the number of real images that a protocol with shared features still has to embed.

        It is 0 if the statistics that it needs are cached.
        """
        if protocol.kind == "is":
            return 0
        compared = protocol if protocol.reference else dataclasses.replace(protocol, reference="train")
        reference = self.require_images(compared)
        key, total = functools.partial(self._key, compared, reference), len(reference.source)
        most = min(MOST_REAL_FEATURES, total)
        count = {"prdc": min(protocol.images, total), "fd": total, "intra_fd": total}.get(protocol.kind, most)
        keys = [key("features", size) for size in (count, most) if size >= count]
        keys += [key("moments", None)] if protocol.kind == "fd" else []
        return 0 if any(self._recall(one) for one in keys) else count

    def classifier_of(self, protocol: Protocol) -> classifier.Classifier:
        """Returns a protocol's classifier of the training images: a small network, or a linear classifier of features.

        Raises:
            InvalidInputError: the training images have no classes, are too few, or the network's weights are missing.
        """
        return self.trained_classifier if protocol.embedding == "classifier" else self._feature_classifier(protocol)

    def _feature_classifier(self, protocol: Protocol) -> classifier.Classifier:
        """Returns a logistic regression on the features of nine of ten training images."""
        train, network = self.require_train(protocol), self.embedding(protocol)
        source, count = train.source, min(MOST_REAL_FEATURES, len(train.source))
        classifier.require_classes(source)

        def compute() -> Arrays:
            features = self.features(dataclasses.replace(protocol, reference="train"), count)
            labels, kept = source.labels[train.drawn(count, seed=0)], classifier.is_held_out(count)
            fitted = fit_linear_classifier(features[~kept], labels[~kept], source.num_classes)
            found = (fitted.logits(features[kept]).argmax(axis=1) == labels[kept]).mean()
            return {**fitted._asdict(), "accuracy": np.asarray(found)}

        identity = f"logistic-regression-{PENALTY:g}-{MOST_ITERATIONS}:{count}:{source.fingerprint}:{network.identity}"
        arrays = self._remember((identity, source[0][0].shape), compute)
        fitted = LinearClassifier(arrays["kernel"], arrays["bias"])
        return classifier.Classifier(classifier.FeatureClassifier(network, fitted, identity), float(arrays["accuracy"]))

    @functools.cached_property
    def trained_classifier(self) -> classifier.Classifier:
        """A classifier of the training images, trained when it is first needed.

        Raises:
            InvalidInputError: the training images have no classes, or are too few.
        """
        train = self.train
        assert train  # checked by `require_train`
        source = train.source
        identity = f"{classifier.NAME}:{source.fingerprint}"

        def build(arrays: Arrays) -> Embedding:
            variables = from_arrays(classifier.template(source.num_classes), arrays)
            return classifier.build(source.num_classes, variables, identity)

        def compute() -> Arrays:
            self.progress.begin("training a classifier: images", classifier.IMAGES)
            arrays = as_arrays(classifier.train_classifier(source, self.progress))
            held_out = np.flatnonzero(classifier.is_held_out(len(source)))
            self.progress.begin("real images kept from the classifier", len(held_out))
            accuracy = classifier.accuracy(build(arrays), [train.read(held_out)], self.progress)
            return arrays | {"accuracy": np.asarray(accuracy)}

        arrays = self._remember(("classifier 2", identity, source[0][0].shape), compute)
        return classifier.Classifier(build(arrays), float(arrays["accuracy"]))

    def _key(self, protocol: Protocol, reference: RealImages, *more: Any) -> tuple[Any, ...]:
        shape = reference.source[0][0].shape
        embedding = self.embedding(protocol)
        resize = ("clean",) if protocol.clean else ()
        return ("reference 1", reference.source.fingerprint, shape, embedding.identity, *resize, *more)

    def _remember(self, key: tuple[Any, ...], compute: Callable[[], Mapping[str, Any]]) -> Arrays:
        if key not in self._memory:
            arrays = cached(self.cache, key, lambda: {name: np.asarray(value) for name, value in compute().items()})
            self._memory[key] = arrays
        return self._memory[key]

    def _recall(self, key: tuple[Any, ...]) -> Arrays | None:
        """Returns the arrays that `_remember` stored under a key, or None."""
        found = self._memory.get(key) or stored(self.cache, key)
        if found:
            self._memory[key] = found
        return found
