"""The families of networks: from a config to modules and back, and the sizes at which attention is possible."""

import dataclasses
from typing import Any

import jax

from sagan_jax.config import Networks
from sagan_jax.errors import InvalidInputError
from sagan_jax.functional.spectral import init_spectral
from sagan_jax.import_paths import is_import_path
from sagan_jax.interop.networks import Discriminator, Generator, ReleasedNetworks
from sagan_jax.models import biggan, dcgan, sagan
from sagan_jax.runs.attention_kinds import check_attention_layer, find_attention
from sagan_jax.runs.own_objects import own_networks
from sagan_jax.runs.unread_fields import READ_WITH_MODULES

_MODELS = {"sagan": sagan, "dcgan": dcgan, "biggan": biggan}
# The config fields that a family does not read: a changed value would silently have no effect.
_UNUSED_FIELDS = {
    "sagan": ("shared_size", "hierarchical"),
    "dcgan": ("shared_size", "hierarchical", "final_norm_decay", "discriminator_shortcut"),
    "biggan": ("final_norm_decay", "conditional_gain"),
}


def build_networks(networks: Networks) -> tuple[Generator, Discriminator]:
    """Returns the two modules that a config describes.

    Raises:
        InvalidInputError: modules or a layer of a user are not found, or a layer breaks its contract.
    """
    if networks.modules:
        return own_networks(networks.modules)
    check_attention(networks)
    shared: dict[str, Any] = {
        "resolution": networks.resolution,
        "num_classes": networks.num_classes,
        "base_channels": networks.base_channels,
        "norm_epsilon": networks.norm_epsilon,
        "norm_decay": networks.norm_decay,
        "initializer": networks.initializer,
    }
    attention = {network: find_attention(*named) for network, named in attention_names(networks).items()}
    generator_fields = shared | {
        "attention": attention["generator"],
        "image_channels": networks.image_channels,
        "attention_resolutions": networks.generator_attention_resolutions,
    }
    discriminator_fields = shared | {
        "attention": attention["discriminator"],
        "attention_resolutions": networks.discriminator_attention_resolutions,
        "norm": networks.discriminator_norm,
        "base_channels": networks.discriminator_base_channels or networks.base_channels,
    }
    gain, shortcut = networks.conditional_gain, networks.discriminator_shortcut
    if networks.family == "dcgan":
        return dcgan.Generator(**generator_fields, conditional_gain=gain), dcgan.Discriminator(**discriminator_fields)
    if networks.family == "biggan":
        return (
            biggan.Generator(**generator_fields, shared_size=networks.shared_size, hierarchical=networks.hierarchical),
            biggan.Discriminator(**discriminator_fields, shortcut=shortcut),
        )
    return (
        sagan.Generator(**generator_fields, conditional_gain=gain, final_norm_decay=networks.final_norm_decay),
        sagan.Discriminator(**discriminator_fields, shortcut=shortcut),
    )


def networks_config(released: ReleasedNetworks) -> Networks:
    """Returns the config that describes released networks.

    Raises:
        InvalidInputError: no config describes them.
    """
    generator, discriminator = released.generator, released.discriminator
    fields = _generator_config(released)
    if discriminator:
        fields |= _discriminator_config(discriminator, generator)
        normalized = _is_normalized(released.generator_variables), _is_normalized(released.discriminator_variables)
    else:  # assume the discriminator that such a generator is usually trained with
        is_dcgan = fields["family"] == "dcgan"
        available = attention_channels(Networks(**fields))[1]
        fields["discriminator_attention_resolutions"] = tuple(filter(available.get, generator.attention_resolutions))
        fields["discriminator_norm"] = "batch" if is_dcgan else "none"
        normalized = _is_normalized(released.generator_variables), not is_dcgan
    fields["spectral_norm"] = {
        (True, True): "both",
        (True, False): "generator",
        (False, True): "discriminator",
        (False, False): "none",
    }[normalized]
    networks = Networks(**fields)
    rebuilt = build_networks(networks)
    if discriminator and discriminator.norm == "none":  # its norm settings then have no effect
        discriminator = discriminator.clone(norm_epsilon=networks.norm_epsilon, norm_decay=networks.norm_decay)
    if rebuilt[0] != generator or discriminator not in (None, rebuilt[1]):
        raise InvalidInputError("No config describes both networks: they differ in more than width and attention.")
    return networks


def _generator_config(released: ReleasedNetworks) -> dict[str, Any]:
    """Returns the config fields that follow from a released generator and its spectral norm."""
    generator = released.generator
    names = [field.name for field in dataclasses.fields(Networks)]
    fields: dict[str, Any] = {name: getattr(generator, name) for name in names if hasattr(generator, name)}
    return fields | {
        "family": next(name for name, models in _MODELS.items() if isinstance(generator, models.Generator)),
        "latent_size": released.latent_size,
        "generator_attention_resolutions": generator.attention_resolutions,
        "spectral_epsilon": released.spectral_rule["epsilon"],
        "spectral_evaluation": "iterated" if released.spectral_rule["iterations"] else "stored",
    }


