"""The quality of completions: their error with respect to the originals, and the diversity of several samples."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, draw_masks, to_float
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.functional.losses import perceptual_distance
from sagan_jax.functional.similarity import WINDOW_RADIUS, masked_mean, peak_signal_to_noise, structural_similarity
from sagan_jax.models.perceptual import Lite0Activations
from sagan_jax.runtime.full_precision import in_float32

RECONSTRUCTION_NAMES = ("psnr", "l1", "ssim", "psnr_image", "l1_image", "ssim_image")
"""The values of `reconstruction_quality`: inside the hole, and over the whole image."""

_BATCH = 50


def reconstruction_quality(completed: np.ndarray, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the reconstruction quality of completions with respect to the original images.

    Args:
        completed: `[N, H, W, C]` uint8, H and W above 10.
        images: `[N, H, W, C]` uint8, the originals.
        masks: `[N, H, W]` bool, True in the hole.

    Returns:
        Values by name, each `[N]`. Inside the hole: `psnr` in decibels; `l1`, the mean absolute error as a fraction of
        the value range; and `ssim`, the mean of `structural_similarity`. Over the whole image: `psnr_image`, `l1_image`
        and `ssim_image`.
    """
    parts = []
    for start in range(0, len(images), _BATCH):
        rows = slice(start, start + _BATCH)
        parts.append(_reconstruction_quality(to_float(completed[rows]), to_float(images[rows]), masks[rows]))
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in RECONSTRUCTION_NAMES}


@jax.jit
def _reconstruction_quality(completed: Array, images: Array, masks: Array) -> dict[str, Array]:
    error = completed - images
    structure = structural_similarity(0.5 * completed + 0.5, 0.5 * images + 0.5)[..., None]
    whole = jnp.ones_like(masks)
    within = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    without_border = jnp.zeros_like(masks).at[:, within, within].set(True)
    found = {}
    for name, region, ssim_region in (("", masks, masks), ("_image", whole, without_border)):
        found["psnr" + name] = peak_signal_to_noise(masked_mean(error**2, region))
        found["l1" + name] = 0.5 * masked_mean(abs(error), region)
        found["ssim" + name] = masked_mean(structure, ssim_region)
    return found


def lite0_distance(completed: np.ndarray, images: np.ndarray, variables: Mapping[str, Any]) -> np.ndarray:
    """Returns the perceptual distance of completions from the originals, in EfficientNet-Lite0 activations, `[N]`.

    The distance is `perceptual_distance` over whole images, known pixels included. So it depends on the size of the
    hole. Compare it only between methods that fill the same holes.

    Args:
        completed: `[N, H, W, C]` uint8, C 1 or 3.
        images: `[N, H, W, C]` uint8, the originals.
        variables: the variables of `sagan_jax.models.lite0.Lite0`.
    """
    batches = [slice(start, start + _BATCH) for start in range(0, len(images), _BATCH)]
    parts = [_lite0_distance(variables, to_float(completed[rows]), to_float(images[rows])) for rows in batches]
    return np.concatenate([np.asarray(part) for part in parts])


@jax.jit
@in_float32
def _lite0_distance(variables: Mapping[str, Any], completed: Array, images: Array) -> Array:
    activations: Any = partial(Lite0Activations().apply, variables)
    return perceptual_distance(activations(completed), activations(images))


def diversity(samples: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the diversity of the completions of each image, `[N]`.

    The diversity is the mean absolute difference over pairs of samples and over the hole, as a fraction of the value
    range. It is 0 if all samples are equal, and has the scale of `l1` in `reconstruction_quality`.

    Args:
        samples: `[K, N, H, W, C]` uint8, K at least 2.
        masks: `[N, H, W]` bool, True in the hole.
    """
    count = len(samples)
    # sum_{i<j} |x_i - x_j| of sorted values is sum_i (2i - K + 1) x_i.
    weights = 2.0 * np.arange(count) - count + 1
    pairs = count * (count - 1) / 2
    found = []
    for image, mask in zip(np.moveaxis(samples, 1, 0), masks, strict=True):
        ordered = np.sort(image[:, mask].astype(np.float32), axis=0)
        found.append(np.tensordot(weights, ordered, axes=1).mean() / pairs / 255)
    return np.array(found)


def completion_scores(
    completer: TrainedCompleter,
    source: ImageSource,
    holes: str,
    *,
    num_images: int,
    samples: int = 4,
    seed: int = 0,
    batch_size: int = 50,
    lite0: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Returns the `reconstruction_quality` of completions with mean latents, and the `diversity` of sampled ones.

    Args:
        completer: the completion network.
        source: photographs that it was not trained on.
        holes: a kind of `sagan_jax.data.masks`; the hole of image i is drawn with `seed` and i.
        num_images: the number of images to complete, starting with the first; at most the size of the source.
        samples: the number of sampled completions per image for the diversity; below 2 omits it.
        seed: the seed of holes and latents, in [0, 2**32).
        batch_size: images per forward pass.
        lite0: the variables of EfficientNet-Lite0 for `lite0_image`, the `lite0_distance`; None omits it.

    Returns:
        Values by name, each `[num_images]`.

    Raises:
        InvalidInputError: the kind of hole is unknown.
        NonFiniteError: a completion is not finite.
    """
    images = np.stack([source[index][0] for index in range(num_images)])
    masks = draw_masks(holes, *images.shape[1:3], seed=seed, indices=range(num_images))
    completed = completer.complete(images, masks, batch_size=batch_size)
    found = reconstruction_quality(completed, images, masks)
    if lite0:
        found["lite0_image"] = lite0_distance(completed, images, lite0)
    if samples > 1:
        sampled = completer.sample(images, masks, samples, seed=seed, batch_size=batch_size)
        found["diversity"] = diversity(sampled, masks)
    return found
