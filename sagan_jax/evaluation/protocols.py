"""Named protocols: the name of a score specifies how it is measured.

    fid50k_train   fid10k_validation   is50k   kid50k_train   prdc10k_train   intra_fid_train
    fd5k_train_lite0   is5k_lite0   prdc5k_test_random   classifier_accuracy   rule1k   fid50k_train_clean_standing_raw

A name has the form `<score><images>_<reference>[_random | _lite0 | _dinov2][_clean][_subset<images>][_batch |
_standing][_raw]`. Its parts are the score, the number of images, the real reference images, and the features. Then come
the resizing of clean-fid, the subset size of a kernel distance, the batch-norm statistics, and the weights. Omitted
parts have their defaults, which the result file lists.
"""

import dataclasses
import difflib
import re
from typing import Any, Literal

from sagan_jax.errors import InvalidInputError

Kind = Literal["fid", "fd", "is", "kid", "kd", "prdc", "intra_fid", "intra_fd", "classifier_accuracy", "rule"]
Reference = Literal["train", "validation", "test"]
Statistics = Literal["stored", "batch", "standing"]
Features = Literal["inception", "random", "lite0", "dinov2", "classifier"]

KNOWN_PROTOCOLS = (
    "fid50k_train",
    "fid50k_validation",
    "is50k",
    "kid50k_train",
    "intra_fid_train",
    "prdc10k_train",
    "fd5k_train_lite0",
    "fd5k_test_lite0",
    "is5k_lite0",
    "kd5k_train_lite0",
    "prdc5k_train_lite0",
    "intra_fd_train_lite0",
    "fd50k_train_dinov2",
    "fd5k_train_random",
    "fd5k_validation_random",
    "fd5k_test_random",
    "classifier_accuracy",
    "classifier_accuracy_lite0",
    "rule1k",
)
"""Common names. Other numbers of images, references and suffixes are valid too."""

_NAME = re.compile(
    r"(?P<kind>intra_fid|intra_fd|fid|fd|is|kid|kd|prdc|classifier_accuracy|rule)(?P<images>[1-9]\d*k?)?"
    r"(?:_(?P<reference>train|validation|test))?(?:_(?P<features>random|lite0|dinov2))?"
    r"(?P<clean>_clean)?(?:_subset(?P<subset>[1-9]\d*))?(?:_(?P<statistics>batch|standing))?(?P<raw>_raw)?"
)
# The established names are reserved for the FID network. The same distances in other features have other names.
_OF_OTHER_FEATURES = {"fd", "kd", "intra_fd"}
_OF_INCEPTION = {"fid", "kid", "intra_fid"}
_RESIZES = {
    "inception": "TensorFlow 1 bilinear to 299",
    "random": "antialiased bilinear to 64",
    "lite0": "Pillow bicubic with antialiasing to 224, no crop",
    "dinov2": "Pillow bicubic with antialiasing to 224, no crop",
    "classifier": "antialiased bilinear to 32",
    None: "none",
}
_CLEAN_RESIZE = "Pillow bicubic with antialiasing to 299, in floats (clean-fid)"
_CLASSIFIER_IMAGES = 1000


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The settings of a score, as specified by its name.

    Attributes:
        name: the full name.
        kind: the score.
        images: the number of images to score; 0 means as many of each class as the reference has (intra).
        reference: the real images to compare with; None for a score without a reference.
        embedding: the network that computes the features; None for a score of pixels.
        statistics: the moments for batch norm: the `stored` running moments, those of each `batch` of 100, or
            `standing`: the mean over 100 new batches of 100.
        raw: whether to use the trained weights, not their moving average.
        subset: the subset size of a kernel distance; 0 means 1,000, or all images if there are fewer.
        clean: whether images for the FID network are resized as by clean-fid, instead of as by TensorFlow 1.
    """

    name: str
    kind: Kind
    images: int
    reference: Reference | None
    embedding: Features | None
    statistics: Statistics = "stored"
    raw: bool = False
    subset: int = 0
    clean: bool = False

    @property
    def held_out(self) -> bool:
        """Whether the reference is held out from training. `validation` and `test` both mean the held-out images."""
        return self.reference in ("validation", "test")

    @property
    def shares_features(self) -> bool:
        """Whether the distances in this network's features share one pass over the images, as the network is costly.

        The Inception Score and the accuracy of a classifier make their own passes. Statistics of the FID network and of
        random features are cached separately, as in earlier versions.
        """
        return self.embedding in ("lite0", "dinov2")

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better. For distances, lower is better."""
        return self.kind in ("is", "prdc", "classifier_accuracy", "rule")

    def settings(self) -> dict[str, Any]:
        """Returns all settings that the name specifies, for a result file."""
        named = dataclasses.asdict(self)
        del named["clean"]  # implied by the resize
        if not self.subset:
            del named["subset"]
        drawn = "in turn" if self.kind == "classifier_accuracy" else "uniform at random"
        return {
            **named,
            "labels": "by class" if self.kind.startswith("intra") else drawn,
            "pixels": "rounded to uint8",
            "resize": _CLEAN_RESIZE if self.clean else _RESIZES[self.embedding],
        }


