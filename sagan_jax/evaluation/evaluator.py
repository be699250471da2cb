"""Scores images by named protocols."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from sagan_jax.errors import NonFiniteError
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.evaluation.image_sets import ImageSet, RealImages
from sagan_jax.evaluation.protocols import Kind, Protocol
from sagan_jax.evaluation.references import ReferenceStatistics
from sagan_jax.evaluation.scores import (
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
    """Scores sets of images against real ones; what it computes of the real ones is kept for the next score.

    Attributes:
        train: the images that the networks were trained on; the classifier learns from them.
        held_out: images that the networks were not trained on; None if there are none.
        inception: the FID network; None if its weights are missing.
        cache: the folder that keeps statistics of the real images; None keeps them in memory only.
        progress: receives the progress of each pass over images.
    """

    train: RealImages
    held_out: RealImages | None = None
    inception: Embedding | None = None
    cache: Path | None = None
    progress: ProgressCallback = dataclasses.field(default_factory=NullProgress)

    def score(self, protocol: Protocol, images: ImageSet, *, seed: int = 0) -> Score:
        """Returns the score of a set of images.

        Args:
            protocol: says what is measured; see `sagan_jax.evaluation.protocols`.
            images: what is scored.
            seed: draws latents and classes, or chooses among the images of a set.

        Raises:
            InvalidInputError: something is missing: weights, a reference, classes, or enough images.
            NonFiniteError: a feature or a value of the score is NaN or infinite.
        """
        scorer = self.scorer(protocol)
        scorer.check(images.num_classes)
        values, details = scorer.measure(images, seed)
        for name, value in values.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} is {value}: the images or the network's weights may be damaged.")
        details = {"seed": seed, **images.describe(), **details}
        if protocol.embedding in ("random", "inception"):
            details["embedding"] = self.references.embedding(protocol).identity
        reference = self.references.images(protocol)
        if reference:
            details["reference"] = reference.describe()
        return Score(protocol, values, details)

    def check(self, protocol: Protocol, num_classes: int) -> None:
        """Checks that everything is there that a protocol needs.

        Args:
            protocol: says what will be measured.
            num_classes: classes of the images that will be scored; 0 if they have no labels.

        Raises:
            InvalidInputError: something is missing: weights, a reference, classes, or enough images.
        """
        self.scorer(protocol).check(num_classes)

    def value_names(self, protocol: Protocol) -> tuple[str, ...]:
        """Returns the names of a score's values before it is measured; the first is what `Score.value` returns.

        Args:
            protocol: one that `check` accepts.
        """
        return self.scorer(protocol).value_names

    def scorer(self, protocol: Protocol) -> Scorer:
        """Returns what measures a protocol."""
        return _SCORERS[protocol.kind](protocol, self.references)

    @functools.cached_property
    def references(self) -> ReferenceStatistics:
        """What is known of the real images."""
        return ReferenceStatistics(self.train, self.held_out, self.inception, self.cache, self.progress)
