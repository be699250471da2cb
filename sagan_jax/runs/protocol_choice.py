"""Chooses the protocols to measure: the named ones, or defaults for the images. First reports which are impossible."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import lite0
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.evaluation.protocols import Protocol, count_words
from sagan_jax.evaluation.statistics_files import FeatureStatistics

_FID_FEATURES = 2048
_OF_RANDOM = "fd", 5_000, "_random"
_OF_STATISTICS = {
    "inception": ("fid", 50_000, ""),
    "inception_clean": ("fid", 50_000, "_clean"),
    "lite0": ("fd", 5_000, "_lite0"),
    "dinov2": ("fd", 50_000, "_dinov2"),
}
"""The default Fréchet distance for features by name: its kind, the largest number of images, and its ending."""
_RANDOM_WORDS = (
    "Without a trained network, scores use features of a fixed random network, which are less informative. A trained "
    "network comes with: pip install 'sagan-jax[lite0]'"
)


class Choice(NamedTuple):
    """The protocols that can be measured, and the names of the requested ones that cannot."""

    possible: list[Protocol]
    refused: list[str]

    def raise_refused(self) -> None:
        """Raises InvalidInputError if a requested protocol was left out."""
        if self.refused:
            raise InvalidInputError(f"{', '.join(self.refused)} could not be measured, for the reasons above.")


def print_to_stderr(line: str) -> None:
    """Prints a line to stderr, apart from the results on stdout."""
    print(line, file=sys.stderr, flush=True)


def choose_protocols(
    protocols: Sequence[Protocol],
    check: Callable[[Protocol], None],
    *,
    named: bool,
    keep_going: bool,
    notify: Callable[[str], None],
    others: bool = False,
) -> Choice:
    """Returns the protocols that can be measured. `notify` receives a reason for each protocol that is left out.

    Args:
        protocols: the wanted protocols.
        check: raises InvalidInputError for a protocol that cannot be measured; reads no images.
        named: whether the user named them. A default that cannot be measured is not an error.
        keep_going: continue with the other protocols when a named one cannot be measured.
        notify: receives a line for each protocol that is left out.
        others: whether other scores are measured as well.

    Raises:
        InvalidInputError: nothing can be measured, or a named protocol cannot and `keep_going` is False.
    """
    reasons: dict[str, str] = {}
    for protocol in protocols:
        try:
            check(protocol)
        except InvalidInputError as error:
            reason = str(error)
            reasons[protocol.name] = reason if protocol.name in reason else f"{protocol.name}: {reason}"
    possible = [protocol for protocol in protocols if protocol.name not in reasons]
    if reasons and ((named and not keep_going) or not (possible or others)):
        raise InvalidInputError(" ".join(reasons.values()))
    for reason in reasons.values():
        notify(f"left out: {reason}")
    if not named and not lite0.is_installed() and any(protocol.embedding == "random" for protocol in possible):
        notify(_RANDOM_WORDS)
    return Choice(possible, list(reasons) if named else [])


def default_protocols(source: ImageSource, inception: Embedding | None) -> tuple[str, ...]:
    """Returns the default protocols of a run: FID if its network is available, else a score without a download.

    That score is the Fréchet distance in the features of EfficientNet-Lite0, which
    `experiments/benchmarks/score_sensitivity.py` found suitable. Without that package, random features replace them.
    For images that follow a rule, the default is `rule1k`.

    Args:
        source: the training images.
        inception: the FID network, or None.
    """
    if source.rule:
        return ("rule1k",)
    if inception:
        return ("fid50k_train",)
    return (_frechet_distance(5_000),)


def default_protocols_of_images(
    scored: ImageSource, real: ImageSource | FeatureStatistics, inception: Embedding | None
) -> tuple[str, ...]:
    """Returns the default protocols of images against images: those of a run, with no more images than there are.

    Args:
        scored: the images to score.
        real: the reference: images, or statistics of their features.
        inception: the FID network, or None.
    """
    if isinstance(real, FeatureStatistics):
        return default_protocols_of_statistics(real, len(scored))
    fid = f"fid{count_words(min(50_000, len(scored)))}_train"
    if real.rule:
        return (f"rule{count_words(min(1_000, len(scored)))}",)
    if inception:
        return (fid,)
    return (_frechet_distance(min(5_000, len(scored))),)


def _frechet_distance(count: int) -> str:
    return f"fd{count_words(count)}_train_{'lite0' if lite0.is_installed() else 'random'}"


def default_protocols_of_statistics(statistics: FeatureStatistics, count: int = 50_000) -> tuple[str, ...]:
    """Returns the Fréchet distance whose features match the statistics, with at most `count` images."""
    kind, most, ending = _OF_STATISTICS.get(
        statistics.features or ("inception" if len(statistics.mean) == _FID_FEATURES else "random"), _OF_RANDOM
    )
    return (f"{kind}{count_words(min(most, count))}_train{ending}",)
