"""Reproduces published rows: trains and scores the runs, and compares the scores with the published numbers."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sagan_jax.config import Data, Experiment, to_dict
from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.inception import find_weights
from sagan_jax.runs.build import open_labelled_images
from sagan_jax.runs.dry_run import dry_run
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.saved_config import read_experiment
from sagan_jax.runs.score_curve import score_every_checkpoint
from sagan_jax.runs.train import train_to_the_end
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.progress import ProgressCallback

Precision = Literal["auto", "float32", "tensorfloat32", "bfloat16"]
Scores = Mapping[int, Mapping[str, float]]
"""The values of a run by step and name."""

BASELINE = "imagenet_128_sn_discriminator_only"
LEAST_DIFFERENCE = 40.0
"""The FID of Figure 4's baseline needs to be higher by this. The published differences are 82 and more, unverified."""
CIFAR10_SUMS = (6_415_714_204, 6_295_060_180, 5_829_907_619)
"""Sums of red, green and blue over the 50,000 training images. Public code states the exact means, such as
125.306918046875 in tinygrad's CIFAR-10 example. The sums are these means times 50,000 images times 1,024 pixels."""


class Published(NamedTuple):
    """A published number, and whether it was verified. A number from memory is shown with a star."""

    value: float
    verified: bool

    def __str__(self) -> str:
        return f"{self.value:g}" if self.verified else f"{self.value:g}*"


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The runs and scores of a reproduction.

    Attributes:
        rows: for each experiment, the published numbers at the last step, by the names of our scores.
        total_steps: training steps of each run.
        steps: the steps whose checkpoints are scored.
        keep_every_steps: the interval of kept checkpoints. It divides each of `steps`.
        protocols: the scores.
        held_out_protocols: further scores, if held-out images are given.
    """

    rows: Mapping[str, Mapping[str, Published]]
    total_steps: int
    steps: tuple[int, ...]
    keep_every_steps: int
    protocols: tuple[str, ...]
    held_out_protocols: tuple[str, ...] = ()


REPRODUCTIONS: Mapping[str, Reproduction] = {
    "figure4": Reproduction(
        rows={
            BASELINE: {"fid50k_train": Published(181.84, verified=False)},
            "imagenet_128_sn_equal_rates": {"fid50k_train": Published(93.52, verified=False)},
            "imagenet_128_no_attention": {"fid50k_train": Published(99.04, verified=False)},
        },
        total_steps=10_000,
        steps=(2_000, 5_000, 10_000),
        keep_every_steps=1_000,
        protocols=("fid50k_train",),
    ),
    "cifar10": Reproduction(
        rows={
            "cifar10_32_studiogan": {
                "fid50k_train_standing": Published(10.35, verified=True),
                "is50k_standing/one_split": Published(8.64, verified=True),
                "fid10k_test_batch": Published(14.009, verified=True),
                "is10k_batch": Published(8.68, verified=True),
            }
        },
        total_steps=100_000,
        steps=tuple(range(10_000, 100_001, 10_000)),
        keep_every_steps=10_000,
        protocols=("fid50k_train_standing", "is50k_standing"),
        held_out_protocols=("fid10k_test_batch", "is10k_batch"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """The images, and the settings that may differ from the published ones. A size of 0 keeps the published size."""

    data: Data
    base_channels: int = 0
    batch_size: int = 0
    precision: Precision = "auto"
    seed: int = 0

    @property
    def departures(self) -> list[str]:
        """The settings that make this a rehearsal, in words. A rehearsal takes any images and gives no verdict."""
        sizes = {"--base-channels": self.base_channels, "--batch-size": self.batch_size}
        sizes["--max-images"] = self.data.max_images
        words = [f"{flag} {value}" for flag, value in sizes.items() if value]
        words += ["--sampling balanced"] * (self.data.sampling != "uniform")
        return words + ["--decoding fast"] * (self.data.decoding != "exact")


class Verdict(NamedTuple):
    """Whether the published order holds, and the FID of the baseline minus that of each other row."""

    holds: bool
    by: dict[str, float]


def order_verdict(fids: Mapping[str, float]) -> Verdict:
    """Returns whether the baseline's FID is above that of every other row by at least `LEAST_DIFFERENCE`.

    Args:
        fids: the FIDs of Figure 4's rows at the last step, by the name of the experiment.

    Examples:
        >>> order_verdict({BASELINE: 150.0, "imagenet_128_no_attention": 110.0, "imagenet_128_sn_equal_rates": 90.5})
        Verdict(holds=True, by={'imagenet_128_no_attention': 40.0, 'imagenet_128_sn_equal_rates': 59.5})
    """
    by = {name: fids[BASELINE] - fid for name, fid in fids.items() if name != BASELINE}
    return Verdict(all(difference >= LEAST_DIFFERENCE for difference in by.values()), by)


def experiments_of(name: str, setting: Setting) -> list[Experiment]:
    """Returns the experiments of a reproduction, with the images and the sizes of the setting."""
    reproduction, found = REPRODUCTIONS[name], []
    for row in reproduction.rows:
        experiment = load_experiment(row)
        assert isinstance(experiment, Experiment)
        networks, training = experiment.networks, experiment.training
        keep = reproduction.keep_every_steps
        found.append(
            dataclasses.replace(
                experiment,
                data=setting.data,
                networks=dataclasses.replace(networks, base_channels=setting.base_channels or networks.base_channels),
                training=dataclasses.replace(
                    training,
                    total_steps=reproduction.total_steps,
                    batch_size=setting.batch_size or training.batch_size,
                    precision=setting.precision,
                    seed=setting.seed,
                ),
                recording=dataclasses.replace(
                    experiment.recording, save_every_steps=min(keep, 2_000), keep_every_steps=keep
                ),
            )
        )
    return found


def check_original_cifar10(source: ImageSource) -> None:
    """Raises InvalidInputError unless the images are the original training images of CIFAR-10, in any order."""
    needed = "reproduce cifar10 needs the 50,000 training images of CIFAR-10 bit for bit, not JPEG copies"
    if len(source) != 50_000 or np.bincount(source.labels, minlength=10).tolist() != [5_000] * 10:
        raise InvalidInputError(f"{needed}, with 5,000 in each of 10 classes; got {source.description}.")
    sums = sum(np.sum(source[index][0], axis=(0, 1), dtype=np.int64) for index in range(len(source)))
    if tuple(np.asarray(sums).tolist()) != CIFAR10_SUMS:
        raise InvalidInputError(f"{needed}; got {source.description}, with different pixels.")


def rehearse(name: str, setting: Setting, workdir: Path, inception_weights: str = "") -> None:
    """Checks images, networks and memory of all runs, and prints what would be trained. It trains and writes nothing.

    Args:
        name: the name of the reproduction.
        setting: as for `reproduce`.
        workdir: as for `reproduce`.
        inception_weights: as for `reproduce`.

    Raises:
        InvalidInputError: as from `reproduce`, except that missing weights of the FID network are only reported.
    """
    experiments = experiments_of(name, setting)
    _check_images(name, setting, experiments[0])
    _check_workdirs(experiments, workdir)
    for experiment in experiments:
        dry_run(experiment, workdir / experiment.name)
    if not find_weights(inception_weights or None):
        print("the weights of the FID network are missing: before the run, sagan-jax fetch-weights", flush=True)


def reproduce(
    name: str,
    setting: Setting,
    workdir: Path,
    *,
    inception_weights: str = "",
    progress: ProgressCallback | None = None,
    notify: Callable[[str], None] = print,
) -> dict[str, Scores]:
    """Trains and scores the rows of a reproduction one by one, and reports the results.

    A finished run is not trained again, a stopped run is resumed, and a scored checkpoint is not scored again.
    `WORKDIR/EXPERIMENT` is the workdir of a run, and `row.json` in it is its result. `WORKDIR/reproduction.json` has
    all results, with the verdict.

    Args:
        name: the name of the reproduction.
        setting: the images, and the differences from the published setting.
        workdir: the folder for the workdir of each run.
        inception_weights: file of the FID network's weights. Defaults to the usual place.
        progress: receives the progress of scoring.
        notify: receives the lines of the result.

    Returns:
        The scores of each experiment by step. An experiment that diverged has none.

    Raises:
        InvalidInputError: the images are not the published ones, the weights of the FID network are missing, or a run
            in `workdir` has another batch size. These are raised before anything is trained. Other errors are those of
            `train`.
    """
    experiments = experiments_of(name, setting)
    if not find_weights(inception_weights or None):
        raise InvalidInputError(
            f"reproduce {name} needs the weights of the FID network, which are missing: sagan-jax fetch-weights."
        )
    _check_images(name, setting, experiments[0])
    _check_workdirs(experiments, workdir)
    found: dict[str, Scores] = {}
    for experiment in experiments:
        try:
            found[experiment.name] = _run(name, experiment, workdir / experiment.name, inception_weights, progress)
        except NonFiniteError as error:
            notify(f"{experiment.name} has no scores: {error}")
    for line in summary(name, setting, found):
        notify(line)
    verdict = _verdict(name, setting, found)
    content = {"reproduction": name, "departures": setting.departures, "scores": found}
    content |= {"verdict": verdict._asdict() if verdict else None}
    write_atomically(workdir / "reproduction.json", (json.dumps(content, indent=1) + "\n").encode())
    return found


def _check_images(name: str, setting: Setting, experiment: Experiment) -> None:
    source = open_labelled_images(experiment)
    if setting.data.held_out:
        open_labelled_images(experiment, held_out=True)
    if name == "cifar10" and not setting.departures:
        check_original_cifar10(source)


def _check_workdirs(experiments: Sequence[Experiment], workdir: Path) -> None:
    """Raises InvalidInputError for a run of another batch size: `train` would resume it, in another setting."""
    for experiment in experiments:
        saved, wanted = read_experiment(workdir / experiment.name), experiment.training.batch_size
        if saved and saved.training.batch_size != wanted:
            raise InvalidInputError(
                f"The run in {str(workdir / experiment.name)!r} has batch size {saved.training.batch_size}, and this "
                f"reproduction needs {wanted}: give --batch-size {saved.training.batch_size}, or another --workdir."
            )


def _run(
    name: str, experiment: Experiment, workdir: Path, inception_weights: str, progress: ProgressCallback | None
) -> Scores:
    """Trains and scores one run, and returns its scores by step. Finished work is not repeated."""
    reproduction = REPRODUCTIONS[name]
    train_to_the_end(experiment, workdir)
    protocols = reproduction.protocols + reproduction.held_out_protocols * bool(experiment.data.held_out)
    scores = score_every_checkpoint(
        workdir,
        *protocols,
        steps=reproduction.steps,
        inception_weights=inception_weights,
        progress=progress,
    )
    result = {"experiment": to_dict(experiment), "values": scores.get(reproduction.total_steps, {}), "by_step": scores}
    write_atomically(workdir / "row.json", (json.dumps(result, indent=1) + "\n").encode())
    return scores


def _verdict(name: str, setting: Setting, found: Mapping[str, Scores]) -> Verdict | None:
    """Returns the verdict of Figure 4; None for another reproduction, another setting, or a row without its score."""
    reproduction = REPRODUCTIONS[name]
    last = {row: scores.get(reproduction.total_steps, {}) for row, scores in found.items()}
    fids = {row: values["fid50k_train"] for row, values in last.items() if "fid50k_train" in values}
    if name != "figure4" or setting.departures or fids.keys() != reproduction.rows.keys():
        return None
    return order_verdict(fids)


def summary(name: str, setting: Setting, found: Mapping[str, Scores]) -> list[str]:
    """Returns the lines of the result: the scores beside the published ones, and the verdict.

    Args:
        name: the name of the reproduction.
        setting: the setting of the runs.
        found: the scores of each experiment by step.
    """
    reproduction, lines, starred = REPRODUCTIONS[name], [], False
    for row, published in reproduction.rows.items():
        for value, number in published.items():
            curve = {step: values[value] for step, values in found.get(row, {}).items() if value in values}
            if not curve:
                continue
            shown = ", ".join(f"{score:.2f} at {step:,}" for step, score in curve.items())
            last = curve.get(reproduction.total_steps)
            away = f", difference {last - number.value:+.2f}" if last is not None else ""
            lines.append(f"{row}, {value}: {shown}; published {number}{away}")
            starred = starred or not number.verified
    if starred:
        lines.append("* from memory of the paper, not verified: the difference is shown but not judged")
    return [*lines, _verdict_line(name, setting, _verdict(name, setting, found))]


def _verdict_line(name: str, setting: Setting, verdict: Verdict | None) -> str:
    if setting.departures:
        return f"no verdict: this was a rehearsal, with {', '.join(setting.departures)}"
    if name != "figure4":
        return "no verdict: a single run does not show how much runs vary"
    if verdict is None:
        return f"no verdict: it needs fid50k_train of all rows at step {REPRODUCTIONS[name].total_steps:,}"
    by = " and ".join(f"{difference:.1f} ({row})" for row, difference in verdict.by.items())
    word = "holds" if verdict.holds else "does not hold"
    return (
        f"the published order {word}: {BASELINE} needs a FID above the others' by at least {LEAST_DIFFERENCE:g}, "
        f"and is above them by {by}"
    )
