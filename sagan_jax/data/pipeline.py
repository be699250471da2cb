"""Training batches from a source: shuffled, split over processes, and a function of only (seed, step)."""

import contextlib
import os
from collections.abc import Generator
from typing import Protocol

import grain
import numpy as np

from sagan_jax.data.order import balanced_order, uniform_order
from sagan_jax.errors import InvalidInputError, NonFiniteError

Batch = tuple[np.ndarray, np.ndarray]
"""The images and labels of one step."""

_BUFFER_BYTES = 2**30  # size of the buffer of prefetched batches


class Source(Protocol):
    """A data set to draw batches from, such as `sagan_jax.data.ImageSource`."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        """Returns image `index`, uint8 `[R, R, C]`, and its label. Must be thread-safe."""
        ...


def to_float(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as float32 images in [-1, 1].

        x -> x / 127.5 - 1

    No pixel value maps to 0, which lies between 127 and 128.

    Args:
        images: uint8, any shape.

    Returns:
        float32 of the same shape. `to_uint8` is the exact inverse.

    Raises:
        InvalidInputError: when `images` are not uint8.

    Examples:
        >>> to_float(np.array([0, 255], np.uint8)).tolist()
        [-1.0, 1.0]
    """
    if images.dtype != np.uint8:
        raise InvalidInputError(f"to_float needs uint8 images; got {images.dtype}. Are they floats already?")
    floats = np.divide(images, np.float32(127.5), dtype=np.float32)
    floats -= np.float32(1)  # in place, since a batch may take a hundred megabytes
    return floats


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1] as uint8 images, the inverse of `to_float`.

        x -> round((x + 1) * 127.5), half to even, clipped to 0..255

    Values are rounded to the nearest level. A plain cast would make images darker by half a level on average.

    Args:
        images: floating, including bfloat16, numpy or jax, any shape. Computed in float32.

    Returns:
        uint8 of the same shape.

    Raises:
        InvalidInputError: when `images` are integers.
        NonFiniteError: when `images` contain NaN.

    Examples:
        >>> to_uint8(np.array([-1.0, 0.0, 7.0])).tolist()
        [0, 128, 255]
    """
    if np.asarray(images).dtype.kind in "biu":
        raise InvalidInputError(f"to_uint8 needs floats in [-1, 1]; got {images.dtype}. Were they converted twice?")
    levels = np.rint((np.asarray(images).astype(np.float32) + np.float32(1)) * np.float32(127.5))
    if np.isnan(levels).any():
        raise NonFiniteError("to_uint8 needs images without NaN: the generator has diverged.")
    return levels.clip(0, 255).astype(np.uint8)


def training_batches(
    source: Source,
    *,
    batch_size: int,
    discriminator_steps: int,
    seed: int,
    first_step: int,
    total_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    first_image: int | None = None,
    balanced_by: np.ndarray | None = None,
) -> Generator[Batch, None, None]:
    """Yields this process's batches for the steps `first_step`, .., `total_steps` - 1.

    The images follow one infinite order, determined by `seed`: a new permutation of all images for each epoch, or the
    order of `sagan_jax.data.order.balanced_order`. With D = `discriminator_steps` and B = `batch_size`, step t reads
    positions t D B, .., (t + 1) D B - 1 of that order. Process p of P reads the p-th part of each of the D batches. So
    the data of step t depend only on (seed, t), not on the first step of the run or the number of processes. No image
    is dropped at the end of an epoch, so a batch may contain images of two epochs. A batch larger than the data set
    contains images more than once.

    A run that resumes with another B passes `first_image`, the number of images that it has read. Reading continues
    from there, so no image of an epoch is skipped or repeated.

    Threads prefetch batches. They stop when the generator is closed, garbage-collected or exhausted.

    Args:
        source: uint8 images of one shape `[R, R, C]`, with labels.
        batch_size: B, over all processes; a multiple of `process_count`.
        discriminator_steps: D, the number of batches in a step.
        seed: in [0, 2**32).
        first_step: the first step: 0, or the step from which a run resumes.
        total_steps: the last step plus 1. Nothing is yielded if `first_step` is at least this.
        process_index: p.
        process_count: P.
        first_image: the position at which the first step begins. Defaults to `first_step` D B.
        balanced_by: the labels of the images, integers `[N]`, to read all classes equally often. Defaults to uniform
            sampling.

    Yields:
        Images float32 `[D, B / P, R, R, C]` in [-1, 1] and labels int32 `[D, B / P]`.

    Raises:
        InvalidInputError: when a number is out of range, raised by the call itself; or when an image cannot be read,
            raised during iteration.
    """
    _check_numbers(batch_size, discriminator_steps, seed, first_step, process_index, process_count)
    order = uniform_order(len(source), seed) if balanced_by is None else balanced_order(balanced_by, seed)
    local_batch_size = batch_size // process_count
    before = 0 if first_image is None else first_image - first_step * discriminator_steps * batch_size

    def read_step(step: int) -> Batch | Exception:
        first = before + process_index * local_batch_size
        starts = [(step * discriminator_steps + d) * batch_size + first for d in range(discriminator_steps)]
        try:
            examples = [source[order(start + offset)] for start in starts for offset in range(local_batch_size)]
            images = to_float(np.stack([image for image, _ in examples]))
            labels = _integer_labels([label for _, label in examples])
        except Exception as error:  # returned as a value, because grain adds lines to errors that it raises
            return error
        shape = discriminator_steps, local_batch_size
        return images.reshape(*shape, *images.shape[1:]), labels.reshape(shape)

    step_bytes = 4 * discriminator_steps * local_batch_size * source[0][0].size
    threads = min(16, os.cpu_count() or 1)
    buffer = max(1, min(2 * threads, _BUFFER_BYTES // step_bytes))
    options = grain.ReadOptions(num_threads=min(threads, buffer), prefetch_buffer_size=buffer)
    steps = grain.MapDataset.range(first_step, max(first_step, total_steps)).map(read_step)
    return _iterate(steps.to_iter_dataset(options))


def _check_numbers(
    batch_size: int, discriminator_steps: int, seed: int, first_step: int, process_index: int, process_count: int
) -> None:
    """Raises InvalidInputError if a number is out of range."""
    if batch_size < 1 or discriminator_steps < 1 or process_count < 1 or first_step < 0:
        raise InvalidInputError(
            f"Batches need batch_size, discriminator_steps and process_count of at least 1, and first_step of at least "
            f"0; got {batch_size}, {discriminator_steps}, {process_count} and {first_step}."
        )
    if batch_size % process_count:
        raise InvalidInputError(
            f"batch_size needs to be a multiple of the number of processes; got {batch_size} and {process_count}."
        )
    if not 0 <= process_index < process_count:
        raise InvalidInputError(f"process_index needs to be in [0, {process_count}); got {process_index}.")
    if not 0 <= seed < 2**32:
        raise InvalidInputError(f"The seed needs to be in [0, 2**32); got {seed}.")


def _integer_labels(labels: list[int]) -> np.ndarray:
    """Returns the labels as int32. Raises InvalidInputError for labels that the cast would change."""
    array = np.array(labels)
    if array.dtype.kind not in "iu" or array.ndim != 1 or not np.array_equal(array, array.astype(np.int32)):
        raise InvalidInputError(
            f"A source needs labels that are integers below 2**31; got, for example, {labels[0]!r}."
        )
    return array.astype(np.int32)


def _iterate(batches: grain.IterDataset) -> Generator[Batch, None, None]:
    with contextlib.closing(iter(batches)) as iterator:  # an open iterator prints an error at interpreter exit
        for batch in iterator:
            if isinstance(batch, Exception):
                raise batch
            yield batch
