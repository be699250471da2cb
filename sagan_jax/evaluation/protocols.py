"""Named protocols: a name says what a score is, of how many images, against which, in which features.

    fid50k_train   fid10k_validation   is50k   kid50k_train   prdc10k_train   intra_fid_train
    fd5k_train_random   prdc5k_test_random   classifier_accuracy   rule1k   fid50k_train_standing_raw

A name is `<score><images>_<reference>[_random][_batch | _standing][_raw]`; what it does not say is the default, which
the result file spells out.
"""

import dataclasses
import difflib
import re
from typing import Any, Literal

from sagan_jax.errors import InvalidInputError

Kind = Literal["fid", "fd", "is", "kid", "kd", "prdc", "intra_fid", "intra_fd", "classifier_accuracy", "rule"]
Reference = Literal["train", "validation", "test"]
Statistics = Literal["stored", "batch", "standing"]

KNOWN = (
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
"""The usual ones; any other number of images, reference and ending goes as well."""

_NAME = re.compile(
    r"(?P<kind>intra_fid|intra_fd|fid|fd|is|kid|kd|prdc|classifier_accuracy|rule)(?P<images>[1-9]\d*k?)?"
    r"(?:_(?P<reference>train|validation|test))?(?P<random>_random)?(?:_(?P<statistics>batch|standing))?(?P<raw>_raw)?"
)
# Distances of the field's names are for the field's network; the same from random features are called otherwise.
_OF_RANDOM_FEATURES = {"fd", "kd", "intra_fd"}
_OF_INCEPTION = {"fid", "kid", "is", "intra_fid"}
_CLASSIFIER_IMAGES = 1000


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a score's name says.

    Attributes:
        name: the whole of it.
        kind: the score.
        images: how many are scored; 0: for each class as many as the reference has (intra).
        reference: which real images they are compared with; None for a score that needs none.
        embedding: the features; None for a score that looks at pixels.
        statistics: what batch norm normalises with: `stored` running moments, those of each `batch` of 100, or
            `standing`: the mean over 100 fresh batches of 100.
        raw: the weights as trained, where the run keeps a moving average too.
    """

    name: str
    kind: Kind
    images: int
    reference: Reference | None
    embedding: Literal["inception", "random", "classifier"] | None
    statistics: Statistics = "stored"
    raw: bool = False

    @property
    def held_out(self) -> bool:
        """Whether the reference is of images that were not trained on; `validation` and `test` name the same ones."""
        return self.reference in ("validation", "test")

    @property
    def only_with_itself(self) -> bool:
        """Whether the score compares with nothing published, since its features are ours."""
        return self.embedding in ("random", "classifier")

    @property
    def higher_is_better(self) -> bool:
        """Whether images score higher the better they are; distances are the other way round."""
        return self.kind in ("is", "prdc", "classifier_accuracy", "rule")

    def settings(self) -> dict[str, Any]:
        """Returns everything that the name fixes, for a result file."""
        drawn = "in turn" if self.kind == "classifier_accuracy" else "uniform at random"
        return {
            **dataclasses.asdict(self),
            "labels": "by class" if self.kind.startswith("intra") else drawn,
            "pixels": "rounded to uint8",
            "resize": {
                "inception": "TensorFlow 1 bilinear to 299",
                "random": "antialiased bilinear to 64",
                "classifier": "antialiased bilinear to 32",
                None: "none",
            }[self.embedding],
        }


def parse_protocol(name: str) -> Protocol:
    """Returns what a name means.

    Raises:
        InvalidInputError: it means nothing, or promises what it cannot hold.

    >>> parse_protocol("fid10k_validation_standing").images
    10000
    """
    found = _NAME.fullmatch(name)
    if not found:
        near = difflib.get_close_matches(name, KNOWN, 1)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(f"A protocol is named like {', '.join(KNOWN)}; got {name!r}.{hint}")
    random = bool(found["random"])
    kind: Any = found["kind"]
    reference: Any = found["reference"]
    statistics: Any = found["statistics"]
    intra, classifier, rule = kind.startswith("intra"), kind == "classifier_accuracy", kind == "rule"

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise InvalidInputError(f"The protocol {name!r} {what}")

    require(
        random or kind not in _OF_RANDOM_FEATURES,
        f"needs `_random` behind it: {kind!r} is the distance of such features.",
    )
    require(
        not random or kind not in _OF_INCEPTION,
        f"cannot be: {kind!r} is the name of a score in the FID network's features; random ones give "
        f"{'no such score' if kind == 'is' else repr(kind.replace('id', 'd'))}.",
    )
    require(not (random and classifier), "cannot be: a classifier has features of its own.")
    require(not (random and rule), "cannot be: a rule looks at pixels, not at features.")
    require(
        bool(found["images"]) != (intra or classifier),
        "takes no number of images: it has its own."
        if intra or classifier
        else "needs a number of images, such as 50k.",
    )
    needs_reference = kind not in ("is", "classifier_accuracy", "rule")
    require(
        bool(reference) == needs_reference,
        "needs a reference: `_train`, `_validation` or `_test`." if needs_reference else "takes no reference.",
    )
    images = found["images"] or (str(_CLASSIFIER_IMAGES) if classifier else "0")
    return Protocol(
        name,
        kind,
        int(images.removesuffix("k")) * (1000 if images.endswith("k") else 1),
        reference,
        None if rule else "classifier" if classifier else "random" if random else "inception",
        statistics or "stored",
        bool(found["raw"]),
    )
