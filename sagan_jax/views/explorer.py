"""The interactive attention page: one HTML file in which a person moves over an image and sees where it looks."""

import base64
import io
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.functional import attention_entropy


class Layer(NamedTuple):
    """What is the same for an attention layer in all samples.

    Attributes:
        network: `generator` or `discriminator`.
        query_shape: height and width of its queries, in positions.
        key_shape: of its keys; half of that where keys are pooled.
        gamma: how much of what it gathers is added to the features.
    """

    network: str
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]
    gamma: float


class Frame(NamedTuple):
    """An image, and where each layer looked in it.

    Attributes:
        image: `[R, R, C]` uint8, C 1 or 3.
        maps: one `[N, M]` floating a layer, in the order of the layers; rows sum to 1.
    """

    image: np.ndarray
    maps: Sequence[np.ndarray]


class Sample(NamedTuple):
    """What one seed and class gave, on the way from z1 to z2.

    Attributes:
        label: its class; None from an unconditional generator.
        seed: of its latents.
        frames: from z1, the first, to z2, the last; one alone has no way to go.
    """

    label: int | None
    seed: int
    frames: Sequence[Frame]


class Page(NamedTuple):
    """A page, and how many samples found room in it."""

    content: bytes
    """UTF-8"""
    num_samples: int


def explorer_page(
    samples: Iterable[Sample],
    layers: Sequence[Layer],
    *,
    asked: int,
    title: str,
    facts: Sequence[str] = (),
    budget: int = 10_000_000,
) -> Page:
    """Returns the page with the first samples that its budget has room for.

    It loads nothing and opens from disk. A map goes into it as `quantize_rows` leaves it, each row's entropy beside it,
    deflated.

    Args:
        samples: read only as far as there is room, so they may be drawn on the way.
        layers: at least one.
        asked: how many samples there are; the page says how many of them were left out.
        title: such as the name of the run.
        facts: short words on the run, shown in one line.
        budget: bytes that the page may take.

    Returns:
        The page, at most `budget` bytes.

    Raises:
        InvalidInputError: when there is no layer, or no room for one sample.
        NonFiniteError: when a map holds what is no number.
    """
    if not layers:
        raise InvalidInputError("explorer_page needs at least one attention layer; got none.")
    template = _template()

    def render(written: Sequence[str], left_out: int) -> bytes:
        page = template.render(
            title=title,
            facts=facts,
            asked=asked,
            left_out=left_out,
            budget=f"{budget / 1e6:g}",
            layers=[layer._asdict() for layer in layers],
            samples=Markup(",\n".join(written)),
        )
        return page.encode()

    written: list[str] = []
    size = len(render([], asked))  # the largest number left out, so the longest words
    for sample in samples:
        line = json.dumps(_written(sample), separators=(",", ":"))
        needed = size + len(line) + len(",\n")
        if needed > budget:
            if not written:
                raise InvalidInputError(
                    f"A page with one sample takes {math.ceil(needed / 1e4) / 100:g} MB, more than --budget-mb "
                    f"{budget / 1e6:g}: give more, or fewer --steps."
                )
            break
        written.append(line)
        size = needed
    return Page(render(written, asked - len(written)), len(written))


def quantize_rows(attention_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each row in 256 levels from 0 to its maximum.

        codes = round(map / scales),    scales = max(map) / 255, by row

    So `codes * scales` is within half a step, `scales / 2`, of the row.

    Args:
        attention_map: `[N, M]`, floating, from 0 up.

    Returns:
        Codes `[N, M]` uint8 and scales `[N]` float32.

    >>> codes, scales = quantize_rows(np.array([[0.0, 127.5, 510.0]]))
    >>> codes.tolist(), scales.tolist()
    ([[0, 64, 255]], [2.0])
    """
    weights = attention_map.astype(np.float64)
    scales = (weights.max(axis=1) / 255).astype(np.float32)
    # A row of zeros has scale 0, and codes 0 by any other.
    steps = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    return np.rint(weights / steps).clip(0, 255).astype(np.uint8), scales


def packed_map(attention_map: np.ndarray) -> str:
    """Returns a map as the page reads it: scales, entropies (both little-endian float32), codes; deflated, in base64.

    Args:
        attention_map: `[N, M]`, floating; rows that sum to 1.

    Raises:
        NonFiniteError: when it holds what is no number.
    """
    if not np.isfinite(attention_map).all():
        raise NonFiniteError("An attention map holds what is no number: the network has diverged.")
    codes, scales = quantize_rows(attention_map)
    entropies = np.asarray(attention_entropy(jnp.asarray(attention_map)))
    return _base64(zlib.compress(b"".join([*(_little(part) for part in (scales, entropies)), codes.tobytes()]), 9))


def _little(numbers: np.ndarray) -> bytes:
    return numbers.astype("<f4").tobytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(encoded, format="PNG", optimize=True)
    return encoded.getvalue()


def _written(sample: Sample) -> dict[str, Any]:
    frames = [
        {"image": _base64(_png(frame.image)), "maps": [packed_map(attention_map) for attention_map in frame.maps]}
        for frame in sample.frames
    ]
    return {"label": sample.label, "seed": sample.seed, "frames": frames}


def _template() -> Any:
    source = resources.files("sagan_jax.views").joinpath("explorer.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
