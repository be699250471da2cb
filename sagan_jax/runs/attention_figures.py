"""Figures of the attention maps of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource
from sagan_jax.data.decoding import MAX_FILE_BYTES, decode, unreadable_reason
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import (
    AttentionRecord,
    discriminator_attention,
    generator_attention,
    sows_attention,
)
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.runs.build import image_shape
from sagan_jax.runs.class_names import class_numbers
from sagan_jax.runs.load import CheckpointName, GenerationRun, open_run
from sagan_jax.runtime.files import read_regular, write_atomically
from sagan_jax.runtime.metrics_log import read_metrics
from sagan_jax.views.attention import Panel, attention_figure, history_figure, spread_figure
from sagan_jax.views.curves import format_value
from sagan_jax.views.figures import encode_figure

Position = tuple[float, float]
"""x and y in pixels."""


def draw_attention(
    workdir: Path,
    out: Path,
    *,
    num_images: int = 4,
    image: Path | None = None,
    queries: Sequence[Position] = (),
    num_queries: int = 5,
    classes: Sequence[int | str] = (),
    source: str = "",
    seed: int = 0,
    checkpoint: CheckpointName = "newest",
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Draws the attention maps of the networks of a run, and returns the PNG files. Each has an SVG file beside it.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: the folder for the figures.
        num_images: number of generated images for G, and of real images for D.
        image: an image file for D instead of real images. G is then left out.
        queries: x and y of query positions, in pixels. Defaults to the most informative ones of the finest layer.
        num_queries: number of query positions to choose, if `queries` is empty.
        classes: the numbers or names of the classes to generate, in turn. Defaults to all.
        source: where the training images are. Defaults to the source in the config.
        seed: seed of the latents, and of the choice of real images.
        checkpoint: `newest`, `best` (the best score), or the step of a checkpoint.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: the run has no attention layer or no checkpoint, a position lies outside the image, a file is
            not an image, or the generator returns NaN.
        StorageError: a file cannot be written.
    """
    run = open_run(workdir, checkpoint=checkpoint, source=source, trust_checkpoint=trust_checkpoint)
    resolution = run.experiment.networks.resolution
    _check_queries(queries, resolution)
    records = _records(run, num_images, image, class_numbers(run, classes), seed)
    figures = {
        f"{network}-{number}": _figure(record, number, queries, num_queries)
        for network, record in records.items()
        for number in range(len(record.images))
    }
    figures["reach"] = spread_figure(
        {
            layer.name.replace("_", " "): layer.spread(resolution)
            for record in records.values()
            for layer in record.layers
        }
    )
    figures["history"] = history_figure(read_metrics(workdir / "metrics.jsonl").curves)
    return _write_figures(out, figures)


def draw_record(record: AttentionRecord, out: Path) -> None:
    """Draws the attention of one network in the first image, as `generator.png` or `discriminator.png`.

    Args:
        record: the attention of a network with at least one attention layer.
        out: the folder for the figure.

    Raises:
        StorageError: a file cannot be written.
    """
    path = record_path(out, record.layers[0].network)
    write_atomically(path, encode_figure(_figure(record, 0, (), 5), "png"))


def record_path(out: Path, network: str) -> Path:
    """Returns where `draw_record` draws the attention of a network."""
    return out / f"{network}.png"


def no_attention_error(workdir: Path) -> InvalidInputError:
    """Returns the error for a run that has no attention layer."""
    return InvalidInputError(
        f"The run in {str(workdir)!r} has no attention map to show: it was trained without attention, or with a layer "
        f"that has no map (--attention residual, squeeze_excite or none, or a layer of yours that sows none)."
    )


def _check_queries(queries: Sequence[Position], resolution: int) -> None:
    for x, y in queries:
        if not (0 <= x < resolution and 0 <= y < resolution):
            raise InvalidInputError(
                f"--queries needs positions inside the image, whose sides are {resolution} pixels; got {x:g},{y:g}."
            )


