"""The attention explorer: one interactive HTML page with images and the attention maps of every layer."""

import base64
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from markupsafe import Markup

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.functional import attention_entropy
from sagan_jax.runtime.image_files import encode_png
from sagan_jax.views.templates import load_template


class Layer(NamedTuple):
    """The properties of an attention layer that all samples share.

    Attributes:
        network: `generator` or `discriminator`.
        query_shape: height and width of the queries, in positions.
        key_shape: height and width of the keys; half of `query_shape` if keys are pooled.
        gamma: the scale of the layer's output before it is added to the features; None for a layer without gamma.
    """

    network: str
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]
    gamma: float | None


class Frame(NamedTuple):
    """An image and its attention maps.

    Attributes:
        image: `[R, R, C]` uint8, C 1 or 3.
        maps: a floating-point map `[N, M]` for each layer, in the order of the layers; rows sum to 1.
    """

    image: np.ndarray
    maps: Sequence[np.ndarray]


class Sample(NamedTuple):
    """The images of one seed and class, interpolated from a latent z1 to another, z2.

    Attributes:
        label: class id; None from an unconditional generator.
        seed: of the latents.
        frames: from z1 to z2, at least one.
    """

    label: int | None
    seed: int
    frames: Sequence[Frame]


class Page(NamedTuple):
    """A page and the number of its samples.

    Attributes:
        content: HTML in UTF-8.
        num_samples: the number of samples that fit.
    """

    content: bytes
    num_samples: int


def explorer_page(
    samples: Iterable[Sample],
    layers: Sequence[Layer],
    *,
    num_requested: int,
    title: str,
    facts: Sequence[str] = (),
    budget: int = 10_000_000,
) -> Page:
    """Returns a page with as many of the first samples as fit into its budget.

    The page loads no other files and can be opened from disk. Its maps are quantized by `quantize_rows` and compressed.

    Args:
        samples: read until the page is full, so a generator can draw them one by one.
        layers: at least one.
        num_requested: number of requested samples; the page says how many of them were left out.
        title: such as the name of the run.
        facts: short texts on the run, shown in one line.
        budget: size of the page in bytes.

    Returns:
        The page, of at most `budget` bytes.

    Raises:
        InvalidInputError: there is no layer, or the budget is too small for one sample.
        NonFiniteError: a map has a NaN or an infinity.
    """
    if not layers:
        raise InvalidInputError("explorer_page needs at least one attention layer; got none.")
    template = load_template("explorer.html")

    def render(encoded: Sequence[str]) -> bytes:
        page = template.render(
            title=title,
            facts=facts,
            num_requested=num_requested,
            left_out=num_requested - len(encoded),
            budget=f"{budget / 1e6:g}",
            layers=[layer._asdict() for layer in layers],
            samples=Markup(",\n".join(encoded)),
        )
        return page.encode()

    # The text around the samples is longest without samples, because then the number left out is largest.
    encoded = _encode_fitting(samples, len(render([])), budget)
    return Page(render(encoded), len(encoded))


def quantize_rows(attention_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes each row to 256 levels from 0 to its maximum.

        codes = round(map / scales),    scales = max(map) / 255, by row

    So `codes * scales` differs from the row by at most half a step, `scales / 2`.

    Args:
        attention_map: `[N, M]`, floating-point, not negative.

    Returns:
        Codes `[N, M]` uint8 and scales `[N]` float32.

    Examples:
        >>> codes, scales = quantize_rows(np.array([[0.0, 127.5, 510.0]]))
        >>> codes.tolist(), scales.tolist()
        ([[0, 64, 255]], [2.0])
    """
    weights = attention_map.astype(np.float64)
    scales = (weights.max(axis=1) / 255).astype(np.float32)
    # A row of zeros has scale 0; dividing it by any other number gives codes of 0.
    steps = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    return np.rint(weights / steps).clip(0, 255).astype(np.uint8), scales


def pack_map(attention_map: np.ndarray) -> str:
    """Returns a map as the page reads it: zlib-compressed bytes in base64.

    The bytes are the scales and the entropies of the rows, both little-endian float32, and then the codes.

    Args:
        attention_map: `[N, M]`, floating-point; rows sum to 1.

    Raises:
        NonFiniteError: the map has a NaN or an infinity.
    """
    if not np.isfinite(attention_map).all():
        raise NonFiniteError("pack_map needs finite attention weights; got NaN or infinity: the network has diverged.")
    codes, scales = quantize_rows(attention_map)
    entropies = np.asarray(attention_entropy(jnp.asarray(attention_map)))
    floats = [array.astype("<f4").tobytes() for array in (scales, entropies)]
    return _base64(zlib.compress(b"".join([*floats, codes.tobytes()]), 9))


def _encode_fitting(samples: Iterable[Sample], used: int, budget: int) -> list[str]:
    """Returns as many of the first samples as fit, as JSON.

    Args:
        samples: read until one does not fit.
        used: bytes of the page without samples.
        budget: bytes of the page with them.
    """
    encoded: list[str] = []
    for sample in samples:
        text = _encode_sample(sample)
        needed = used + len(text) + len(",\n")
        if needed > budget:
            if not encoded:
                raise InvalidInputError(
                    f"A page with one sample takes {math.ceil(needed / 1e4) / 100:g} MB, more than --megabytes "
                    f"{budget / 1e6:g}: increase --megabytes, or use fewer --steps."
                )
            break
        encoded.append(text)
        used = needed
    return encoded


def _encode_sample(sample: Sample) -> str:
    frames: list[dict[str, Any]] = [
        {
            "image": _base64(encode_png(frame.image, optimize=True)),
            "maps": [pack_map(attention_map) for attention_map in frame.maps],
        }
        for frame in sample.frames
    ]
    return json.dumps({"label": sample.label, "seed": sample.seed, "frames": frames}, separators=(",", ":"))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
