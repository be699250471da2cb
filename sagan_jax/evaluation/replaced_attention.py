"""The effect of attention on generated images: images are generated again with the learned maps replaced.

A map alone does not show whether it matters. Here the network and its latents stay fixed, and only the map of a
layer changes. A program then counts how many images still follow their rule.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import Array

from sagan_jax.data import to_uint8
from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.partners import partner_positions
from sagan_jax.evaluation.rules import check_rule, find_blobs, num_modes, rule_accuracy
from sagan_jax.functional import attend, max_pool
from sagan_jax.models.attention import MultiHeadAttention
from sagan_jax.models.layers import SelfAttention
from sagan_jax.models.programs import bind_static
from sagan_jax.runtime.full_precision import in_float32

Replacement = Literal["learned", "uniform", "another image's", "without the partner"]
"""The map that a layer uses: its learned one, uniform weights, that of another image, or without the other blobs."""

Maps = Mapping[str, Array]
"""Maps by the path of a layer, `[B, N, M]` or `[B, heads, N, M]` floating."""


class KnockOut(NamedTuple):
    """The result of replacing maps."""

    images: int
    """the number of scored images: those with clear blobs under the learned maps, in batches with two or more"""
    scores: dict[Replacement, dict[str, float]]
    """`rule_accuracy` of these images by replacement; empty if there are no such images"""


def replaceable_layers(trained: TrainedGenerator) -> tuple[str, ...]:
    """Returns the paths of the layers whose maps can be replaced: release, article and multi-head attention.

    The layer with the coarsest features comes first. The network is traced, not run.
    """
    latents, labels = jnp.zeros((1, trained.latent_size)), jnp.zeros(1, jnp.int32)
    maps = _map_shapes(trained, latents, labels)
    return tuple(sorted(maps, key=lambda layer: maps[layer].shape[-2]))


def knock_out(
    trained: TrainedGenerator,
    rule: Pairs,
    layers: Sequence[str],
    *,
    count: int = 500,
    seed: int = 0,
    batch_size: int = 100,
) -> KnockOut:
    """Returns how well images follow a rule with the learned maps, and with the maps of some layers replaced.

    The replacements are computed from the learned maps. "another image's" is the map of the next image with clear blobs
    in the batch. "without the partner" removes the weights from positions on a blob to positions on other blobs. The
    remaining weights of these rows are rescaled to sum to one, and other rows are unchanged.

    Args:
        trained: the generator; its batch norms use the stored statistics.
        rule: the rule of the training images, with two blobs or more.
        layers: a subset of `replaceable_layers`, whose maps are replaced together.
        count: the number of images. Those without clear blobs are not scored.
        seed: as in `TrainedGenerator.generate`, which gives the same images.
        batch_size: the number of images per forward pass, at least 2. An image that is the only one of its batch with
            clear blobs is not scored.

    Raises:
        InvalidInputError: the rule has one blob, a number is too small, or the generator has no such layer.
    """
    unknown = [layer for layer in layers if layer not in replaceable_layers(trained)]
    if unknown or not layers:
        raise InvalidInputError(f"knock_out needs layers among {replaceable_layers(trained)}; got {tuple(layers)}.")
    if rule.blobs < 2 or count < 1 or batch_size < 2:
        raise InvalidInputError(
            f"knock_out needs 2 blobs, 1 image and batches of 2 or more; got {rule.blobs}, {count} and {batch_size}."
        )
    labels, key = np.resize(trained.classes(), count).astype(np.int32), jax.random.key(seed)
    drawn: dict[Replacement, list[np.ndarray]] = {}
    for start in range(0, count, batch_size):
        numbers = np.arange(start, min(count, start + batch_size))
        latents, classes = trained.latents(key, numbers), labels[numbers]
        images, maps = learned_maps(trained, latents, classes)
        blobs = [[blob.region for blob in find_blobs(image, rule)] for image in images]
        chosen = np.flatnonzero([bool(regions) for regions in blobs])
        if len(chosen) < 2:  # there is no other image whose map could be used
            continue
        drawn.setdefault("learned", []).append(images[chosen])
        for name, replaced in _replaced({layer: maps[layer] for layer in layers}, blobs, chosen).items():
            drawn.setdefault(name, []).append(images_of_maps(trained, latents, classes, replaced)[chosen])
    scores = {
        name: rule_accuracy(check_rule(np.concatenate(parts), rule), num_modes(rule)) for name, parts in drawn.items()
    }
    return KnockOut(sum(map(len, drawn.get("learned", []))), scores)


def learned_maps(trained: TrainedGenerator, latents: Array, labels: np.ndarray) -> tuple[np.ndarray, Maps]:
    """Returns images `[B, R, R, C]` uint8, and the map of each of `replaceable_layers`, not averaged over heads.

    The images are those of `TrainedGenerator.images` up to rounding, since another compiled program computes them.

    Args:
        trained: the generator; its batch norms use the stored statistics.
        latents: `[B, Z]`.
        labels: `[B]` int32.
    """
    return _images(trained, latents, labels, {})


def images_of_maps(trained: TrainedGenerator, latents: Array, labels: np.ndarray, maps: Maps) -> np.ndarray:
    """Returns images `[B, R, R, C]` uint8 that are generated with given maps in some layers.

    The compiled program is that of `learned_maps`. So with the maps that `learned_maps` returns, the images are the
    same bit for bit.

    Args:
        trained: the generator; its batch norms use the stored statistics.
        latents: `[B, Z]`.
        labels: `[B]` int32.
        maps: the given maps by layer path, which is one of `replaceable_layers`. Rows sum to one.
    """
    return _images(trained, latents, labels, maps)[0]


def _images(trained: TrainedGenerator, latents: Array, labels: np.ndarray, maps: Maps) -> tuple[np.ndarray, Maps]:
    shapes = _map_shapes(trained, latents, labels)
    given = {layer: maps.get(layer, np.zeros(shape.shape, shape.dtype)) for layer, shape in shapes.items()}
    is_given = {layer: np.array(layer in maps) for layer in shapes}
    images, learned = bind_static(_draw, trained.generator)(trained.variables, latents, labels, given, is_given)
    return to_uint8(np.asarray(images)), learned


def _map_shapes(trained: TrainedGenerator, latents: Array, labels: Array | np.ndarray) -> dict[str, Any]:
    """Returns the shape and dtype of each replaceable map."""

    def maps(variables: Any, latents: Array, labels: Array) -> Maps:
        return _apply(trained.generator, variables, latents, labels, lambda layer, learned: learned)[1]

    return jax.eval_shape(maps, trained.variables, latents, labels)


@partial(jax.jit, static_argnums=0)
@in_float32
def _draw(
    module: nn.Module, variables: Any, latents: Array, labels: Array, given: Maps, is_given: Mapping[str, Array]
) -> tuple[Array, Maps]:
    """Returns images and the learned maps. `is_given` is traced, so that one compiled program serves all cases."""
    return _apply(
        module, variables, latents, labels, lambda layer, learned: jnp.where(is_given[layer], given[layer], learned)
    )


def _apply(
    module: nn.Module, variables: Any, latents: Array, labels: Array, choose: Callable[[str, Array], Array]
) -> tuple[Array, Maps]:
    """Returns the images of a generator whose layers use the maps that `choose` returns, and the learned maps."""
    maps = {}

    def replace(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer, made = context.module, call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(layer, SelfAttention | MultiHeadAttention):
            return made
        path = "/".join(layer.path)
        maps[path] = layer.get_variable("intermediates", "attention_map")[0]
        return _output(layer, args[0], choose(path, maps[path]))  # XLA drops the unused output of the layer

    with nn.intercept_methods(replace):
        applied: Any = module.apply(variables, latents, labels, train=False, mutable=["intermediates"])
    return applied[0], maps


def _output(layer: SelfAttention | MultiHeadAttention, features: Array, attention_map: Array) -> Array:
    """Returns a layer's output for features `[B, H, W, C]` and a given map: equations 2 and 3 of Zhang et al. 2018.

    The order of operations is that of `SelfAttention` and `MultiHeadAttention`.
    """
    batch, height, width, channels = features.shape
    params: Any = layer.variables["params"]
    inputs, value_kernel, output_kernel = promote_dtype(
        features, params["value_kernel"], params.get("output_kernel"), dtype=layer.dtype
    )
    pool = round((height * width / attention_map.shape[-1]) ** 0.5)
    values = max_pool(inputs @ value_kernel, pool).reshape(batch, attention_map.shape[-1], -1)
    if attention_map.ndim == 4:
        values = values.reshape(*values.shape[:2], attention_map.shape[1], -1).swapaxes(1, 2)
    gathered = attend(attention_map.astype(inputs.dtype), values)
    if attention_map.ndim == 4:
        gathered = gathered.swapaxes(1, 2)
    gathered = gathered.reshape(batch, height * width, -1)
    if output_kernel is not None:
        gathered = gathered @ output_kernel
    wide = jnp.promote_types(inputs.dtype, jnp.float32)
    gated = params["gamma"].astype(wide) * gathered.reshape(batch, height, width, channels).astype(wide)
    return (gated + inputs.astype(wide)).astype(inputs.dtype)


def _replaced(maps: Maps, blobs: Sequence[Sequence[np.ndarray]], chosen: np.ndarray) -> dict[Replacement, Maps]:
    """Returns the maps that replace the learned ones of a batch.

    Args:
        maps: the learned maps.
        blobs: the regions of each image's blobs, `[R, R]` bool.
        chosen: the indices of the images with clear blobs, at least two.
    """
    others = np.arange(len(blobs))
    others[chosen] = np.roll(chosen, -1)
    return {
        "uniform": {layer: jnp.full_like(learned, 1 / learned.shape[-1]) for layer, learned in maps.items()},
        "another image's": {layer: learned[others] for layer, learned in maps.items()},
        "without the partner": {layer: without_partner(learned, blobs) for layer, learned in maps.items()},
    }


def without_partner(attention_map: Array, blobs: Sequence[Sequence[np.ndarray]]) -> Array:
    """Returns a map without the weights from a blob to other blobs. The changed rows are rescaled to sum to one.

    A row with all its weight on other blobs becomes uniform over the remaining positions.

    Args:
        attention_map: `[B, N, M]` or `[B, heads, N, M]`.
        blobs: the regions of each image's blobs, `[R, R]` bool. `sagan_jax.evaluation.partners` maps them to positions.
    """
    sides = [round(positions**0.5) for positions in attention_map.shape[-2:]]
    shapes = [(side, side) for side in sides]
    seen = np.ones((len(blobs), *attention_map.shape[-2:]), bool)
    for image, regions in enumerate(blobs):
        for index in range(len(regions)):
            own, others = partner_positions(regions, index, *shapes)
            seen[image] &= ~np.outer(own, others)
    seen = jnp.asarray(seen if attention_map.ndim == 3 else seen[:, None])
    left = jnp.where(seen, attention_map, 0)
    total = left.sum(axis=-1, keepdims=True)
    even = seen / seen.sum(axis=-1, keepdims=True)
    scaled = jnp.where(total > 0, left / jnp.where(total > 0, total, 1), even)
    return jnp.where(seen.all(axis=-1, keepdims=True), attention_map, scaled)
