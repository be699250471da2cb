"""The configuration of BigGAN-PyTorch: the flags of its train.py, as listed in its metalog.txt.

Source: ajbrock/BigGAN-PyTorch:utils.py, `prepare_parser` and `write_metadata`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.source_config import Settings, refuse_feature, shortened

NORM_EPSILON = 1e-5
SPECTRAL_EPSILON = 1e-8

# Its ReLU gives the same results in place and not in place, since no later layer reads the overwritten input.
_RELU = ("relu", "inplace_relu", "ir")
_SIZES = {"I32": 32, "I64": 64, "I128": 128, "I256": 256, "C10": 32, "C100": 32}
_CLASSES = {"I32": 1000, "I64": 1000, "I128": 1000, "I256": 1000, "C10": 10, "C100": 100}


@dataclasses.dataclass(frozen=True)
class BigGanConfig:
    """The flags that determine the networks; None if the file does not have the flag.

    Attributes:
        image_size: the image size in pixels.
        num_classes: the number of classes of the data.
        generator_channels: the base width of G.
        discriminator_channels: the base width of D.
        shared: whether G has a shared class embedding.
        hierarchical: whether each block gets its own part of the latent.
        generator_attention: the feature-map sizes with attention in G.
        discriminator_attention: the feature-map sizes with attention in D.
        norm_epsilon: the epsilon of the conditional norms. The last norm always has 1e-5.
        spectral_epsilon: the epsilon of the spectral norm.
    """

    image_size: int | None
    num_classes: int | None
    generator_channels: int | None
    discriminator_channels: int | None
    shared: bool | None
    hierarchical: bool | None
    generator_attention: tuple[int, ...] | None
    discriminator_attention: tuple[int, ...] | None
    norm_epsilon: float
    spectral_epsilon: float


def parse_config(document: Mapping[str, Any]) -> BigGanConfig:
    """Returns the flags of a configuration file.

    Args:
        document: the result of `read_source_config`: a dictionary of flags, or one with such a dictionary under
            `config`.

    Raises:
        InvalidInputError: when there are no flags of BigGAN-PyTorch, a value has a wrong type, or a flag requires an
            unsupported feature. The message names it.
    """
    flags = Settings(document.get("config", document))
    if not any(name in flags for name in ("BN_eps", "SN_eps", "G_ch", "D_ch", "G_attn", "D_attn", "G_nl", "D_nl")):
        raise InvalidInputError(
            f"--source-config needs flags of BigGAN-PyTorch such as BN_eps and G_attn, as in its metalog.txt; "
            f"got {sorted(map(str, flags.values))[:5]}."
        )
    _refuse_features(flags)
    dataset = flags.word("dataset", "").removesuffix("_hdf5")
    return BigGanConfig(
        image_size=flags.integer("resolution", 0) or _SIZES.get(dataset),
        num_classes=flags.integer("n_classes", 0) or _CLASSES.get(dataset),
        generator_channels=flags.integer("G_ch", 0) if "G_ch" in flags else None,
        discriminator_channels=flags.integer("D_ch", 0) if "D_ch" in flags else None,
        shared=flags.flag("G_shared", False) if "G_shared" in flags else None,
        hierarchical=flags.flag("hier", False) if "hier" in flags else None,
        generator_attention=_sizes(flags, "G_attn"),
        discriminator_attention=_sizes(flags, "D_attn"),
        norm_epsilon=flags.positive("BN_eps", NORM_EPSILON),
        spectral_epsilon=flags.positive("SN_eps", SPECTRAL_EPSILON),
    )


def _sizes(flags: Settings, name: str) -> tuple[int, ...] | None:
    """Returns the feature-map sizes in a flag such as '32_64'; '0' means none. YAML reads an unquoted 32_64 as 3264."""
    if name not in flags:
        return None
    sizes = str(flags.values[name])[:60].split("_")
    if not all(size.isdecimal() and int(size) in (0, 4, 8, 16, 32, 64, 128, 256, 512) for size in sizes):
        raise InvalidInputError(
            f"The source's configuration needs sizes in quotes, such as '32_64', for {name}; "
            f"got {shortened(flags.values[name])}."
        )
    return tuple(sorted({int(size) for size in sizes} - {0}))


def _refuse_features(flags: Settings) -> None:
    """Raises InvalidInputError for the first unsupported feature."""
    if "deep" in flags.word("model", "BigGAN").lower():
        refuse_feature("BigGAN-deep's blocks (model BigGANdeep)")
    for network in "GD":
        activation = flags.word(f"{network}_nl", "relu")
        if activation not in _RELU:
            refuse_feature(f"the activation {activation} ({network}_nl); it needs relu")
        form = flags.word(f"{network}_param", "SN")
        if form != "SN":
            refuse_feature(f"the parameters {form} ({network}_param); it needs SN, spectral norm")
        values = flags.integer(f"num_{network}_SVs", 1)
        if values > 1:
            refuse_feature(f"several singular values (num_{network}_SVs {values}); it needs one")
    style = flags.word("norm_style", "bn")
    if style != "bn":
        refuse_feature(f"another norm than batch norm, or none (norm_style {style}); it needs bn")
    if not flags.flag("D_wide", True):
        refuse_feature("a thin D (D_wide False)")
