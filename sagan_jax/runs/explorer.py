"""The interactive attention page of a run."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from sagan_jax.evaluation.attention import (
    AttentionLayer,
    AttentionRecord,
    discriminator_attention,
    generator_attention,
)
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.interpolation import slerp
from sagan_jax.runs.attention_figures import no_attention_error
from sagan_jax.runs.class_names import class_numbers
from sagan_jax.runs.load import CheckpointName, open_run
from sagan_jax.runtime.files import write_atomically
from sagan_jax.views.explorer import Frame, Layer, Page, Sample, explorer_page

DEFAULT_SAMPLES = 20

LARGEST_MAP, LARGEST_COARSE_MAP = 2**22, 2**20
"""Largest number of entries of an attention map on the page, and of the coarse map that replaces a larger one."""


def write_explorer(
    workdir: Path,
    out: Path,
    *,
    num_samples: int | None = None,
    seeds: Sequence[int] = (),
    classes: Sequence[int | str] = (),
    steps: int = 5,
    budget: int = 10_000_000,
    checkpoint: CheckpointName = "newest",
    trust_checkpoint: bool = False,
) -> tuple[Page, int]:
    """Writes the page, and returns it with the number of samples that were requested.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: a .html file.
        num_samples: samples on the page, at least 1. Defaults to 20, or with `seeds` to every class with each seed.
        seeds: seeds of the latents. Defaults to 0, 1, 2, ...
        classes: the numbers or names of the classes. Defaults to all.
        steps: images from the first latent of a seed to its second one, at least 1.
        budget: the largest size of the page, in bytes. Samples that do not fit are left out.
        checkpoint: `newest`, `best` (the best score), or the step of a checkpoint.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: there is no run, no checkpoint, no attention layer, no such class or no room for a sample.
            Or the generator returns NaN.
        NonFiniteError: an attention map is not finite.
        StorageError: a file cannot be written.
    """
    run = open_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    explorer = _Explorer(run.generator(), run.discriminator(), steps)
    requested = _requested(explorer.generator.classes(class_numbers(run, classes)), num_samples, seeds)
    layers = explorer.layers(*requested[0])
    if not layers:
        raise no_attention_error(workdir)
    generator = explorer.generator
    page = explorer_page(
        (explorer.sample(label, seed) for label, seed in requested),
        [Layer(layer.network, *coarse_shapes(layer), layer.gamma) for layer in layers],
        num_requested=len(requested),
        title=workdir.resolve().name,
        facts=[
            f"step {generator.step:,}",
            "moving average of the weights" if generator.averaged else "weights as trained",
            *coarse_facts(layers),
        ],
        budget=budget,
    )
    write_atomically(out, page.content)
    return page, len(requested)


def coarse_step(layer: AttentionLayer) -> int:
    """Returns the side of the squares of positions that the page shows as one. It is 1 except for very large maps."""
    step = 1
    sides = (*layer.query_shape, *layer.key_shape)
    if math.prod(sides) > LARGEST_MAP:
        while math.prod(sides) > LARGEST_COARSE_MAP * step**4 and all(side % (2 * step) == 0 for side in sides):
            step *= 2
    return step


def coarse_shapes(layer: AttentionLayer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns height and width of the queries and of the keys that the page shows."""
    step = coarse_step(layer)
    (height, width), (key_height, key_width) = layer.query_shape, layer.key_shape
    return (height // step, width // step), (key_height // step, key_width // step)


def coarse_map(layer: AttentionLayer, number: int) -> np.ndarray:
    """Returns the map of one image as the page shows it.

    For a map above `LARGEST_MAP` entries, only the query in the middle of each square is kept, and the weights are
    summed over each square of keys. The result is `[queries, keys]`, floating.
    """
    step = coarse_step(layer)
    (rows, columns), keys = coarse_shapes(layer)
    y, x = np.mgrid[:rows, :columns] * step + step // 2
    weights = layer.rows(number, (y * layer.query_shape[1] + x).ravel())
    return weights.reshape(len(weights), keys[0], step, keys[1], step).sum(axis=(2, 4)).reshape(len(weights), -1)


def coarse_facts(layers: Sequence[AttentionLayer]) -> list[str]:
    """Returns a note for each layer whose map is too large for the page."""
    steps = [(layer, coarse_step(layer)) for layer in layers]
    return [
        f"{layer.network} at {layer.resolution}×{layer.resolution}: squares of {step}×{step} positions are shown as one"
        for layer, step in steps
        if step > 1
    ]


def _requested(classes: np.ndarray, num_samples: int | None, seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the class and the seed of each sample: all classes with the first seed come first."""
    labels = list(dict.fromkeys(map(int, classes)))
    count = num_samples or DEFAULT_SAMPLES
    chosen = list(dict.fromkeys(seeds)) or range(-(-count // len(labels)))
    pairs = [(label, seed) for seed in chosen for label in labels]
    return pairs[:count] if num_samples or not seeds else pairs


@dataclasses.dataclass(frozen=True)
class _Explorer:
    """Samples of a run with the attention of both networks."""

    generator: TrainedGenerator
    discriminator: TrainedDiscriminator | None
    steps: int

    def layers(self, label: int, seed: int) -> list[AttentionLayer]:
        """Returns the attention layers of both networks."""
        return [layer for record in self._records(label, seed) for layer in record.layers]

    def sample(self, label: int, seed: int) -> Sample:
        """Returns the images of a class and a seed, with the attention maps of all layers."""
        records = self._records(label, seed)
        layers = [layer for record in records for layer in record.layers]
        frames = [
            Frame(image, [coarse_map(layer, step) for layer in layers]) for step, image in enumerate(records[0].images)
        ]
        return Sample(label if self.generator.num_classes else None, seed, frames)

    def _records(self, label: int, seed: int) -> list[AttentionRecord]:
        """Returns the attention of G and D between the latents 0 and 1 of a seed, as `sagan-jax sample` draws them."""
        ends = np.asarray(self.generator.latents(jax.random.key(seed), np.arange(2)), np.float64)
        latents = slerp(ends[:1], ends[1:], np.linspace(0, 1, self.steps))[0].astype(np.float32)
        labels = np.full(self.steps, label, np.int32)
        records = [generator_attention(self.generator, latents, labels)]
        if self.discriminator:
            records.append(discriminator_attention(self.discriminator, records[0].images, labels))
        return records
