"""Interpolation between two samples: latents along the sphere, classes as mixtures."""

from typing import Literal

import jax
import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import TrainedGenerator

Between = Literal["z", "class", "both"]


def slerp(first: np.ndarray, second: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns latents on the arc between two latents: spherical linear interpolation.

        sin((1 - t) w) / sin(w) z1 + sin(t w) / sin(w) z2,    w the angle between z1 and z2

    Points on the arc have about the norm of random latents. A straight line passes much closer to the origin.

    Args:
        first: `[N, Z]`.
        second: `[N, Z]`.
        shares: `[T]`, the values of t, from 0 (first) to 1 (second).

    Returns:
        `[N, T, Z]`.

    Source: Shoemake 1985; White 2016, section 2.1.

    Examples:
        >>> slerp(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([0.0, 1.0])).round(6).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    cosine = (first * second).sum(1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))
    angle = np.maximum(np.arccos(cosine.clip(-1, 1)), 1e-6)[:, None, None]
    t = shares[None, :, None]
    return (np.sin((1 - t) * angle) * first[:, None] + np.sin(t * angle) * second[:, None]) / np.sin(angle)


def interpolate(
    trained: TrainedGenerator,
    *,
    between: Between,
    rows: int,
    steps: int,
    classes: tuple[int, ...] = (),
    seed: int = 0,
) -> np.ndarray:
    """Returns images between pairs of samples, one pair per row.

    Row r interpolates from latent 2 r of the seed to latent 2 r + 1, from class r of `classes` to the next one, or
    both.

    Args:
        trained: the generator.
        between: what to interpolate: latents (`z`), classes, or both. The other is that of the first sample.
        rows: the number of pairs.
        steps: the number of images per row, at least 2, including both ends.
        classes: the classes to cycle through. Defaults to all classes.
        seed: in [0, 2**32).

    Returns:
        `[rows, steps, H, W, C]` uint8.

    Raises:
        InvalidInputError: the generator does not have the classes, or a number is out of range.
        NonFiniteError: an image is not finite.
    """
    if rows < 1 or steps < 2:
        raise InvalidInputError(f"interpolate needs --rows from 1 and --steps from 2; got {rows} and {steps}.")
    if between == "class" and not trained.num_classes:
        raise InvalidInputError("The generator has no classes to go between: give --between z.")
    wanted = trained.classes(classes or None)
    latents = np.asarray(trained.latents(jax.random.key(seed), np.arange(2 * rows)), np.float64).reshape(rows, 2, -1)
    shares = np.linspace(0, 1, steps)
    path = slerp(latents[:, 0], latents[:, 1], shares if between != "class" else np.zeros(steps))
    first, second = (np.resize(np.roll(wanted, -shift), rows) for shift in (0, 1))
    one_hot = np.eye(max(1, trained.num_classes))
    t = (shares if between != "z" else np.zeros(steps))[None, :, None]
    mixtures = (1 - t) * one_hot[first][:, None] + t * one_hot[second][:, None]
    if between == "z":  # one class per row: a user's network may not accept mixtures
        labels = np.repeat(first[:, None], steps, axis=1).astype(np.int32)
    else:
        labels = mixtures.astype(np.float32)
    return np.stack([trained.images(z.astype(np.float32), of_row) for z, of_row in zip(path, labels, strict=True)])