def _records(
    run: GenerationRun, num_images: int, image: Path | None, classes: Sequence[int], seed: int
) -> dict[str, AttentionRecord]:
    """Returns the attention of G in generated images, and of D in real images or in `image`."""
    records = {}
    given = _read_image(image, run.experiment) if image else None  # first, because compiling the networks takes long
    generator, discriminator = run.generator(), run.discriminator()
    if given and discriminator is None:
        raise InvalidInputError(f"--image needs a discriminator; the weights in {str(run.workdir)!r} came without one.")
    wanted = None
    if discriminator and sows_attention(discriminator.discriminator, image_shape(run.experiment)):  # reads no images
        wanted = given or _choose_images(run.images(), num_images, seed)
    if given is None:
        records["generator"] = _generated(generator, num_images, classes, seed)
    if discriminator and wanted:
        records["discriminator"] = discriminator_attention(discriminator, *wanted)
    records = {network: record for network, record in records.items() if record.layers}
    if not records:
        raise no_attention_error(run.workdir)
    return records


def _generated(generator: TrainedGenerator, count: int, classes: Sequence[int], seed: int) -> AttentionRecord:
    labels = np.resize(generator.classes(classes or None), count).astype(np.int32)
    return generator_attention(generator, generator.latents(jax.random.key(seed), np.arange(count)), labels)


def _read_image(path: Path, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    networks = experiment.networks
    try:
        image, _ = decode(read_regular(path, MAX_FILE_BYTES), networks.resolution, networks.image_channels)
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
        raise InvalidInputError(
            f"--image needs an image file, such as PNG, JPEG or WebP; {str(path)!r} cannot be read as one: "
            f"{unreadable_reason(error)}."
        ) from error
    return image[None], np.zeros(1, np.int32)


def _choose_images(images: ImageSource, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    read = [images[int(index)] for index in chosen]
    return np.stack([image for image, _ in read]), np.array([label for _, label in read], np.int32)


def _figure(record: AttentionRecord, number: int, queries: Sequence[Position], num_queries: int) -> Figure:
    """Returns the figure of one image: the attention of the query positions in every layer."""
    image = record.images[number]
    resolution = image.shape[0]
    queries = queries or _informative_positions(record, number, num_queries)
    panels = []
    for layer in record.layers:
        rows = [_query_index(position, layer.resolution, resolution) for position in queries]
        weights = layer.rows(number, rows).reshape(len(rows), *layer.key_shape)
        gamma = "" if layer.gamma is None else f", γ {format_value(layer.gamma)}"
        panels.append(Panel(f"{layer.network[0].upper()} at {layer.resolution}×{layer.resolution}{gamma}", weights))
    return attention_figure(image, queries, panels)


def _informative_positions(record: AttentionRecord, number: int, count: int) -> list[Position]:
    """Returns the most informative positions of one image in the finest layer, in pixels."""
    finest = max(record.layers, key=lambda layer: layer.resolution)
    rows = finest.informative_queries(number, count)
    return [_query_centre(row, finest.resolution, record.images.shape[1]) for row in rows]


def _query_index(position: Position, side: int, resolution: int) -> int:
    """Returns the index of the query that covers a pixel, in a map of `side` x `side` queries."""
    x, y = (int(part * side / resolution) for part in position)
    return y * side + x


def _query_centre(index: int, side: int, resolution: int) -> Position:
    """Returns the centre of a query position, in pixels."""
    return (index % side + 0.5) * resolution / side, (index // side + 0.5) * resolution / side


def _write_figures(out: Path, figures: Mapping[str, Figure]) -> list[Path]:
    for name, figure in figures.items():
        write_atomically(out / f"{name}.png", encode_figure(figure, "png"))
        write_atomically(out / f"{name}.svg", encode_figure(figure, "svg"))
    return [out / f"{name}.png" for name in figures]
