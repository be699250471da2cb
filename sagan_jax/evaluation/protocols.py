"""Named protocols: the name of a score says how it is measured.

    fid50k_train   fid10k_validation   is50k   kid50k_train   prdc10k_train   intra_fid_train
    fd5k_train_random   prdc5k_test_random   classifier_accuracy   rule1k   fid50k_train_standing_raw

A name is `<score><images>_<reference>[_random][_subset<images>][_batch | _standing][_raw]`: the score, the number of
images, the real images that they are compared with, the features, the size of the subsets of a kernel distance, the
statistics of batch norm, and the weights. What a name leaves out is the default; the result file spells it out.
"""

import dataclasses
import difflib
import re
from typing import Any, Literal

from sagan_jax.errors import InvalidInputError

Kind = Literal["fid", "fd", "is", "kid", "kd", "prdc", "intra_fid", "intra_fd", "classifier_accuracy", "rule"]
Reference = Literal["train", "validation", "test"]
Statistics = Literal["stored", "batch", "standing"]

KNOWN_PROTOCOLS = (
    "fid50k_train",
    "fid50k_validation",
    "is50k",
    "kid50k_train",
    "intra_fid_train",
    "prdc10k_train",
    "fd5k_train_random",
    "fd5k_validation_random",
    "fd5k_test_random",
    "classifier_accuracy",
    "rule1k",
)
"""The usual names; other numbers of images, references and endings are valid too."""

_NAME = re.compile(
    r"(?P<kind>intra_fid|intra_fd|fid|fd|is|kid|kd|prdc|classifier_accuracy|rule)(?P<images>[1-9]\d*k?)?"
    r"(?:_(?P<reference>train|validation|test))?(?P<random>_random)?"
    r"(?:_subset(?P<subset>[1-9]\d*))?(?:_(?P<statistics>batch|standing))?(?P<raw>_raw)?"
)
# The established names belong to the FID network; the same distances in random features have other names.
_OF_RANDOM_FEATURES = {"fd", "kd", "intra_fd"}
_OF_INCEPTION = {"fid", "kid", "is", "intra_fid"}
_CLASSIFIER_IMAGES = 1000


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What the name of a score says.

    Attributes:
        name: the whole name.
        kind: the score.
        images: how many images are scored; 0 means as many of each class as the reference has (intra).
        reference: the real images that they are compared with; None for a score without a reference.
        embedding: the network that gives the features; None for a score of pixels.
        statistics: what batch norm uses: the `stored` running moments, those of each `batch` of 100, or `standing`: the
            mean over 100 new batches of 100.
        raw: whether the weights are as trained, not their moving average.
        subset: images of each subset of a kernel distance; 0 means 1,000, and as many as there are if there are fewer.
    """

    name: str
    kind: Kind
    images: int
    reference: Reference | None
    embedding: Literal["inception", "random", "classifier"] | None
    statistics: Statistics = "stored"
    raw: bool = False
    subset: int = 0

    @property
    def held_out(self) -> bool:
        """Whether the reference was not trained on; `validation` and `test` both name the held-out images."""
        return self.reference in ("validation", "test")

    @property
    def only_comparable_with_itself(self) -> bool:
        """Whether no published score is comparable, because the features are our own."""
        return self.embedding in ("random", "classifier")

    @property
    def higher_is_better(self) -> bool:
        """Whether better images score higher; better images have lower distances."""
        return self.kind in ("is", "prdc", "classifier_accuracy", "rule")

    def settings(self) -> dict[str, Any]:
        """Returns everything that the name decides, for a result file."""
        named = dataclasses.asdict(self)
        if not self.subset:
            del named["subset"]
        drawn = "in turn" if self.kind == "classifier_accuracy" else "uniform at random"
        return {
            **named,
            "labels": "by class" if self.kind.startswith("intra") else drawn,
            "pixels": "rounded to uint8",
            "resize": {
                "inception": "TensorFlow 1 bilinear to 299",
                "random": "antialiased bilinear to 64",
                "classifier": "antialiased bilinear to 32",
                None: "none",
            }[self.embedding],
        }


def with_subset(protocol: Protocol, size: int) -> Protocol:
    """Returns the protocol of a kernel distance with subsets of another size, which its name then states.

    Examples:
        >>> with_subset(parse_protocol("kid300_train_raw"), 300).name
        'kid300_train_subset300_raw'
    """
    name = re.sub(r"(?=(?:_batch|_standing)?(?:_raw)?$)", f"_subset{size}", protocol.name, count=1)
    return dataclasses.replace(protocol, name=name, subset=size)


def count_words(count: int) -> str:
    """Returns a number of images as a name states it.

    Examples:
        >>> count_words(50_000), count_words(1_234)
        ('50k', '1234')
    """
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def parse_protocol(name: str) -> Protocol:
    """Returns the protocol of a name.

    Raises:
        InvalidInputError: the name is not that of a protocol, or its parts contradict each other.

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
    fault = _embedding_fault(kind, bool(found["random"])) or _count_or_reference_fault(
        kind, bool(found["images"]), bool(reference)
    )
    subset = int(found["subset"] or 0)
    if subset and kind not in ("kid", "kd"):
        fault = fault or "takes no subsets: kid and kd do."
    if fault:
        raise InvalidInputError(f"The protocol {name!r} {fault}")
    own_embedding = {"rule": None, "classifier_accuracy": "classifier"}
    embedding: Any = own_embedding.get(kind, "random" if found["random"] else "inception")
    images = found["images"] or (str(_CLASSIFIER_IMAGES) if kind == "classifier_accuracy" else "0")
    count = int(images.removesuffix("k")) * (1000 if images.endswith("k") else 1)
    return Protocol(name, kind, count, reference, embedding, statistics or "stored", bool(found["raw"]), subset)


def _embedding_fault(kind: Kind, random: bool) -> str:
    """Returns why a score cannot be measured in such features; "" if it can."""
    if kind in _OF_RANDOM_FEATURES and not random:
        return f"needs `_random` behind it: {kind!r} is the distance of such features."
    if random and kind in _OF_INCEPTION:
        other = "no such score" if kind == "is" else repr(kind.replace("id", "d"))
        return (
            f"is impossible: {kind!r} is the name of a score in the FID network's features; random ones give {other}."
        )
    if random and kind == "classifier_accuracy":
        return "is impossible: a classifier has features of its own."
    if random and kind == "rule":
        return "is impossible: a rule looks at pixels, not at features."
    return ""


def _count_or_reference_fault(kind: Kind, has_images: bool, has_reference: bool) -> str:
    """Returns what a name lacks or has too much; "" if it is complete."""
    fixed_images = kind in ("intra_fid", "intra_fd", "classifier_accuracy")
    needs_reference = kind not in ("is", "classifier_accuracy", "rule")
    if has_images and fixed_images:
        return "takes no number of images: it has its own."
    if not has_images and not fixed_images:
        return "needs a number of images, such as 50k."
    if needs_reference and not has_reference:
        return "needs a reference: `_train`, `_validation` or `_test`."
    if has_reference and not needs_reference:
        return "takes no reference."
    return ""
