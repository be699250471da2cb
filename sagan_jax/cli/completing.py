"""The task of completing images: what a run that learns to fill holes is made of."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

from sagan_jax.cli.checks import check_fields, check_hole_kind, require_completion
from sagan_jax.cli.wiring import open_images
from sagan_jax.config import CompletionExperiment
from sagan_jax.data import training_batches
from sagan_jax.data.masks import draw_masks
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.likeness import completion_scores
from sagan_jax.models.completion import CompletionNetwork, completion_resolutions
from sagan_jax.models.layers import attention_parameters, residual_parameters, residual_width
from sagan_jax.models.sagan import Discriminator
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.metrics_log import MetricsWriter
from sagan_jax.training.completion import (
    CompletionBatch,
    CompletionState,
    CompletionTask,
    initial_state,
    step,
)
from sagan_jax.training.optimizers import muon
from sagan_jax.views.figures import completion_sheet

_SHOWN = 8  # images of a sheet while a run trains
_MEASURED = 200  # unseen images whose completions are measured while a run trains


class Completion:
    """A network that learns to fill holes; see `sagan_jax.cli.running.Task`.

    Args:
        experiment: one that `check` takes.
        workdir: of the run.

    Raises:
        InvalidInputError: the data do not go with the config.
    """

    watch = None

    def __init__(self, experiment: CompletionExperiment, workdir: Path) -> None:
        del workdir
        self.experiment = experiment
        self.source = open_images(experiment)
        self.held_out = open_images(experiment, held_out=True) if experiment.data.held_out else None
        self.rules = build_completion_task(experiment)
        self.step = partial(step, self.rules)
        self.guarded: Sequence[str] = self.rules.guarded
        self.images_per_step = experiment.training.batch_size

    @staticmethod
    def check(experiment: CompletionExperiment) -> None:
        """Raises InvalidInputError for the first thing that cannot be."""
        check_fields(experiment)
        networks, training = experiment.networks, experiment.training
        check_hole_kind(training.holes)
        if training.adversarial_weight and not networks.discriminator_base_channels:
            raise InvalidInputError(
                f"--adversarial-weight {training.adversarial_weight} needs a discriminator: "
                f"--discriminator-base-channels of at least 1; got 0."
            )
        places = completion_resolutions(networks.resolution)
        for size in networks.attention_resolutions:
            if size not in places:
                raise InvalidInputError(
                    f"--attention-resolutions: the {networks.resolution}-pixel network has no feature map of {size}; "
                    f"it can be any of {', '.join(map(str, sorted(places)))}."
                )

    def initial_state(self) -> CompletionState:
        """Returns the state of networks that were made at random."""
        return initial_state(self.rules, self.experiment.training.seed)

    def begin(self, state: CompletionState) -> CompletionState:
        """Returns the state as it is: nothing else to start from."""
        return state

    def batches(self, first_step: int) -> Iterator[CompletionBatch]:
        """Yields this process's share of the data of each step to come.

        Holes and flips are functions of the seed and of an image's place in the endless order of all, so neither the
        number of processes nor where a run is taken up again changes them.
        """
        training, size = self.experiment.training, self.experiment.networks.resolution
        process, processes = jax.process_index(), jax.process_count()
        batches = training_batches(
            self.source,
            batch_size=training.batch_size,
            discriminator_steps=1,
            seed=training.seed,
            first_step=first_step,
            total_steps=training.total_steps,
            process_index=process,
            process_count=processes,
        )
        part = training.batch_size // processes
        for number, (images, _) in enumerate(batches, start=first_step):
            first = number * training.batch_size + process * part
            masks = draw_masks(training.holes, size, size, seed=training.seed, indices=range(first, first + part))
            if training.flips:
                drawn = np.random.default_rng([training.seed, 1, number]).random(training.batch_size) < 0.5
                flipped = drawn[process * part :][:part, None, None, None]
                images = np.where(flipped, images[0, :, :, ::-1], images[0])[None]
            yield CompletionBatch(images, masks[None])

    def draw(self, state: CompletionState, done: int, recorder: MetricsWriter, workdir: Path) -> None:
        """Records a sheet: images with holes, their completions and what was hidden; unseen images, where there are.

        Of unseen ones the likeness inside the hole is recorded too, of the kind of holes that the run trains on.
        """
        del workdir
        training, size = self.experiment.training, self.experiment.networks.resolution
        completer, shown = self.trained(state), self.held_out or self.source
        chosen = np.random.default_rng(0).permutation(len(shown))[:_SHOWN]
        images = np.stack([shown[int(index)][0] for index in chosen])
        masks = draw_masks(training.holes, size, size, seed=2**31, indices=range(len(images)))
        recorder.image("samples", done, sheet_of(completer, images, masks))
        if self.held_out:
            count = min(_MEASURED, len(self.held_out))
            scores = completion_scores(completer, self.held_out, training.holes, num_images=count, samples=0)
            recorder.scalars(done, {f"held_out/{name}": float(scores[name].mean()) for name in ("psnr", "l1", "ssim")})

    def trained(self, state: CompletionState, raw: bool = False) -> TrainedCompleter:
        """Returns the network, ready to fill holes."""
        return trained_completer(self.rules, state, raw)

    def parameters(self, state: CompletionState) -> str:
        """Returns how many parameters each network has, for a person."""
        counts = {
            name: sum(leaf.size for leaf in jax.tree.leaves(part["params"]))
            for name, part in (
                ("the network", {"params": state.network.params}),
                ("D", {"params": getattr(state.discriminator, "params", {})}),
            )
        }
        return ", ".join(f"{count:,} parameters in {name}" for name, count in counts.items() if count)

    def remarks(self) -> Iterator[str]:
        """Yields what the residual control has for parameters, where it sits in the place of attention."""
        networks = self.experiment.networks
        if networks.attention == "residual":
            for size in networks.attention_resolutions:
                channels = channels_of(networks.base_channels, size)
                width = residual_width(channels)
                yield (
                    f"residual control at {size}: {channels} -> {width} -> {channels} channels, "
                    f"{residual_parameters(channels, width):,} parameters for attention's "
                    f"{attention_parameters(channels):,}"
                )


def build_completion_task(experiment: CompletionExperiment) -> CompletionTask:
    """Returns the fixed part of the training that a config describes."""
    networks, training = experiment.networks, experiment.training
    highest, warmup = training.learning_rate, min(training.warmup_steps, training.total_steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, highest, warmup, training.total_steps, 0.01 * highest)
    optimizer = (
        muon(rate, beta1=training.adam_beta1, beta2=training.adam_beta2)
        if training.optimizer == "muon"
        else optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(rate, b1=training.adam_beta1, b2=training.adam_beta2)
        )
    )
    judged = training.adversarial_weight > 0
    return CompletionTask(
        CompletionNetwork(
            networks.resolution,
            networks.image_channels,
            networks.base_channels,
            networks.latent_size,
            networks.attention_resolutions,
            networks.attention,
            networks.blocks,
            networks.skips,
        ),
        optimizer,
        reconstruction=training.reconstruction,
        visible_weight=training.visible_weight,
        kl_weight=training.kl_weight,
        kl_warmup_steps=training.kl_warmup_steps,
        free_bits=training.free_bits,
        discriminator=Discriminator(
            networks.resolution, 0, networks.discriminator_base_channels, attention_resolutions=()
        )
        if judged
        else None,
        discriminator_optimizer=optax.adam(training.discriminator_learning_rate, b1=0.0, b2=0.9) if judged else None,
        adversarial_weight=training.adversarial_weight,
        average_decay=training.ema_decay,
    )


def trained_completer(rules: CompletionTask, state: CompletionState, raw: bool = False) -> TrainedCompleter:
    """Returns the network as it completes: the moving average where there is one and `raw` does not say otherwise."""
    state = jax.device_get(state)
    averaged = bool(state.average) and not raw
    return TrainedCompleter(
        rules.network, state.average if averaged else state.network.params, int(state.step), averaged
    )


def load_completer(workdir: str | Path, *, raw: bool = False) -> TrainedCompleter:
    """Returns the network of a run that completes images.

    Args:
        workdir: of a run that has saved.
        raw: the weights as trained, even where there is a moving average.

    Raises:
        InvalidInputError: when there is no such run, or no whole checkpoint in it.
    """
    experiment = require_completion(Path(workdir))
    rules = build_completion_task(experiment)
    template = jax.eval_shape(lambda: initial_state(rules, experiment.training.seed))
    with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
        restored = checkpoints.restore(template)
    if restored is None:
        raise InvalidInputError(f"The run in {str(workdir)!r} has no checkpoint yet.")
    return trained_completer(rules, restored[1], raw)


def sheet_of(completer: TrainedCompleter, images: np.ndarray, masks: np.ndarray, samples: int = 2) -> np.ndarray:
    """Returns a picture with a row an image: with its hole, completed, sampled completions, and what was hidden."""
    drawn = completer.sample(images, masks, samples) if samples else np.zeros((0, *images.shape), np.uint8)
    return completion_sheet(images, masks, [completer.complete(images, masks), *drawn])


def channels_of(base_channels: int, size: int) -> int:
    """Returns the channels of a feature map of `size` positions a side."""
    from sagan_jax.models.completion import WIDTHS

    return base_channels * WIDTHS[size]
