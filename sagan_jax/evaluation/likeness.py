"""How good completions are: how near to what was hidden, how different from one another, and a stream of them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, to_float
from sagan_jax.data.masks import draw_mask, draw_masks
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.embeddings import ImageBatch
from sagan_jax.functional.similarity import WINDOW_RADIUS, mean_within, peak_signal_to_noise, structural_similarity

LIKENESS = ("psnr", "l1", "ssim", "psnr_image", "l1_image", "ssim_image")
"""What `likeness` measures: inside the hole, and over the whole image."""

_BATCH = 50


@jax.jit
def _likeness(completed: Array, images: Array, masks: Array) -> dict[str, Array]:
    error = completed - images
    structure = structural_similarity(0.5 * completed + 0.5, 0.5 * images + 0.5)[..., None]
    everywhere = jnp.ones_like(masks)
    within = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    inner = jnp.zeros_like(masks).at[:, within, within].set(True)
    found = {}
    for name, part, scored in (("", masks, masks), ("_image", everywhere, inner)):
        found["psnr" + name] = peak_signal_to_noise(mean_within(error**2, part))
        found["l1" + name] = 0.5 * mean_within(abs(error), part)
        found["ssim" + name] = mean_within(structure, scored)
    return found


def likeness(completed: np.ndarray, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns how near completions are to what was hidden, image by image.

    Args:
        completed: `[N, H, W, C]` uint8, H and W above 10.
        images: the same, with nothing hidden.
        masks: `[N, H, W]` bool, True in the hole.

    Returns:
        By name, each `[N]`: `psnr` in decibels, `l1`, the mean size of the error as a share of the range of values,
        and `ssim`, the mean of `structural_similarity`, all inside the hole; and the same over the whole image,
        `psnr_image`, `l1_image` and `ssim_image`.
    """
    parts = []
    for start in range(0, len(images), _BATCH):
        rows = slice(start, start + _BATCH)
        parts.append(_likeness(to_float(completed[rows]), to_float(images[rows]), masks[rows]))
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in LIKENESS}


def diversity(samples: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns how different the completions of an image are, image by image, `[N]`.

    It is the mean over pairs of samples and over the hole of the size of their difference, as a share of the range of
    values: 0 where they are all one, and comparable with `l1` of `likeness`.

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
) -> dict[str, np.ndarray]:
    """Returns `likeness` of the completions by the mean of the latents, and the `diversity` of sampled ones.

    Args:
        completer: what fills the holes.
        source: photographs that it was not trained on.
        holes: a kind of `sagan_jax.data.masks`; the hole of image i is drawn with `seed` and i.
        num_images: how many of the source's, from the first on; at most as many as there are.
        samples: of each image, for their diversity; below 2 leaves it out.
        seed: of holes and latents, in [0, 2**32).
        batch_size: images a pass.

    Returns:
        By name, each `[num_images]`.

    Raises:
        InvalidInputError: there is no such kind of hole.
        NonFiniteError: the network returns what is no number.
    """
    images = np.stack([source[index][0] for index in range(num_images)])
    masks = draw_masks(holes, *images.shape[1:3], seed=seed, indices=range(num_images))
    found = likeness(completer.complete(images, masks, batch_size=batch_size), images, masks)
    if samples > 1:
        drawn = completer.sample(images, masks, samples, seed=seed, batch_size=batch_size)
        found["diversity"] = diversity(drawn, masks)
    return found


class CompletedImages(NamedTuple):
    """Sampled completions of photographs, to be scored as generated images are."""

    completer: TrainedCompleter
    source: ImageSource
    holes: Sequence[str]
    """kinds of `sagan_jax.data.masks`, in turn"""
    batch_size: int = 50

    @property
    def num_classes(self) -> int:
        """None: a completion is of no class."""
        return 0

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` completions; where there are fewer photographs they come again, those kinds drawn anew."""
        size = self.completer.network.resolution
        order = np.random.default_rng([seed, 2]).permutation(len(self.source))
        step = self.batch_size * jax.process_count()
        for start in range(jax.process_index() * self.batch_size, count, step):
            numbers = range(start, start + self.batch_size)  # filled up, so that all batches have one shape
            images = np.stack([self.source[int(order[number % len(order)])][0] for number in numbers])
            kinds = [self.holes[number % len(self.holes)] for number in numbers]
            masks = np.stack(
                [draw_mask(kind, size, size, seed=seed, index=n) for kind, n in zip(kinds, numbers, strict=True)]
            )
            completed = self.completer.sample(images, masks, 1, seed=seed, first=start, batch_size=self.batch_size)[0]
            yield ImageBatch(completed, np.zeros(min(self.batch_size, count - start), np.int32), start)

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Raises InvalidInputError: there are no classes."""
        raise InvalidInputError("Completions have no classes.")

    def describe(self) -> dict[str, Any]:
        """Returns the step, the weights, the holes and whose they are."""
        return {
            "completed_by_step": self.completer.step,
            "weights": "moving average" if self.completer.averaged else "as trained",
            "holes": list(self.holes),
            "photographs": self.source.description,
        }
