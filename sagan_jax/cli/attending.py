"""The figures of where a run looks."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from sagan_jax.cli.checks import require_experiment
from sagan_jax.cli.wiring import CheckpointName, load_networks, open_data
from sagan_jax.config import Experiment
from sagan_jax.data.decoding import decode, why_unreadable
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import AttentionRecord, discriminator_attention, generator_attention
from sagan_jax.functional import informative_queries
from sagan_jax.runtime.files import write_atomically
from sagan_jax.views.attention import Panel, attention_figure, history_figure, spread_figure

Position = tuple[float, float]


def draw_attention(
    workdir: Path,
    out: Path,
    *,
    num_images: int = 4,
    image: Path | None = None,
    queries: Sequence[Position] = (),
    num_queries: int = 5,
    classes: Sequence[int] = (),
    source: str = "",
    seed: int = 0,
    checkpoint: CheckpointName = "newest",
) -> list[Path]:
    """Draws where the networks of a run look, and returns the PNG files; each has an SVG beside it.

    Args:
        workdir: of a run that has saved.
        out: the folder for the pictures.
        num_images: how many generated ones for G, and how many real ones for D.
        image: a picture for D instead of real ones; G is left out then.
        queries: x and y of positions, in pixels; those that say most in the finest layer unless given.
        num_queries: how many are chosen.
        classes: to generate, in turn; all unless given.
        source: where the images of the run lie, unless they are where the config says.
        seed: of latents, and of which real images are taken.
        checkpoint: the newest, or the one with the best score.

    Raises:
        InvalidInputError: no attention layer, no checkpoint, a position outside the image, or a file that is no image.
        StorageError: the disk refused.
    """
    experiment = require_experiment(workdir)
    resolution = experiment.networks.resolution
    for x, y in queries:
        if not (0 <= x < resolution and 0 <= y < resolution):
            raise InvalidInputError(
                f"--queries needs positions inside the image, whose sides are {resolution} pixels; got {x:g},{y:g}."
            )
    looks: dict[str, AttentionRecord] = {}
    trained, discriminator = load_networks(workdir, checkpoint=checkpoint)
    if image is None:
        labels = np.resize(trained.classes(classes or None), num_images).astype(np.int32)
        looks["generator"] = generator_attention(
            trained, trained.latents(jax.random.key(seed), np.arange(num_images)), labels
        )
    elif discriminator is None:
        raise InvalidInputError(
            f"--image needs a discriminator to look at it; the weights in {str(workdir)!r} came without one."
        )
    if discriminator and discriminator_has_attention(experiment):
        images, labels = _own(image, experiment) if image else _real(experiment, source, num_images, seed)
        looks["discriminator"] = discriminator_attention(discriminator, images, labels)
    looks = {network: seen for network, seen in looks.items() if seen.layers}
    if not looks:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} has no attention layer to look at: it was trained without, or with "
            f"--attention residual."
        )
    figures = {}
    for network, seen in looks.items():
        for number in range(len(seen.images)):
            figures[f"{network}-{number}"] = _figure(seen, number, queries, num_queries)
    figures["reach"] = spread_figure(
        {layer.name.replace("_", " "): layer.spread(resolution) for seen in looks.values() for layer in seen.layers}
    )
    figures["history"] = history_figure(_metrics(workdir))
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            write_atomically(out / f"{name}.{kind}", encoded(figure, kind))
    return [out / f"{name}.png" for name in figures]


def draw_record(looks: AttentionRecord, out: Path) -> None:
    """Draws where one network of a run looks in the first of some images, as `generator.png` or `discriminator.png`.

    Args:
        looks: with at least one layer.
        out: the folder for the picture.

    Raises:
        StorageError: the disk refused.
    """
    write_atomically(out / f"{looks.layers[0].network}.png", encoded(_figure(looks, 0, (), 5), "png"))


def discriminator_has_attention(experiment: Experiment) -> bool:
    """Tells whether D has an attention layer, without building it."""
    networks = experiment.networks
    return networks.attention != "residual" and bool(networks.discriminator_attention_resolutions)


def _own(path: Path, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    networks = experiment.networks
    try:
        image, _ = decode(path.read_bytes(), networks.resolution, networks.image_channels)
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
        raise InvalidInputError(
            f"--image needs a PNG, JPEG or WebP file; {str(path)!r} cannot be read as one: {why_unreadable(error)}."
        ) from error
    return image[None], np.zeros(1, np.int32)


def _real(experiment: Experiment, source: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    data = dataclasses.replace(experiment.data, source=source or experiment.data.source)
    images = open_data(dataclasses.replace(experiment, data=data))
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    read = [images[int(index)] for index in chosen]
    return np.stack([image for image, _ in read]), np.array([label for _, label in read], np.int32)


def _figure(seen: AttentionRecord, number: int, queries: Sequence[Position], num_queries: int) -> Figure:
    """Returns the figure of one image: the chosen positions in every layer."""
    image = seen.images[number]
    resolution = image.shape[0]
    finest = max(seen.layers, key=lambda layer: layer.resolution)
    if not queries:
        rows = informative_queries(
            jnp.asarray(finest.attention_map[number]),
            num_queries,
            query_shape=finest.query_shape,
            key_shape=finest.key_shape,
        )
        queries = [_centre(int(row), finest.resolution, resolution) for row in rows]
    panels = []
    for layer in seen.layers:
        rows = [_row(position, layer.resolution, resolution) for position in queries]
        weights = layer.attention_map[number, rows].reshape(len(rows), *layer.key_shape)
        title = f"{layer.network[0].upper()} at {layer.resolution}×{layer.resolution}, γ {layer.gamma:.2f}"
        panels.append(Panel(title, weights))
    return attention_figure(image, queries, panels)


def _row(position: Position, side: int, resolution: int) -> int:
    """Returns the place of a pixel's position in a map of `side` x `side` queries."""
    x, y = (int(part * side / resolution) for part in position)
    return y * side + x


def _centre(row: int, side: int, resolution: int) -> Position:
    """Returns the middle of a query position, in pixels."""
    return (row % side + 0.5) * resolution / side, (row // side + 0.5) * resolution / side


def _metrics(workdir: Path) -> list[dict[str, float]]:
    """Returns the lines of `metrics.jsonl` that can be read."""
    found = []
    path = workdir / "metrics.jsonl"
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            document = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if isinstance(document, dict) and "step" in document:
            found.append(document)
    return found


def encoded(figure: Figure, kind: str) -> bytes:
    """Returns a figure as the content of a `png` or `svg` file."""
    content = io.BytesIO()
    # Without the date the same figure is the same file.
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(content, format=kind, dpi=160, metadata=metadata)
    return content.getvalue()