def with_subset(protocol: Protocol, size: int) -> Protocol:
    """Returns the protocol of a kernel distance with another subset size, which is added to its name.

    Examples:
        >>> with_subset(parse_protocol("kid300_train_raw"), 300).name
        'kid300_train_subset300_raw'
    """
    name = re.sub(r"(?=(?:_batch|_standing)?(?:_raw)?$)", f"_subset{size}", protocol.name, count=1)
    return dataclasses.replace(protocol, name=name, subset=size)


def count_words(count: int) -> str:
    """Returns a number of images as it is written in a name.

    Examples:
        >>> count_words(50_000), count_words(1_234)
        ('50k', '1234')
    """
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def parse_protocol(name: str) -> Protocol:
    """Returns the protocol of a name.

    Raises:
        InvalidInputError: the name is not a valid protocol, or its parts contradict each other.

    Examples:
        >>> parse_protocol("fid10k_validation_standing").images
        10000
    """
    found = _NAME.fullmatch(name)
    if not found:
        near = difflib.get_close_matches(name, KNOWN_PROTOCOLS, 1)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(f"A protocol is named like {', '.join(KNOWN_PROTOCOLS)}; got {name!r}.{hint}")
    kind: Any = found["kind"]
    reference: Any = found["reference"]
    statistics: Any = found["statistics"]
    features: Any = found["features"]
    fault = _features_fault(name, kind, features, bool(found["clean"])) or _count_or_reference_fault(
        kind, bool(found["images"]), bool(reference)
    )
    subset = int(found["subset"] or 0)
    if subset and kind not in ("kid", "kd"):
        fault = fault or "takes no subsets: kid and kd do."
    if fault:
        raise InvalidInputError(f"The protocol {name!r} {fault}")
    own_embedding = {"rule": None, "classifier_accuracy": features or "classifier"}
    embedding: Any = own_embedding.get(kind, features or "inception")
    images = found["images"] or (str(_CLASSIFIER_IMAGES) if kind == "classifier_accuracy" else "0")
    count = int(images.removesuffix("k")) * (1000 if images.endswith("k") else 1)
    raw, clean = (bool(found[part]) for part in ("raw", "clean"))
    return Protocol(name, kind, count, reference, embedding, statistics or "stored", raw, subset, clean)


def _features_fault(name: str, kind: Kind, features: str | None, clean: bool) -> str:
    """Returns why a score cannot be measured with these features and this resizing; "" if it can."""
    if kind in _OF_OTHER_FEATURES and not features:
        return f"needs the suffix `_lite0`, `_dinov2` or `_random`: {kind!r} is the distance of such features."
    if features and kind in _OF_INCEPTION:
        other = kind.replace("id", "d")
        right = name.replace(kind, other, 1)
        return (
            f"is impossible: {kind!r} is the name of a score in the FID network's features; those of {features!r} give "
            f"{other!r}. Perhaps you meant {right!r}."
        )
    if kind == "is" and features in ("random", "dinov2"):
        return f"is impossible: it needs classes, and {features!r} features have no such score; `_lite0` has."
    if features not in (None, "lite0") and kind == "classifier_accuracy":
        return "is impossible: a classifier uses its own features, or those of `_lite0`."
    if features and kind == "rule":
        return "is impossible: a rule uses pixels, not features."
    if clean and (features or kind in ("classifier_accuracy", "rule")):
        return "is impossible: `_clean` is another resize for the FID network only."
    return ""


def _count_or_reference_fault(kind: Kind, has_images: bool, has_reference: bool) -> str:
    """Returns which part of a name is missing or not allowed; "" if it is valid."""
    fixed_images = kind in ("intra_fid", "intra_fd", "classifier_accuracy")
    needs_reference = kind not in ("is", "classifier_accuracy", "rule")
    if has_images and fixed_images:
        return "takes no number of images: the number is fixed."
    if not has_images and not fixed_images:
        return "needs a number of images, such as 50k."
    if needs_reference and not has_reference:
        return "needs a reference: `_train`, `_validation` or `_test`."
    if has_reference and not needs_reference:
        return "takes no reference."
    return ""
