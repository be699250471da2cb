"""From a source to training batches: shuffled, split over processes, and a function of (seed, step) alone."""

import contextlib
import os
from collections.abc import Generator
from typing import Protocol

import grain
import numpy as np

from sagan_jax.errors import InvalidInputError

Batch = tuple[np.ndarray, np.ndarray]
"""Images and labels of one step."""

_BUFFER_BYTES = 2**30  # of batches read ahead


class Source(Protocol):
    """What batches are drawn from: `sagan_jax.data.ImageSource`, or anything that looks like it."""

    def __len__(self) -> int:
        """Returns how many images there are."""
        ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        """Returns image `index`, uint8 `[R, R, C]`, and its label; called from several threads."""
        ...


def to_float(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as floats in [-1, 1].

        x -> x / 127.5 - 1

    Not centred on a pixel value: the middle, 0, lies between 127 and 128.

    Args:
        images: any shape, uint8.

    Returns:
        The same shape, float32; `to_uint8` undoes it exactly.

    Raises:
        InvalidInputError: `images` are not uint8.

    >>> to_float(np.array([0, 255], np.uint8)).tolist()
    [-1.0, 1.0]
    """
    if images.dtype != np.uint8:
        raise InvalidInputError(f"to_float needs uint8 images; got {images.dtype}: are they floats already?")
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1] as uint8: the inverse of `to_float`.

        x -> round((x + 1) * 127.5), half to even, clipped to 0..255

    Rounds to the nearest, where a plain cast would darken by half a level on average.

    Args:
        images: any shape, floating; jax arrays and bfloat16 too. Worked out in float32.

    Returns:
        The same shape, uint8.

    Raises:
        InvalidInputError: `images` are integers, or one of them is not a number.

    >>> to_uint8(np.array([-1.0, 0.0, 7.0])).tolist()
    [0, 128, 255]
    """
    if np.asarray(images).dtype.kind in "biu":
        raise InvalidInputError(f"to_uint8 needs floating images in [-1, 1]; got {images.dtype}: converted twice?")
    levels = np.rint((np.asarray(images).astype(np.float32) + np.float32(1)) * np.float32(127.5))
    if np.isnan(levels).any():
        raise InvalidInputError("to_uint8 needs numbers; got NaN: the generator has diverged.")
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
) -> Generator[Batch, None, None]:
    """Yields the batches of steps `first_step`, .., `total_steps` - 1, for this process.

    There is one endless order of the images: a permutation of all of them for each epoch, another one each time, fixed
    by `seed`. With D = `discriminator_steps` and B = `batch_size`, step t reads the places t D B, .., (t + 1) D B - 1
    of it, and process p of P the p-th part of each of the D batches. So the data of step t depends on (seed, t) alone:
    not on where the run started, nor on how many processes share it. Nothing is dropped at the end of an epoch; a batch
    may straddle two, and with fewer images than a batch holds an image comes more than once in it.

    Batches are read ahead by threads, which stop when the generator is closed, collected or exhausted.

    Args:
        source: uint8 images of one shape `[R, R, C]`, with labels.
        batch_size: B, over all processes; a multiple of `process_count`.
        discriminator_steps: D, batches in a step.
        seed: in [0, 2**32).
        first_step: the step to begin with; 0, or where a run is taken up again.
        total_steps: the step not to reach; nothing is yielded when `first_step` is there already.
        process_index: p.
        process_count: P.

    Yields:
        Images float32 `[D, B / P, R, R, C]` in [-1, 1] and labels int32 `[D, B / P]`.

    Raises:
        InvalidInputError: at the call, a number is outside its range; there or later, an image cannot be read.
    """
    if batch_size < 1 or discriminator_steps < 1 or process_count < 1 or first_step < 0:
        raise InvalidInputError(
            f"Batches need batch_size, discriminator_steps and process_count from 1 up and first_step from 0 up; got "
            f"{batch_size}, {discriminator_steps}, {process_count} and {first_step}."
        )
    if batch_size % process_count:
        raise InvalidInputError(
            f"batch_size must be a multiple of the number of processes; got {batch_size} and {process_count}."
        )
    if not 0 <= process_index < process_count:
        raise InvalidInputError(f"process_index must be in [0, {process_count}); got {process_index}.")
    if not 0 <= seed < 2**32:
        raise InvalidInputError(f"The seed must be in [0, 2**32); got {seed}.")

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    part = batch_size // process_count

    def example(record: int) -> tuple[np.ndarray, int]:
        index = order[record]
        assert index is not None  # grain's None is for elements filtered out; none are
        return source[int(index)]

    def read_step(step: int) -> Batch | Exception:
        starts = [
            (step * discriminator_steps + d) * batch_size + process_index * part for d in range(discriminator_steps)
        ]
        try:
            examples = [example(start + offset) for start in starts for offset in range(part)]
            images = to_float(np.stack([image for image, _ in examples]))
            labels = np.array([label for _, label in examples], np.int32)
        except Exception as error:  # handed over as a value: grain appends lines of its own to what is raised
            return error
        return images.reshape(discriminator_steps, part, *images.shape[1:]), labels.reshape(discriminator_steps, part)

    step_bytes = 4 * discriminator_steps * part * source[0][0].size
    threads = min(16, os.cpu_count() or 1)
    buffer = max(1, min(2 * threads, _BUFFER_BYTES // step_bytes))
    options = grain.ReadOptions(num_threads=min(threads, buffer), prefetch_buffer_size=buffer)
    steps = grain.MapDataset.range(first_step, max(first_step, total_steps)).map(read_step)
    return _iterate(steps.to_iter_dataset(options))


def _iterate(batches: grain.IterDataset) -> Generator[Batch, None, None]:
    with contextlib.closing(iter(batches)) as iterator:  # one left open complains when the interpreter exits
        for batch in iterator:
            if isinstance(batch, Exception):
                raise batch
            yield batch
