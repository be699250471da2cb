"""The job of a run that generates images: a generator trained against a discriminator."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sagan_jax.config import Experiment, Networks
from sagan_jax.data import training_batches
from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import attention_records, sows_attention
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.partners import partner_attention
from sagan_jax.models.layers import attention_parameter_count, residual_parameter_count, residual_width
from sagan_jax.runs.build import (
    balanced_by,
    build_adversarial_task,
    class_lines,
    image_shape,
    open_labelled_images,
    trained_discriminator,
    trained_generator,
)
from sagan_jax.runs.diversity import Diversity
from sagan_jax.runs.families import attention_channels, attention_names
from sagan_jax.runs.health import Health
from sagan_jax.runs.load import open_run
from sagan_jax.runs.resume import check_same_sizes
from sagan_jax.runs.samples import sample_grid
from sagan_jax.runs.saved_config import source_digests
from sagan_jax.runs.score_monitor import ScoreMonitor
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime.metrics_log import MetricsWriter, image_path
from sagan_jax.runtime.processes import is_main_process
from sagan_jax.training.adversarial import FINITE_METRICS, AdversarialState, Batch, initial_state, step
from sagan_jax.training.warm_start import warm_start


class _Pretrained(NamedTuple):
    """The part of an earlier run that a new run starts from."""

    workdir: Path
    state: AdversarialState
    has_discriminator: bool


class GenerationJob:
    """A generator against a discriminator; see `sagan_jax.runs.training_job.TrainingJob`.

    Args:
        experiment: a config that `check` accepts.
        workdir: the folder of the run; score files are written there.

    Raises:
        InvalidInputError: the data or a protocol contradict the config.
    """

    check = staticmethod(check_config)
    finite_metrics: Sequence[str] = FINITE_METRICS
    constants: Sequence[Any] = ()

    def __init__(self, experiment: Experiment, workdir: Path) -> None:
        training = experiment.training
        self.experiment = experiment
        self._pretrained: _Pretrained | None = None
        self.source = open_labelled_images(experiment, decoding=experiment.data.decoding)
        self._balanced_by = balanced_by(experiment, self.source)
        self.score_monitor = None
        if experiment.evaluation.protocols:
            exact = self.source if experiment.data.decoding == "exact" else open_labelled_images(experiment)
            self.score_monitor = ScoreMonitor(experiment, workdir, exact)
        self.code = source_digests(experiment, data=True)  # after the images, whose error names a missing file better
        loss = training.loss if isinstance(training.loss, str) else ""  # a pair: two functions of a user
        self.health = Health(loss, self.score_monitor.best_by if self.score_monitor else None)
        self._diversity = Diversity(self.source)
        self.task = build_adversarial_task(experiment)
        self.step = partial(step, self.task)
        self.images_per_step = training.batch_size * training.discriminator_steps

    def initial_state(self) -> AdversarialState:
        """Returns the state of randomly initialised networks."""
        return initial_state(self.task, self.experiment.training.seed, image_shape(self.experiment))

    def open_pretrained(self) -> None:
        """Reads the run in `init_from`, if there is one; see `sagan_jax.runs.training_job.TrainingJob`."""
        init_from = self.experiment.training.init_from
        if init_from:
            check_same_sizes(Path(init_from), self.experiment.networks)
            pretrained = open_run(init_from)
            self._pretrained = _Pretrained(pretrained.workdir, pretrained.state, pretrained.has_discriminator)

    def warm_start(self, state: AdversarialState) -> AdversarialState:
        """Returns the state at step 0, with the networks of the run in `init_from` if there is one."""
        if not self._pretrained:
            self.open_pretrained()
        pretrained, self._pretrained = self._pretrained, None  # so that its arrays are freed
        if not pretrained:
            return state
        state, fresh = warm_start(state, pretrained.state, discriminator=pretrained.has_discriminator)
        if is_main_process():
            print(f"starting from step {int(pretrained.state.step)} of {pretrained.workdir}", flush=True)
            for network in ("generator", "discriminator"):
                names = fresh.get(network, ["all of it"])
                if names:
                    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                    print(f"reinitialised in the {network}: {', '.join(names[:3])}{more}", flush=True)
        return state

    def batches(self, first_step: int, first_image: int | None = None) -> Iterator[Batch]:
        """Returns this process's share of the data of each step from `first_step` on."""
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
            first_image=first_image,
            balanced_by=self._balanced_by,
        )
        return map(Batch._make, batches)

    def draw(self, state: AdversarialState, done: int, writer: MetricsWriter, workdir: Path) -> None:
        """Draws a grid of samples and the attention of both networks, and records statistics of their maps."""
        from sagan_jax.runs.attention_figures import draw_record  # matplotlib is not needed before the first step

        generator = trained_generator(self.task, state)
        for record in attention_records(generator, trained_discriminator(self.task, state), self.source):
            draw_record(record, workdir / "attention")
            writer.scalars(done, record.statistics())
            if isinstance(self.source.rule, Pairs):
                writer.scalars(done, partner_attention(record, self.source.rule))
        writer.image("samples", done, sample_grid(generator))

    def is_drawn(self, done: int, recorded: Mapping[str, float], workdir: Path) -> bool:
        """Returns whether the grid, the figures of attention and the statistics of a step are recorded."""
        from sagan_jax.runs.attention_figures import record_path

        inputs = {"generator": (self.task.latent_size,), "discriminator": image_shape(self.experiment)}
        wanted = [name for name, shape in inputs.items() if sows_attention(getattr(self.task, name), shape)]
        return image_path(workdir, "samples", done).is_file() and all(
            record_path(workdir / "attention", name).is_file()
            and any(metric.startswith(f"{name}/attention_") for metric in recorded)
            for name in wanted
        )

    def variety(self, state: AdversarialState) -> dict[str, float]:
        """Returns `health/diversity`, if the training images of a class differ."""
        diversity = self._diversity
        return {"health/diversity": diversity.of(self.trained(state))} if diversity.of_real_images else {}

    def trained(self, state: AdversarialState, raw: bool = False) -> TrainedGenerator:
        """Returns the generator, ready to sample from."""
        return trained_generator(self.task, state, raw)

    def parameter_counts(self, state: AdversarialState) -> str:
        """Returns the number of parameters of each network, as text."""
        generator, discriminator = (
            sum(leaf.size for leaf in jax.tree.leaves(network.params))
            for network in (state.generator, state.discriminator)
        )
        return f"{generator:,} parameters in G, {discriminator:,} in D"

    def remarks(self) -> Iterator[str]:
        """Yields the classes of the images, and the parameter counts of a residual control that replaces attention."""
        networks = self.experiment.networks
        yield from class_lines(self.source, self.experiment.data.source, networks.num_classes)
        yield from _residual_summary(networks)


def _residual_summary(networks: Networks) -> Iterator[str]:
    names = attention_names(networks)
    for network, channels_at in zip(names, attention_channels(networks), strict=True):
        if names[network][0] == "residual":
            for size in getattr(networks, f"{network}_attention_resolutions"):
                yield residual_summary(f"residual control in {network[0].upper()} at {size}", channels_at[size])


def residual_summary(name: str, channels: int) -> str:
    """Returns a line with widths and parameters of a residual control, and those of the attention it replaces."""
    width = residual_width(channels)
    return (
        f"{name}: {channels} -> {width} -> {channels} channels, {residual_parameter_count(channels, width):,} "
        f"parameters for attention's {attention_parameter_count(channels):,}"
    )
