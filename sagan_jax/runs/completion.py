"""The job of a run that completes images: a network trained to fill holes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.config import CompletionExperiment
from sagan_jax.data import training_batches
from sagan_jax.data.masks import draw_masks
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.completion_quality import completion_scores
from sagan_jax.evaluation.lite0 import read_lite0
from sagan_jax.models.completion import WIDTHS
from sagan_jax.runs.build import balanced_by, build_completion_task, class_lines, open_images, trained_completer
from sagan_jax.runs.generation import residual_summary
from sagan_jax.runs.saved_config import source_digests
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime.metrics_log import MetricsWriter, image_path
from sagan_jax.training.completion import CompletionBatch, CompletionState, initial_state, step
from sagan_jax.views.figures import completion_sheet

_SHOWN = 8  # images on a sheet that is drawn while a run trains
_MEASURED = 200  # held-out images whose completions are measured while a run trains


class CompletionJob:
    """A network that learns to fill holes; see `sagan_jax.runs.training_job.TrainingJob`.

    Args:
        experiment: a config that `check` accepts.
        workdir: the folder of the run.

    Raises:
        InvalidInputError: the data contradict the config, or the network of the perceptual term is not installed.
    """

    score_monitor = None
    health = None

    def __init__(self, experiment: CompletionExperiment, workdir: Path) -> None:
        del workdir
        self.experiment = experiment
        self.source = open_images(experiment, decoding=experiment.data.decoding)
        self._balanced_by = balanced_by(experiment, self.source)
        self.held_out = open_images(experiment, held_out=True) if experiment.data.held_out else None
        self.code = source_digests(experiment, data=True)  # after the images, whose error names a missing file better
        self.task = build_completion_task(experiment)
        self.step = partial(step, self.task)
        self.finite_metrics: Sequence[str] = self.task.finite_metrics
        self.images_per_step = experiment.training.batch_size
        self.constants: Sequence[Any] = perceptual_variables(experiment)

    @staticmethod
    def check(experiment: CompletionExperiment) -> None:
        """Raises InvalidInputError for a value that is not possible here, before anything is written."""
        check_config(experiment)
        perceptual_variables(experiment)

    def initial_state(self) -> CompletionState:
        """Returns the state of randomly initialised networks."""
        return initial_state(self.task, self.experiment.training.seed)

    def open_pretrained(self) -> None:
        """Does nothing: a completion run starts from no other run."""

    def warm_start(self, state: CompletionState) -> CompletionState:
        """Returns the state unchanged: a completion run starts from no other run."""
        return state

    def batches(self, first_step: int, first_image: int | None = None) -> Iterator[CompletionBatch]:
        """Yields this process's share of the data of each step from `first_step` on.

        The hole of an image depends only on the seed and the image's index in the training order. Its flip depends only
        on the seed, the step and the index in the batch. So neither depends on the number of processes or on restarts.
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
            first_image=first_image,
            balanced_by=self._balanced_by,
        )
        before = 0 if first_image is None else first_image - first_step * training.batch_size
        part = training.batch_size // processes
        for number, (images, _) in enumerate(batches, start=first_step):
            first = before + number * training.batch_size + process * part
            masks = draw_masks(training.holes, size, size, seed=training.seed, indices=range(first, first + part))
            if training.flips:
                drawn = np.random.default_rng([training.seed, 1, number]).random(training.batch_size) < 0.5
                flipped = drawn[process * part :][:part, None, None, None]
                images = np.where(flipped, images[0, :, :, ::-1], images[0])[None]
            yield CompletionBatch(images, masks[None])

    def draw(self, state: CompletionState, done: int, writer: MetricsWriter, workdir: Path) -> None:
        """Records a sheet of images with holes, their completions and the originals.

        The images are held-out ones if there are any. For held-out images, PSNR, L1 and SSIM inside the hole are also
        recorded, for the kind of hole that the run trains with.
        """
        del workdir
        training, size = self.experiment.training, self.experiment.networks.resolution
        completer, shown = self.trained(state), self.held_out or self.source
        chosen = np.random.default_rng(0).permutation(len(shown))[:_SHOWN]
        images = np.stack([shown[int(index)][0] for index in chosen])
        masks = draw_masks(training.holes, size, size, seed=2**31, indices=range(len(images)))
        if self.held_out:
            count = min(_MEASURED, len(self.held_out))
            scores = completion_scores(completer, self.held_out, training.holes, num_images=count, samples=0)
            writer.scalars(done, {f"held_out/{name}": float(scores[name].mean()) for name in ("psnr", "l1", "ssim")})
        writer.image("samples", done, sample_sheet(completer, images, masks))

    def is_drawn(self, done: int, recorded: Mapping[str, float], workdir: Path) -> bool:
        """Returns whether the sheet and the similarities of a step are recorded."""
        measured = not self.held_out or any(name.startswith("held_out/") for name in recorded)
        return image_path(workdir, "samples", done).is_file() and measured

    def variety(self, state: CompletionState) -> dict[str, float]:
        """Returns nothing: variety is not measured for completions, which depend on their image."""
        del state
        return {}

    def trained(self, state: CompletionState, raw: bool = False) -> TrainedCompleter:
        """Returns the network, ready to fill holes."""
        return trained_completer(self.task, state, raw)

    def parameter_counts(self, state: CompletionState) -> str:
        """Returns the number of parameters of each network, as text."""
        params = {"the network": state.network.params, "D": getattr(state.discriminator, "params", {})}
        counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
        return ", ".join(f"{count:,} parameters in {name}" for name, count in counts.items() if count)

    def remarks(self) -> Iterator[str]:
        """Yields lines about the images, and the parameter counts of a residual control that replaces attention."""
        networks = self.experiment.networks
        yield from class_lines(self.source, self.experiment.data.source, 0)
        if networks.attention == "residual":
            for size in networks.attention_resolutions:
                yield residual_summary(f"residual control at {size}", networks.base_channels * WIDTHS[size])


def perceptual_variables(experiment: CompletionExperiment) -> tuple[Any, ...]:
    """Returns the variables of the network of the perceptual loss; an empty tuple without that loss.

    Raises:
        InvalidInputError: the package with these variables is not installed, or is damaged.
    """
    weight = experiment.training.perceptual_weight
    if not weight:
        return ()
    try:
        return (read_lite0().variables,)
    except InvalidInputError as error:
        raise InvalidInputError(f"--perceptual-weight {weight}: {error}") from error


def sample_sheet(completer: TrainedCompleter, images: np.ndarray, masks: np.ndarray, samples: int = 2) -> np.ndarray:
    """Returns one picture. A row shows an image with its hole, its completion, sampled completions and the original."""
    drawn = completer.sample(images, masks, samples) if samples else np.zeros((0, *images.shape), np.uint8)
    return completion_sheet(images, masks, [completer.complete(images, masks), *drawn])
