"""The families of networks: which modules a config describes and back, and where attention can sit in them."""

import dataclasses
from typing import Any

import jax

from sagan_jax.config import Networks
from sagan_jax.errors import InvalidInputError
from sagan_jax.functional.spectral import init_spectral
from sagan_jax.interop.networks import Discriminator, Generator, ReleasedNetworks
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
        "base_channels": networks.discriminator_base_channels or networks.base_channels,
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


def networks_of(released: ReleasedNetworks) -> Networks:
    """Returns the config that describes networks that others released.

    Raises:
        InvalidInputError: no config does.
    """
    generator, discriminator = released.generator, released.discriminator
    fields = [field.name for field in dataclasses.fields(Networks)]
    told: dict[str, Any] = {name: getattr(generator, name) for name in fields if hasattr(generator, name)}
    told |= {
        "family": next(name for name, models in _MODELS.items() if isinstance(generator, models.Generator)),
        "latent_size": released.latent_size,
        "generator_attention_resolutions": generator.attention_resolutions,
        "spectral_epsilon": released.spectral_rule["epsilon"],
        "spectral_evaluation": "iterated" if released.spectral_rule["iterations"] else "stored",
    }
    normalized = [_normalized(released.generator_variables)]
    if discriminator:
        normalized.append(_normalized(released.discriminator_variables))
        told |= {
            "discriminator_attention_resolutions": discriminator.attention_resolutions,
            "discriminator_norm": discriminator.norm,
            "discriminator_base_channels": discriminator.base_channels,
        }
        if hasattr(discriminator, "shortcut"):
            told["discriminator_shortcut"] = discriminator.shortcut
        if discriminator.base_channels == generator.base_channels:
            told["discriminator_base_channels"] = 0
    else:  # what goes best with such a generator
        normalized.append(told["family"] != "dcgan")
        places = attention_places(Networks(**told))[1]
        told["discriminator_attention_resolutions"] = tuple(filter(places.get, generator.attention_resolutions))
        told["discriminator_norm"] = "batch" if told["family"] == "dcgan" else "none"
    names = {(True, True): "both", (True, False): "generator", (False, True): "discriminator", (False, False): "none"}
    told["spectral_norm"] = names[normalized[0], normalized[1]]
    networks = Networks(**told)
    rebuilt = build_networks(networks)
    if discriminator and discriminator.norm == "none":  # what nothing in it reads
        discriminator = discriminator.clone(norm_epsilon=networks.norm_epsilon, norm_decay=networks.norm_decay)
    if rebuilt[0] != generator or discriminator not in (None, rebuilt[1]):
        raise InvalidInputError("No config describes both networks: they differ in more than width and attention.")
    return networks


def _normalized(variables: dict[str, Any]) -> bool:
    """Tells whether a network is spectrally normalised: all of its kernels, or none."""
    vectors = variables["spectral"]
    if not vectors:
        return False
    expected = jax.eval_shape(lambda: init_spectral(jax.random.key(0), variables["params"]))
    if jax.tree.structure(expected) != jax.tree.structure(vectors):
        raise InvalidInputError("The weights are spectrally normalised in some layers and not in others; no config is.")
    return True


def attention_places(networks: Networks) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the feature-map sizes at which attention can sit in G and in D, each with its channels."""
    family = _MODELS[networks.family]
    of_sizes = dcgan if networks.family == "dcgan" else sagan
    resolution, base = networks.resolution, networks.base_channels
    judging_base = networks.discriminator_base_channels or base
    drawing = of_sizes.generator_resolutions(resolution), family.GENERATOR_WIDTHS[resolution][1:]
    judging = of_sizes.discriminator_resolutions(resolution), family.DISCRIMINATOR_WIDTHS[resolution]
    # The first block of a size is the one that counts, so it is written last.
    return (
        {size: base * width for size, width in zip(*drawing, strict=True)},
        {size: judging_base * width for size, width in list(zip(*judging, strict=False))[::-1]},
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
