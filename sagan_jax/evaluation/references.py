"""What scores need to know of the real images: moments, features and a classifier, each computed once and cached."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import classifier
from sagan_jax.evaluation.array_cache import Arrays, as_arrays, cached, from_arrays
from sagan_jax.evaluation.embeddings import Embedding, lite0_embedding, random_embedding
from sagan_jax.evaluation.features import gather_features, gather_moments
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.protocols import Protocol
from sagan_jax.evaluation.statistics_files import FeatureStatistics
from sagan_jax.functional.distances import Moments
from sagan_jax.runtime.progress import NullProgress, ProgressCallback


@dataclasses.dataclass(frozen=True)
class ReferenceStatistics:
    """The real images that scores compare with, and what is known of them.

    Each statistic is computed once and kept in memory, and in `cache` for other runs on the same images.

    Attributes:
        train: the images that the networks were trained on; the classifier learns from them. None if there are none.
        held_out: images that the networks were not trained on; None if there are none.
        inception: the FID network; None if its weights are missing.
        cache: the folder that keeps statistics; None keeps them in memory only.
        progress: receives the progress of each pass over images.
        statistics: moments of features that take the place of all real images; None if there are none.
    """

    train: RealImages | None
    held_out: RealImages | None = None
    inception: Embedding | None = None
    cache: Path | None = None
    progress: ProgressCallback = dataclasses.field(default_factory=NullProgress)
    statistics: FeatureStatistics | None = None
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
        """Checks that the statistics, if there are any, are of the features that a protocol compares.

        Raises:
            InvalidInputError: they are of another network, or the network's weights are missing.
        """
        misfit = self.statistics.misfit(self.embedding(protocol)) if self.statistics else ""
        if misfit and self.statistics:
            raise InvalidInputError(f"{protocol.name} cannot be measured against {self.statistics.name}: it {misfit}.")

    def describe(self, protocol: Protocol) -> dict[str, Any] | None:
        """Returns what a result file says about the reference of a protocol; None if it has none."""
        if protocol.reference is None:
            return None
        if self.statistics and protocol.kind in ("fid", "fd"):
            return self.statistics.describe()
        return self.require_images(protocol).describe()

    def _needs_images(self, what: str) -> InvalidInputError:
        assert self.statistics
        return InvalidInputError(
            f"{what} needs the real images; {self.statistics.name} holds only the mean and the covariance of "
            f"their features, which serve fid and fd. Name the images themselves as --reference."
        )

    def gaussian(self, protocol: Protocol) -> FeatureStatistics:
        """Returns the mean and the covariance that a Fréchet distance compares with.

        Raises:
            InvalidInputError: as for `moments`, or the statistics are of other features.
            NonFiniteError: a feature is NaN or infinite.
        """
        if self.statistics:
            self.require_fit(protocol)
            return self.statistics
        moments = self.moments(protocol)
        return FeatureStatistics(moments.mean, moments.covariance, moments.count, "", "")

    def embedding(self, protocol: Protocol) -> Embedding:
        """Returns the network in whose features a protocol compares images.

        Raises:
            InvalidInputError: its weights are missing.
        """
        if protocol.embedding == "lite0":
            return lite0_embedding()
        if protocol.embedding == "dinov2":
            raise InvalidInputError(f"{protocol.name} needs the weights of DINOv2, which were not found.")
        if protocol.embedding != "inception":
            return random_embedding()
        if protocol.clean:
            raise InvalidInputError(f"{protocol.name} needs a resize that is not there.")
        if self.inception is None:
            raise InvalidInputError(
                f"{protocol.name} needs the weights of the FID network, which were not found: run `sagan-jax "
                f"fetch-weights`, or name a file with --inception-weights. fd5k_train_lite0 and fd5k_train_random "
                f"need none, but are no FID."
            )
        return self.inception

    def moments(self, protocol: Protocol, label: int | None = None) -> Moments:
        """Returns the moments of the features of the real images, or of those of one class.

        Args:
            protocol: says which images and which features.
            label: the class; None takes all images.

        Raises:
            InvalidInputError: as for `require_images` and `embedding`.
            NonFiniteError: a feature is NaN or infinite.
        """
        reference = self.require_images(protocol)

        def compute() -> Arrays:
            indices = np.arange(len(reference.source)) if label is None else reference.class_indices(label)
            self.progress.begin("real images", len(indices))
            moments = gather_moments(self.embedding(protocol), reference.read(indices), self.progress)
            return {name: np.asarray(value) for name, value in moments._asdict().items()}

        stored = self._remember(self._key(protocol, reference, "moments", label), compute)
        return Moments(int(stored["count"]), stored["mean"], stored["scatter"])

    def features(self, protocol: Protocol, most: int) -> np.ndarray:
        """Returns the features `[N, D]` of real images drawn with seed 0.

        Args:
            protocol: says which images and which features.
            most: N; all images if there are fewer.

        Raises:
            InvalidInputError: as for `require_images` and `embedding`.
            NonFiniteError: a feature is NaN or infinite.
        """
        reference = self.require_images(protocol)
        count = min(most, len(reference.source))

        def compute() -> Arrays:
            self.progress.begin("real images", count)
            drawn = reference.draw(count, seed=0)
            return {"features": gather_features(self.embedding(protocol), drawn, self.progress)}

        return self._remember(self._key(protocol, reference, "features", count), compute)["features"]

    @functools.cached_property
    def trained_classifier(self) -> classifier.Classifier:
        """A classifier of the training images, trained when it is first needed.

        Raises:
            InvalidInputError: the training images have no classes, or are too few.
        """
        train = self.train
        assert train  # `require_train` has seen it
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
        return ("reference 1", reference.source.fingerprint, shape, self.embedding(protocol).identity, *more)

    def _remember(self, key: tuple[Any, ...], compute: Callable[[], Arrays]) -> Arrays:
        if key not in self._memory:
            self._memory[key] = cached(self.cache, key, compute)
        return self._memory[key]
