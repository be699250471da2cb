"""Scores of a run that completes images."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sagan_jax.data import ImageSource
from sagan_jax.data.masks import AREA_BINS, HALVES
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.completion_quality import completion_scores
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import CompletedImages, RealImages
from sagan_jax.evaluation.lite0 import Lite0Weights, is_installed, read_lite0
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs.evaluators import evaluator_for
from sagan_jax.runs.load import CompletionRun
from sagan_jax.runs.protocol_choice import Choice, choose_protocols, print_to_stderr
from sagan_jax.runs.result_files import ResultFiles, result_content, result_path
from sagan_jax.runs.validate import check_hole_kind
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.progress import ProgressCallback

SCORED_HOLES = ("centre", *HALVES, "rectangle", "rectangles", "strokes", *AREA_BINS)
"""The kinds of holes that are scored by default."""


@dataclasses.dataclass(frozen=True)
class HoleScore:
    """How well a run fills holes of one kind.

    Attributes:
        holes: the kind.
        values: the means over images of what `completion_scores` returns, by names such as `centre/psnr`.
        details: everything else in the result file.
    """

    holes: str
    values: dict[str, float]
    details: dict[str, Any]

    def __str__(self) -> str:
        """Returns the score as one line of text."""
        words: dict[bool, list[str]] = {False: [], True: []}
        for name, value in self.values.items():
            name = name.partition("/")[2]
            shown = f"{value:.2f} dB" if name.startswith("psnr") else f"{value:.4f}"
            words[name.endswith("_image")].append(f"{name.removesuffix('_image')} {shown}")
        return f"{self.holes:<12}  hole: {'  '.join(words[False])}   image: {'  '.join(words[True])}"


def completion_scores_of_run(
    run: CompletionRun,
    names: Sequence[str] = (),
    *,
    holes: Sequence[str] = (),
    samples: int = 4,
    inception_weights: str = "",
    dinov2_weights: str = "",
    seed: int = 0,
    batch_size: int = 50,
    out: Path | None = None,
    keep_going: bool = False,
    notify: Callable[[str], None] = print_to_stderr,
    progress: ProgressCallback | None = None,
) -> Iterator[HoleScore | Score]:
    """Yields the score of each kind of hole, then of each protocol. Each is written to a result file.

    If the weights of EfficientNet-Lite0 are installed, the scores of holes include the `lite0_distance`.

    Args:
        run: an opened run with a checkpoint.
        names: names of protocols. They compare sampled completions of held-out photographs with real images. Defaults
            to none.
        holes: kinds of `sagan_jax.data.masks`. Defaults to `SCORED_HOLES`. Protocols cycle through them.
        samples: number of sampled completions of each image, to measure their diversity.
        inception_weights: as for `scores_of_run`.
        dinov2_weights: as for `scores_of_run`.
        seed: seed of holes and latents.
        batch_size: images per forward pass.
        out: folder of the result files. Defaults to `scores/` in the workdir.
        keep_going: as for `scores_of_run`.
        notify: as for `scores_of_run`.
        progress: receives the progress.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
        NonFiniteError: a completion, a feature or a score is not finite.
        StorageError: a result file cannot be written; raised after all scores.
    """
    kinds = tuple(holes) or SCORED_HOLES
    for kind in kinds:
        check_hole_kind(kind)
    protocols = [parse_protocol(name) for name in names]
    lite0 = installed_lite0()
    completer, photographs = run.completer(), run.images(held_out=True)
    weights: Any = {"inception_weights": inception_weights, "dinov2_weights": dinov2_weights}
    evaluator = completion_evaluator(run, photographs, protocols, progress, **weights) if protocols else None
    choice = choose_completion_protocols(evaluator, protocols, others=bool(holes), keep_going=keep_going, notify=notify)
    files = ResultFiles()
    for kind in kinds:
        score = score_of_holes(completer, photographs, kind, samples, seed, batch_size, lite0)
        name = f"holes_{kind}"
        path = out / f"{name}.json" if out else run.workdir / "scores" / f"{name}-{completer.step:08d}.json"
        files.write(path, hole_result(score))
        yield score
    for protocol in choice.possible:
        assert evaluator
        images = CompletedImages(run.completer(raw=protocol.raw), photographs, kinds, batch_size)
        found = evaluator.score(protocol, images, seed=seed)
        measured = found.protocol
        path = out / f"{measured.name}.json" if out else result_path(run.workdir, measured, completer.step)
        files.write(path, result_content(found))
        yield found
    files.raise_refused()
    choice.raise_refused()


def installed_lite0() -> Lite0Weights | None:
    """Returns the weights of EfficientNet-Lite0, or None where their package is not installed."""
    return read_lite0() if is_installed() else None


def hole_result(score: HoleScore) -> bytes:
    """Returns the content of the result file of a score."""
    return (json.dumps({"values": score.values, **score.details}, indent=2) + "\n").encode()


def choose_completion_protocols(
    evaluator: Evaluator | None,
    protocols: Sequence[Protocol],
    *,
    others: bool,
    keep_going: bool,
    notify: Callable[[str], None],
) -> Choice:
    """Returns the protocols that completions can be scored by; the arguments are those of `choose_protocols`."""

    def check(protocol: Protocol) -> None:
        if protocol.statistics != "stored":
            raise InvalidInputError(f"{protocol.name} names batch-norm statistics; this network has no batch norm.")
        assert evaluator
        evaluator.check(evaluator.resolve(protocol), num_classes=0)

    return choose_protocols(protocols, check, named=True, keep_going=keep_going, notify=notify, others=others)


def completion_evaluator(
    run: CompletionRun,
    photographs: ImageSource,
    protocols: Sequence[Protocol],
    progress: ProgressCallback | None,
    *,
    inception_weights: str,
    dinov2_weights: str,
) -> Evaluator:
    """Returns an evaluator of completions against the training images and the photographs."""
    evaluator, _ = evaluator_for(
        RealImages(run.images()),
        RealImages(photographs),
        protocols,
        inception_weights=inception_weights,
        dinov2_weights=dinov2_weights,
        cache=run.experiment.data.cache,
        progress=progress,
    )
    return evaluator


def score_of_holes(
    completer: TrainedCompleter,
    photographs: ImageSource,
    kind: str,
    samples: int,
    seed: int,
    batch_size: int,
    lite0: Lite0Weights | None = None,
) -> HoleScore:
    """Returns how well a network fills holes of one kind; the arguments are those of `completion_scores_of_run`.

    With the weights of EfficientNet-Lite0 it also measures the `lite0_distance`.
    """
    count = len(photographs)
    options: Any = {"samples": samples, "seed": seed, "batch_size": batch_size, "lite0": lite0 and lite0.variables}
    found = completion_scores(completer, photographs, kind, num_images=count, **options)
    environment = reproducibility_info()
    return HoleScore(
        kind,
        {f"{kind}/{name}": float(values.mean()) for name, values in found.items()},
        {
            "deviation over images": {f"{kind}/{name}": float(values.std()) for name, values in found.items()},
            "holes": kind,
            "seed": seed,
            "samples": samples,
            "images": count,
            "photographs": photographs.description,
            "fingerprint": photographs.fingerprint,
            "completed_by_step": completer.step,
            "weights": "moving average" if completer.averaged else "as trained",
            **({"lite0": lite0.origin} if lite0 else {}),
            "completed": "by the mean of the latents' distribution; diversity: of sampled completions",
            "versions": environment["versions"],
            "devices": f"{environment['device_count']} {environment['device_kind']}",
        },
    )
