"""`sagan-jax explore`: one HTML file in which a person moves over images and sees where the attention looks."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a page on which you see live where each position of an image looks, in every attention layer of G and D.

    One file that needs no network. A sample is a class and a seed; a slider leads from its latent z1 to another, z2, of
    the same seed.
    """

    workdir: Path
    """the run's folder"""
    out: Path
    """a .html file"""
    num_samples: int | None = None
    """20 unless given, or every class with each of --seeds; all classes with the first seed come first"""
    seeds: tuple[int, ...] = ()
    """from 0 up unless given"""
    classes: tuple[int, ...] = ()
    """all of them unless given"""
    steps: int = 5
    """images from z1 to z2, both among them; 1 for no way to go, and more samples in the same room"""
    budget_mb: float = 10.0
    """the file's largest size; samples that do not fit are left out, and the page says how many"""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: the one with the best score, where the run was scored while it trained"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax explore")
    if parsed.out.suffix.lower() not in (".html", ".htm") or parsed.out.is_dir():
        raise InvalidInputError(f"--out needs a .html file; got {str(parsed.out)!r}, which is of another kind.")
    for flag, number in (("num-samples", parsed.num_samples), ("steps", parsed.steps)):
        if number is not None and number < 1:
            raise InvalidInputError(f"--{flag} needs to be at least 1; got {number}.")
    for seed in parsed.seeds:
        if not 0 <= seed < 2**32:
            raise InvalidInputError(f"--seeds needs numbers in [0, 2**32); got {seed}.")
    if not (math.isfinite(parsed.budget_mb) and parsed.budget_mb > 0):
        raise InvalidInputError(f"--budget-mb needs to be a number above 0; got {parsed.budget_mb}.")
    import jax
    import numpy as np

    from sagan_jax.cli import wiring
    from sagan_jax.evaluation.attention import AttentionRecord, discriminator_attention, generator_attention
    from sagan_jax.evaluation.interpolation import slerp
    from sagan_jax.runtime.files import write_atomically
    from sagan_jax.views.explorer import Frame, Layer, Sample, explorer_page

    trained, discriminator = wiring.load_networks(parsed.workdir, checkpoint=parsed.checkpoint)
    classes = list(dict.fromkeys(int(label) for label in trained.classes(parsed.classes)))
    num_samples = parsed.num_samples or 20
    seeds = list(dict.fromkeys(parsed.seeds)) or range(-(-num_samples // len(classes)))
    wanted = [(label, seed) for seed in seeds for label in classes]
    if parsed.num_samples or not parsed.seeds:
        wanted = wanted[:num_samples]

    def looks(label: int, seed: int) -> list[AttentionRecord]:
        """Returns where G and D looked from z1 to z2, the images 0 and 1 that `sagan-jax sample` draws of the seed."""
        ends = np.asarray(trained.latents(jax.random.key(seed), np.arange(2)), np.float64)
        latents = slerp(ends[:1], ends[1:], np.linspace(0, 1, parsed.steps))[0].astype(np.float32)
        labels = np.full(parsed.steps, label, np.int32)
        seen = generator_attention(trained, latents, labels)
        return [seen, *([discriminator_attention(discriminator, seen.images, labels)] if discriminator else [])]

    def sample(label: int, seed: int) -> Sample:
        seen = looks(label, seed)
        maps = [layer.attention_map for network in seen for layer in network.layers]
        frames = [Frame(image, [of_layer[step] for of_layer in maps]) for step, image in enumerate(seen[0].images)]
        return Sample(label if trained.num_classes else None, seed, frames)

    def samples() -> Iterator[Sample]:
        yield from (sample(label, seed) for label, seed in wanted)

    layers = [
        Layer(layer.network, layer.query_shape, layer.key_shape, layer.gamma)
        for network in looks(*wanted[0])
        for layer in network.layers
    ]
    if not layers:
        raise InvalidInputError(
            f"The run in {str(parsed.workdir)!r} has no attention layer to look at: it was trained without, or with "
            f"--attention residual."
        )
    name = parsed.workdir.resolve().name
    weights = "moving average of the weights" if trained.averaged else "weights as trained"
    page = explorer_page(
        samples(),
        layers,
        asked=len(wanted),
        title=name,
        facts=[f"step {trained.step:,}", f"{weights}"],
        budget=int(parsed.budget_mb * 1e6),
    )
    write_atomically(parsed.out, page.content)
    left_out = f" ({len(wanted) - page.num_samples} did not fit)" if page.num_samples < len(wanted) else ""
    print(f"{page.num_samples} samples{left_out} in {parsed.out}, {len(page.content) / 1e6:.1f} MB")
