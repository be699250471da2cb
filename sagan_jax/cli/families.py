"""The families of networks: which modules a config describes, and where attention can sit in them."""

from typing import Any

from sagan_jax.config import Networks
from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import Discriminator, Generator
from sagan_jax.models import biggan, dcgan, sagan

_MODELS = {"sagan": sagan, "dcgan": dcgan, "biggan": biggan}
# What a config says of one family alone; in another it would do nothing in silence.
_FOREIGN = {
    "sagan": ("shared_size", "hierarchical"),
    "dcgan": ("shared_size", "hierarchical", "final_norm_decay", "discriminator_shortcut"),
    "biggan": ("final_norm_decay", "conditional_gain"),
}


def build_networks(networks: Networks) -> tuple[Generator, Discriminator]:
    """Returns the two modules that a config describes."""
    shared: dict[str, Any] = {
        "resolution": networks.resolution,
        "num_classes": networks.num_classes,
        "base_channels": networks.base_channels,
        "attention": networks.attention,
        "norm_epsilon": networks.norm_epsilon,
        "norm_decay": networks.norm_decay,
        "initializer": networks.initializer,
    }
    drawing = shared | {
        "image_channels": networks.image_channels,
        "attention_resolutions": networks.generator_attention_resolutions,
    }
    judging = shared | {
        "attention_resolutions": networks.discriminator_attention_resolutions,
        "norm": networks.discriminator_norm,
    }
    gain, shortcut = networks.conditional_gain, networks.discriminator_shortcut
    if networks.family == "dcgan":
        return dcgan.Generator(**drawing, conditional_gain=gain), dcgan.Discriminator(**judging)
    if networks.family == "biggan":
        return (
            biggan.Generator(**drawing, shared_size=networks.shared_size, hierarchical=networks.hierarchical),
            biggan.Discriminator(**judging, shortcut=shortcut),
        )
    return (
        sagan.Generator(**drawing, conditional_gain=gain, final_norm_decay=networks.final_norm_decay),
        sagan.Discriminator(**judging, shortcut=shortcut),
    )


def attention_places(networks: Networks) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the feature-map sizes at which attention can sit in G and in D, each with its channels."""
    family = _MODELS[networks.family]
    of_sizes = dcgan if networks.family == "dcgan" else sagan
    resolution, base = networks.resolution, networks.base_channels
    drawing = of_sizes.generator_resolutions(resolution), family.GENERATOR_WIDTHS[resolution][1:]
    judging = of_sizes.discriminator_resolutions(resolution), family.DISCRIMINATOR_WIDTHS[resolution]
    # The first block of a size is the one that counts, so it is written last.
    return (
        {size: base * width for size, width in zip(*drawing, strict=True)},
        {size: base * width for size, width in list(zip(*judging, strict=False))[::-1]},
    )


def check_family(networks: Networks) -> None:
    """Raises InvalidInputError for what the family of a config does not have."""
    family = _MODELS[networks.family]
    sizes = sorted(family.GENERATOR_WIDTHS)
    if networks.resolution not in sizes:
        raise InvalidInputError(
            f"--resolution of a {networks.family} needs to be one of {', '.join(map(str, sizes))}; "
            f"got {networks.resolution}."
        )
    for name in _FOREIGN[networks.family]:
        if getattr(networks, name) != getattr(Networks(), name):
            raise InvalidInputError(
                f"--{name.replace('_', '-')} does nothing in a {networks.family}: leave it, or give another --family."
            )
    parts = len(family.GENERATOR_WIDTHS[networks.resolution])
    if networks.family == "biggan" and networks.hierarchical and networks.latent_size % parts:
        raise InvalidInputError(
            f"--latent-size needs a multiple of {parts}, a part for the first layer and for each block; "
            f"got {networks.latent_size}."
        )
    for flag, wanted, places in zip(
        ("generator", "discriminator"),
        (networks.generator_attention_resolutions, networks.discriminator_attention_resolutions),
        attention_places(networks),
        strict=True,
    ):
        for size in wanted:
            if size not in places:
                raise InvalidInputError(
                    f"--{flag}-attention-resolutions: no block of the {networks.resolution}-pixel network ends at "
                    f"{size}; it can be any of {', '.join(map(str, sorted(places)))}."
                )
