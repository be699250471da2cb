"""The task of generating images: what a run of the adversarial game is made of."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from sagan_jax.cli.attending import draw_record
from sagan_jax.cli.checks import check_config, check_same_sizes
from sagan_jax.cli.families import attention_places
from sagan_jax.cli.scoring import ScoreMonitor
from sagan_jax.cli.wiring import (
    ABSENT,
    build_adversarial_task,
    load_state,
    open_data,
    sample_grid,
    trained_discriminator,
    trained_generator,
)
from sagan_jax.config import Experiment, Networks
from sagan_jax.data import training_batches
from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import attention_records
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.partners import partner_attention
from sagan_jax.models.layers import attention_parameters, residual_parameters, residual_width
from sagan_jax.runtime.metrics_log import MetricsWriter
from sagan_jax.runtime.processes import is_first
from sagan_jax.training.adversarial import GUARDED, AdversarialState, Batch, initial_state, step
from sagan_jax.training.warm_start import warm_start


class Generation:
    """A generator against a discriminator; see `sagan_jax.cli.running.Task`.

    Args:
        experiment: one that `check` takes.
        workdir: of the run; gets what its scores need.

    Raises:
        InvalidInputError: the data, the run to start from or a protocol do not go with the config.
    """

    check = staticmethod(check_config)
    guarded: Sequence[str] = GUARDED

    def __init__(self, experiment: Experiment, workdir: Path) -> None:
        training = experiment.training
        self.experiment = experiment
        if training.init_from:
            check_same_sizes(Path(training.init_from), experiment.networks)
        self.source = open_data(experiment)
        self.watch = ScoreMonitor(experiment, workdir, self.source) if experiment.evaluation.protocols else None
        self.game = build_adversarial_task(experiment)
        self.step = partial(step, self.game)
        self.images_per_step = training.batch_size * training.discriminator_steps

    def initial_state(self) -> AdversarialState:
        """Returns the state of networks that were made at random."""
        networks = self.experiment.networks
        shape = (networks.resolution, networks.resolution, networks.image_channels)
        return initial_state(self.game, self.experiment.training.seed, shape)

    def begin(self, state: AdversarialState) -> AdversarialState:
        """Returns the state before the first step, with the networks that the config starts from."""
        if not self.experiment.training.init_from:
            return state
        folder = Path(self.experiment.training.init_from)
        _, donor, meta = load_state(folder)
        state, fresh = warm_start(state, donor, discriminator=meta.get("discriminator") != ABSENT)
        if is_first():
            print(f"starting from step {int(donor.step)} of {folder}", flush=True)
            for network in ("generator", "discriminator"):
                names = fresh.get(network, ["all of it"])
                if names:
                    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                    print(f"starting anew in the {network}: {', '.join(names[:3])}{more}", flush=True)
        return state

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Returns this process's share of the data of each step to come."""
        training = self.experiment.training
        batches = training_batches(
            self.source,
            batch_size=training.batch_size,
            discriminator_steps=training.discriminator_steps,
            seed=training.seed,
            first_step=first_step,
            total_steps=training.total_steps,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return map(Batch._make, batches)

    def draw(self, state: AdversarialState, done: int, recorder: MetricsWriter, workdir: Path) -> None:
        """Draws a grid of samples and where both networks look, and records how far and how evenly."""
        generator = trained_generator(self.game, state)
        recorder.image("samples", done, sample_grid(generator))
        for looks in attention_records(generator, trained_discriminator(self.game, state), self.source):
            recorder.scalars(done, looks.statistics())
            if isinstance(self.source.rule, Pairs):
                recorder.scalars(done, partner_attention(looks, self.source.rule))
            draw_record(looks, workdir / "attention")

    def trained(self, state: AdversarialState, raw: bool = False) -> TrainedGenerator:
        """Returns the generator, ready to sample from."""
        return trained_generator(self.game, state, raw)

    def parameters(self, state: AdversarialState) -> str:
        """Returns how many parameters each network has, for a person."""

        def count(tree: Any) -> int:
            return sum(leaf.size for leaf in jax.tree.leaves(tree))

        generator, discriminator = count(state.generator.params), count(state.discriminator.params)
        return f"{generator:,} parameters in G, {discriminator:,} in D"

    def remarks(self) -> Iterator[str]:
        """Yields what the control of Table 1 has for parameters, where it sits in the place of attention."""
        if self.experiment.networks.attention == "residual":
            yield from _residual_summary(self.experiment.networks)


def _residual_summary(networks: Networks) -> Iterator[str]:
    """Yields what the control of Table 1 has for parameters where attention would sit."""
    wanted = networks.generator_attention_resolutions, networks.discriminator_attention_resolutions
    for network, sizes, places in zip("GD", wanted, attention_places(networks), strict=True):
        for size in sizes:
            channels = places[size]
            width = residual_width(channels)
            yield (
                f"residual control in {network} at {size}: {channels} -> {width} -> {channels} channels, "
                f"{residual_parameters(channels, width):,} parameters for attention's "
                f"{attention_parameters(channels):,}"
            )
