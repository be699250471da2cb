"""The network settings in a StudioGAN configuration, with the defaults of its code.

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/config.py.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.source_config import Settings, refuse_feature

NORM_EPSILON = 1e-4
SPECTRAL_EPSILON = 1e-6

_ABSENT = "N/A"
_BACKBONES = ("resnet", "deep_conv")
_KNOWN = {
    *("backbone", "g_cond_mtd", "d_cond_mtd", "aux_cls_type", "apply_g_sn", "apply_d_sn", "g_act_fn", "d_act_fn"),
    *("apply_attn", "attn_g_loc", "attn_d_loc", "z_prior", "z_dim", "g_conv_dim", "d_conv_dim", "info_type"),
    # These have no effect after training.
    *("apply_g_ema", "g_ema_decay", "g_ema_start", "g_init", "d_init", "normalize_d_embed"),
    # These have no effect in the supported networks.
    *("d_embed_dim", "w_dim", "g_shared_dim", "g_depth", "d_depth", "g_info_injection"),
    *("info_num_discrete_c", "info_num_conti_c", "info_dim_discrete_c"),
}
_HEADS = {
    "AC": "an auxiliary classifier",
    "MH": "a multi-hinge head",
    "MD": "a multi-class head, one output for each class",
    "2C": "a contrastive head",
    "D2DCE": "a contrastive head",
    "SPD": "a style projection",
}


@dataclasses.dataclass(frozen=True)
class StudioGanConfig:
    """The settings that determine the networks.

    Attributes:
        backbone: `resnet` (SAGAN) or `deep_conv` (DCGAN).
        image_size: the image size in pixels.
        num_classes: the number of classes of the data.
        image_channels: 3 for RGB.
        conditional_generator: whether G's norms are conditional.
        conditional_discriminator: whether D projects the class.
        generator_spectral_norm: whether G is spectrally normalised.
        discriminator_spectral_norm: the same for D.
        generator_attention: the numbers, from 1, of the blocks of G that are followed by attention.
        discriminator_attention: the same for D.
        latent_size: Z.
        generator_channels: the base width of G; ignored for a DCGAN, whose width is fixed.
        discriminator_channels: the same for D.
        norm_epsilon: the epsilon of G's batch norms.
        discriminator_norm_epsilon: the epsilon of D's batch norms.
        spectral_epsilon: the epsilon of the spectral norm.
    """

    backbone: str
    image_size: int
    num_classes: int
    image_channels: int
    conditional_generator: bool
    conditional_discriminator: bool
    generator_spectral_norm: bool
    discriminator_spectral_norm: bool
    generator_attention: tuple[int, ...]
    discriminator_attention: tuple[int, ...]
    latent_size: int
    generator_channels: int
    discriminator_channels: int
    norm_epsilon: float
    discriminator_norm_epsilon: float
    spectral_epsilon: float


def parse_config(document: Mapping[str, Any]) -> StudioGanConfig:
    """Returns the settings of a configuration file.

    Args:
        document: the result of `read_source_config`.

    Raises:
        InvalidInputError: when it is not a configuration of StudioGAN, a value has a wrong type, or a setting requires
            an unsupported feature. The message names it.
    """
    if "MODEL" not in document:
        raise InvalidInputError(
            f"--source-config needs a configuration of StudioGAN 0.4 or later, with a section MODEL; got the sections "
            f"{sorted(map(str, document))[:5]}. Earlier versions have another format: leave it out for their weights."
        )
    model, data = Settings(document["MODEL"], "MODEL"), Settings(document.get("DATA", {}), "DATA")
    backbone = model.word("backbone", "resnet")
    if backbone not in _BACKBONES:
        is_biggan = backbone.startswith("big_resnet") or backbone == "deep_big_resnet"
        deep = "-deep" if "deep" in backbone else ""
        refuse_feature(f"the backbone {backbone}" + (f" (StudioGAN's BigGAN{deep})" if is_biggan else ""))
    _refuse_features(model)
    epsilons = _epsilons(model)
    attention = model.flag("apply_attn", False)
    return StudioGanConfig(
        backbone=backbone,
        image_size=data.integer("img_size", 32),
        num_classes=data.integer("num_classes", 10),
        image_channels=data.integer("img_channels", 3),
        conditional_generator=model.word("g_cond_mtd", "W/O") == "cBN",
        conditional_discriminator=model.word("d_cond_mtd", "W/O") == "PD",
        generator_spectral_norm=model.flag("apply_g_sn", False),
        discriminator_spectral_norm=model.flag("apply_d_sn", False),
        generator_attention=model.integers("attn_g_loc") if attention else (),
        discriminator_attention=model.integers("attn_d_loc") if attention else (),
        latent_size=model.integer("z_dim", 128),
        generator_channels=model.integer("g_conv_dim", 64),
        discriminator_channels=model.integer("d_conv_dim", 64),
        norm_epsilon=epsilons["g_bn"],
        discriminator_norm_epsilon=epsilons["d_bn"],
        spectral_epsilon=_spectral_epsilon(model, epsilons),
    )


def _refuse_features(model: Settings) -> None:
    """Raises InvalidInputError for the first unsupported feature."""
    for network in ("g", "d"):
        activation = model.word(f"{network}_act_fn", "ReLU")
        if activation != "ReLU":
            refuse_feature(f"the activation {activation} ({network}_act_fn); it needs ReLU")
    conditioning = model.word("g_cond_mtd", "W/O")
    if conditioning not in ("W/O", "cBN"):
        refuse_feature(f"g_cond_mtd {conditioning}; it needs W/O or cBN")
    head = model.word("d_cond_mtd", "W/O")
    if head not in ("W/O", "PD"):
        refuse_feature(f"{_HEADS.get(head, 'the head')} (d_cond_mtd {head}); it needs W/O or PD")
    for name, meaning, none in (
        ("aux_cls_type", "an auxiliary classifier", "W/O"),
        ("info_type", "InfoGAN's codes", _ABSENT),
        ("z_prior", "latents of another distribution", "gaussian"),
    ):
        value = model.word(name, none)
        if value not in (none, "W/O", _ABSENT):
            refuse_feature(f"{meaning} ({name} {value})")


def _spectral_epsilon(model: Settings, epsilons: Mapping[str, float]) -> float:
    """Returns the epsilon of the spectral norm. Both networks must have the same one, if both are normalised."""
    used = [epsilons[f"{network}_sn"] for network in "gd" if model.flag(f"apply_{network}_sn", False)]
    if len(set(used)) > 1:
        refuse_feature(f"different epsilons of the spectral norm in G and D ({used[0]:g} and {used[1]:g})")
    return used[0] if used else SPECTRAL_EPSILON


def _epsilons(model: Settings) -> dict[str, float]:
    """Returns the epsilons of both networks. StudioGAN's configuration has none, but variants of it do.

    Raises:
        InvalidInputError: for an unknown setting, since it may change the networks.
    """
    found = {"g_bn": NORM_EPSILON, "d_bn": NORM_EPSILON, "g_sn": SPECTRAL_EPSILON, "d_sn": SPECTRAL_EPSILON}
    for name in model.values:
        if name in _KNOWN:
            continue
        epsilon = re.fullmatch(r"(?i)(?:([gd])_)?(bn|norm|batch_?norm|sn|spectral_?norm)_?eps(?:ilon)?", str(name))
        if not epsilon:
            raise InvalidInputError(f"The source's configuration has MODEL.{name}, which StudioGAN does not have.")
        kind = "sn" if epsilon[2].lower().startswith("s") else "bn"
        for network in epsilon[1].lower() if epsilon[1] else "gd":
            found[f"{network}_{kind}"] = model.positive(name, 0.0)
    return found
