"""Scores images by named protocols."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from sagan_jax.errors import NonFiniteError
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.evaluation.image_sets import ImageSet, RealImages
from sagan_jax.evaluation.protocols import Kind, Protocol, with_subset
from sagan_jax.evaluation.references import ReferenceStatistics
from sagan_jax.evaluation.scores import (
    KERNEL_SUBSET_SIZE,
    ClassifierAccuracy,
    FrechetDistance,
    InceptionScore,
    IntraClassFrechetDistance,
    KernelDistance,
    PrecisionRecall,
    RuleAccuracy,
    Score,
    Scorer,
)
from sagan_jax.evaluation.statistics_files import FeatureStatistics
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

_SCORERS: dict[Kind, type[Scorer]] = {
    "fid": FrechetDistance,
    "fd": FrechetDistance,
    "intra_fid": IntraClassFrechetDistance,
    "intra_fd": IntraClassFrechetDistance,
    "is": InceptionScore,
    "kid": KernelDistance,
    "kd": KernelDistance,
    "prdc": PrecisionRecall,
    "classifier_accuracy": ClassifierAccuracy,
    "rule": RuleAccuracy,
}


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores sets of images against real ones, and caches the statistics of the real ones.

    Attributes:
        train: the images that the networks and the classifier are trained on. None if there are none.
        held_out: images that the networks were not trained on; None if there are none.
        inception: the FID network; None if its weights are missing.
        dinov2: DINOv2; None if its weights are missing.
        cache: the folder for statistics of the real images; None keeps them only in memory.
        progress: receives the progress of each pass over images.
        statistics: moments of features that replace the real images; None if there are none.
    """

    train: RealImages | None
    held_out: RealImages | None = None
    inception: Embedding | None = None
    cache: Path | None = None
    progress: ProgressCallback = dataclasses.field(default_factory=NullProgress)
    statistics: FeatureStatistics | None = None
    dinov2: Embedding | None = None

    def score(self, protocol: Protocol, images: ImageSet, *, seed: int = 0) -> Score:
        """Returns the score of a set of images, by the protocol that `resolve` returns.

        Args:
            protocol: what to measure; see `sagan_jax.evaluation.protocols`.
            images: the images to score.
            seed: the seed for latents and classes, or for the selection of images from a set.

        Raises:
            InvalidInputError: something is missing: weights, a reference, classes, or enough images.
            NonFiniteError: a feature or a value of the score is NaN or infinite.
        """
        protocol = self.resolve(protocol)
        scorer = self.scorer(protocol)
        scorer.check_images(images)
        values, details = scorer.measure(images, seed)
        for name, value in values.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} is {value}: the images or the network's weights may be damaged.")
        details = {"seed": seed, **images.describe(), **details}
        if protocol.embedding not in ("classifier", None):
            embedding = self.references.embedding(protocol)
            details["embedding"] = embedding.identity
            if embedding.caveat:
                already = f"{details['warning']}; " if "warning" in details else ""
                details["warning"] = f"{already}{embedding.caveat}"
        reference = self.references.describe(protocol)
        if reference:
            details["reference"] = reference
        training = self.references.describe_training(protocol)
        if training:
            details["training_images"] = training
        return Score(protocol, values, details)

    def check(self, protocol: Protocol, num_classes: int) -> None:
        """Checks that everything that a protocol needs is available.

        Args:
            protocol: what will be measured.
            num_classes: the number of classes of the images to score; 0 if they have no labels.

        Raises:
            InvalidInputError: something is missing: weights, a reference, classes, or enough images.
        """
        self.scorer(protocol).check(num_classes)

    def check_images(self, protocol: Protocol, images: ImageSet) -> None:
        """Checks that a set of images can be scored, as `check` does, and has enough images. Reads none of them.

        Raises:
            InvalidInputError: something is missing.
        """
        self.scorer(self.resolve(protocol)).check_images(images)

    def resolve(self, protocol: Protocol) -> Protocol:
        """Returns the protocol with the subset size in its name, if there are too few images for the default size.

        Subsets of a kernel distance have 1,000 images. With fewer real or scored images, a subset has all of them, and
        `_subset` and its size are added to the name.
        """
        real = self.references.images(protocol)
        if protocol.kind not in ("kid", "kd") or protocol.subset or real is None:
            return protocol
        size = min(protocol.images, len(real.source))
        return with_subset(protocol, size) if size < KERNEL_SUBSET_SIZE else protocol

    def value_names(self, protocol: Protocol) -> tuple[str, ...]:
        """Returns the names of a score's values before it is measured. The first is the name of `Score.value`.

        Args:
            protocol: one that `check` accepts.
        """
        return self.scorer(self.resolve(protocol)).value_names

    def scorer(self, protocol: Protocol) -> Scorer:
        """Returns the scorer of a protocol."""
        return _SCORERS[protocol.kind](protocol, self.references)

    @functools.cached_property
    def references(self) -> ReferenceStatistics:
        """The statistics of the real images."""
        return ReferenceStatistics(
            self.train, self.held_out, self.inception, self.cache, self.progress, self.statistics, self.dinov2
        )