def _discriminator_config(discriminator: Discriminator, generator: Generator) -> dict[str, Any]:
    """Returns the config fields that follow from a released discriminator."""
    base, shared = discriminator.base_channels, discriminator.base_channels == generator.base_channels
    same_attention = discriminator.attention == generator.attention
    fields: dict[str, Any] = {
        "discriminator_attention_resolutions": discriminator.attention_resolutions,
        "discriminator_attention": "" if same_attention else discriminator.attention,
        "discriminator_norm": discriminator.norm,
        "discriminator_base_channels": 0 if shared else base,
    }
    if hasattr(discriminator, "shortcut"):
        fields["discriminator_shortcut"] = discriminator.shortcut
    return fields


def _is_normalized(variables: dict[str, Any]) -> bool:
    """Returns whether the kernels of a network are spectrally normalised. Raises InvalidInputError if only some are."""
    vectors = variables["spectral"]
    if not vectors:
        return False
    expected = jax.eval_shape(lambda: init_spectral(jax.random.key(0), variables["params"]))
    if jax.tree.structure(expected) != jax.tree.structure(vectors):
        raise InvalidInputError(
            "The weights are spectrally normalised in some layers and not in others: no config describes that."
        )
    return True


def attention_names(networks: Networks) -> dict[str, tuple[str, str]]:
    """Returns, for `generator` and `discriminator`, the name of the attention layer, and the flag that sets it."""
    found = {}
    for network in ("generator", "discriminator"):
        own = getattr(networks, f"{network}_attention")
        found[network] = (own, f"--{network}-attention") if own else (str(networks.attention), "--attention")
    return found


def check_attention(networks: Networks) -> None:
    """Raises InvalidInputError for a user's attention layer that is not found, or breaks its contract."""
    if networks.modules:
        return
    channels = dict(zip(("generator", "discriminator"), attention_channels(networks), strict=True))
    for network, (name, flag) in attention_names(networks).items():
        sizes = getattr(networks, f"{network}_attention_resolutions")
        check_attention_layer(name, flag, {size: channels[network][size] for size in sizes})


def attention_channels(networks: Networks) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the channels at each feature-map size where attention is possible, for G and for D."""
    family = _MODELS[networks.family]
    sizes = dcgan if networks.family == "dcgan" else sagan
    resolution, base = networks.resolution, networks.base_channels
    discriminator_base = networks.discriminator_base_channels or base
    generator = zip(sizes.generator_resolutions(resolution), family.GENERATOR_WIDTHS[resolution][1:], strict=True)
    discriminator = zip(
        sizes.discriminator_resolutions(resolution), family.DISCRIMINATOR_WIDTHS[resolution], strict=False
    )
    return (
        {size: base * width for size, width in generator},
        # Several blocks may have one size, and attention follows the first. In reverse order its entry is written last.
        {size: discriminator_base * width for size, width in list(discriminator)[::-1]},
    )


def _check_modules(networks: Networks) -> None:
    """Refuses settings that have no effect on modules of a user."""
    if len(networks.modules) != 2 or not all(map(is_import_path, networks.modules)):
        raise InvalidInputError(
            f"--modules needs two flax modules, generator and discriminator, each as file.py:NAME; "
            f"got {' '.join(networks.modules)}."
        )
    for name, default in vars(Networks()).items():
        if name not in READ_WITH_MODULES and getattr(networks, name) != default:
            raise InvalidInputError(
                f"--{name.replace('_', '-')} does nothing with --modules: leave it, and set it in your module."
            )


def check_family(networks: Networks) -> None:
    """Raises InvalidInputError for the first setting that the family of a config does not have."""
    if networks.modules:
        _check_modules(networks)
        return
    family = _MODELS[networks.family]
    sizes = sorted(family.GENERATOR_WIDTHS)
    if networks.resolution not in sizes:
        raise InvalidInputError(
            f"--resolution of a {networks.family} needs to be one of {', '.join(map(str, sizes))}; "
            f"got {networks.resolution}."
        )
    for name in _UNUSED_FIELDS[networks.family]:
        if getattr(networks, name) != getattr(Networks(), name):
            raise InvalidInputError(
                f"--{name.replace('_', '-')} does nothing in a {networks.family}: leave it, or give another --family."
            )
    if networks.conditional_gain == "scaled_map" and networks.spectral_norm not in ("both", "generator"):
        raise InvalidInputError(
            f"--conditional-gain scaled_map scales what spectral norm of G normalises, and needs --spectral-norm both "
            f"or generator; got {networks.spectral_norm}. Give --conditional-gain free_map."
        )
    if networks.family == "biggan" and networks.hierarchical and networks.num_classes and not networks.shared_size:
        raise InvalidInputError(
            "--shared-size 0 needs --no-hierarchical or --num-classes 0: the norms of a hierarchical biggan see the "
            "class only through the shared embedding."
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
        attention_channels(networks),
        strict=True,
    ):
        for size in wanted:
            if size not in places:
                raise InvalidInputError(
                    f"--{flag}-attention-resolutions: no block of the {networks.resolution}-pixel network ends at "
                    f"{size}; it can be any of {', '.join(map(str, sorted(places)))}."
                )
