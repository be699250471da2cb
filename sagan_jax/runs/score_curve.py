"""The scores of every checkpoint that a run keeps: a result file for each step, and one curve."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sagan_jax.errors import InvalidInputError, NonFiniteError, SaganError
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import CompletedImages
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs.completion_scores import (
    SCORED_HOLES,
    HoleScore,
    choose_completion_protocols,
    completion_evaluator,
    hole_result,
    installed_lite0,
    score_of_holes,
)
from sagan_jax.runs.evaluators import evaluator_of_run
from sagan_jax.runs.load import CompletionRun, GenerationRun, checkpoint_steps, open_any_run
from sagan_jax.runs.protocol_choice import Choice, choose_protocols, print_to_stderr
from sagan_jax.runs.result_files import ResultFiles, result_content
from sagan_jax.runs.scores import generators, score_of_generator
from sagan_jax.runs.validate import check_hole_kind
from sagan_jax.runtime.metrics_log import Curve
from sagan_jax.runtime.progress import ProgressCallback
from sagan_jax.views.curves import score_figure
from sagan_jax.views.figures import encode_figure

AnyScore = Score | HoleScore
_MOST_BYTES = 10_000_000  # largest result file that is read


class _Item(NamedTuple):
    """A score of one checkpoint.

    Attributes:
        name: the start of the name of the result file.
        settings: the values that identify a result file of this score.
        measure: returns the score.
        content: returns the content of the result file for a score.
    """

    name: str
    settings: Mapping[str, Any]
    measure: Callable[[], Any]
    content: Callable[[Any], bytes]


class _Plan(NamedTuple):
    """The scores to measure at each step of a run, and the choice of protocols."""

    items_at: Callable[[int], Iterator[_Item]]
    choice: Choice


def score_every_checkpoint(
    workdir: str | Path,
    *protocols: str,
    steps: Sequence[int] = (),
    holes: Sequence[str] = (),
    samples: int = 4,
    source: str = "",
    held_out: str = "",
    reference: str = "",
    inception_weights: str = "",
    dinov2_weights: str = "",
    seed: int = 0,
    batch_size: int | None = None,
    out: Path | None = None,
    keep_going: bool = False,
    cache: str | None = None,
    trust_checkpoint: bool = False,
    notify: Callable[[str], None] = print_to_stderr,
    progress: ProgressCallback | None = None,
    on_score: Callable[[int, AnyScore], None] | None = None,
    on_table: Callable[[Mapping[int, Mapping[str, float]]], None] | None = None,
) -> dict[int, dict[str, float]]:
    """Returns the scores of every checkpoint that a run keeps, by step, and draws them as curves.

    A score that has a result file with the same settings is not measured again, so a stopped call can be resumed. A
    checkpoint that is damaged or gives no finite score is left out.

    Args:
        workdir: as for `evaluate`.
        protocols: as for `evaluate`.
        steps: the steps to score, if they have a checkpoint. Defaults to all checkpoints.
        holes: as for `evaluate`.
        samples: as for `evaluate`.
        source: as for `evaluate`.
        held_out: as for `evaluate`.
        reference: as for `evaluate`; needs `out`.
        inception_weights: as for `evaluate`.
        dinov2_weights: as for `evaluate`.
        seed: as for `evaluate`.
        batch_size: as for `evaluate`.
        out: folder for the result files and `curve.png`. Defaults to `scores/` in the workdir.
        keep_going: as for `evaluate`.
        cache: as for `evaluate`.
        trust_checkpoint: as for `evaluate`.
        notify: receives a line for each protocol and each checkpoint that is left out. Defaults to printing on stderr.
        progress: receives the progress of each pass over images.
        on_score: called with the step and the score after each measurement.
        on_table: receives the returned scores, before the last files are written.

    Raises:
        InvalidInputError: there is no checkpoint, something is missing, or contradicts a protocol.
        NonFiniteError: no checkpoint gives a finite score.
        StorageError: a file cannot be written; raised after everything was measured.
    """
    if reference and not out:
        raise InvalidInputError("Every checkpoint with --reference needs --out, a folder for the results.")
    run = open_any_run(workdir, source=source, held_out=held_out, cache=cache, trust_checkpoint=trust_checkpoint)
    chosen = _chosen_steps(run.workdir, workdir, steps)
    choosing: Any = {"keep_going": keep_going, "notify": notify}
    weights = {"inception_weights": inception_weights, "dinov2_weights": dinov2_weights}
    shared: Any = {"seed": seed, "weights": weights, "progress": progress}
    if isinstance(run, CompletionRun):
        if reference:
            raise InvalidInputError("--reference is for a run that generates images.")
        plan = _completion_plan(run, protocols, holes, samples, batch_size or 50, **shared, **choosing)
    elif holes:
        raise InvalidInputError(f"The run in {str(workdir)!r} generates images; --holes need one that completes them.")
    else:
        plan = _generation_plan(run, protocols, reference, batch_size or 100, **shared, **choosing)
    files, folder = ResultFiles(), out or run.workdir / "scores"
    table = _measure(chosen, plan, folder, files, notify, on_score)
    if on_table:
        on_table(table)
    files.write(folder / "curve.png", encode_figure(score_figure(_curves(table)), "png"))
    files.raise_refused()
    plan.choice.raise_refused()
    return table


def _chosen_steps(workdir: Path, named: str | Path, steps: Sequence[int]) -> list[int]:
    """Returns the steps to score that have a checkpoint; `named` is the workdir as the user wrote it.

    Raises:
        InvalidInputError: there is none.
    """
    kept = checkpoint_steps(workdir)
    if not kept:
        raise InvalidInputError(
            f"The run in {str(named)!r} has no checkpoint yet: it was stopped before the first save."
        )
    chosen = [step for step in kept if step in (steps or kept)]
    if not chosen:
        raise InvalidInputError(f"The run in {str(named)!r} has checkpoints of the steps {kept}; got {list(steps)}.")
    return chosen


def _measure(
    steps: Sequence[int],
    plan: _Plan,
    folder: Path,
    files: ResultFiles,
    notify: Callable[[str], None],
    on_score: Callable[[int, AnyScore], None] | None,
) -> dict[int, dict[str, float]]:
    """Returns the values by step, read from result files or measured; a step without values is left out."""
    table: dict[int, dict[str, float]] = {}
    failure: SaganError | None = None
    for step in steps:
        for item in plan.items_at(step):
            path = folder / f"{item.name}-{step:08d}.json"
            values = _recorded(path, item.settings)
            if values is None:
                try:
                    score = item.measure()
                except (InvalidInputError, NonFiniteError) as error:
                    notify(f"left out: step {step}: {error}")
                    failure = error
                    break
                files.write(path, item.content(score))
                values = score.values
                if on_score:
                    on_score(step, score)
            table.setdefault(step, {}).update(values)
    if failure and not table:
        raise failure
    return table


def _generation_plan(
    run: GenerationRun,
    names: Sequence[str],
    reference: str,
    batch_size: int,
    *,
    seed: int,
    weights: dict[str, str],
    progress: ProgressCallback | None,
    keep_going: bool,
    notify: Callable[[str], None],
) -> _Plan:
    evaluator, wanted = evaluator_of_run(
        run,
        [parse_protocol(name) for name in names],
        reference=reference,
        progress=progress,
        **weights,
    )
    choice = choose_protocols(
        [evaluator.resolve(protocol) for protocol in wanted],
        lambda protocol: evaluator.check(protocol, run.experiment.networks.num_classes),
        named=bool(names),
        keep_going=keep_going,
        notify=notify,
    )

    def items_at(step: int) -> Iterator[_Item]:
        at_step = dataclasses.replace(run, checkpoint=step)
        generator_of = generators(lambda raw: at_step.generator(raw=raw))
        shared = {"seed": seed, "batch_size": batch_size}
        for protocol in choice.possible:
            measure = functools.partial(score_of_generator, evaluator, protocol, generator_of, **shared)
            settings = _settings(evaluator, protocol, seed) | {"generated_by_step": step}
            yield _Item(protocol.name, settings, measure, result_content)

    return _Plan(items_at, choice)


def _completion_plan(
    run: CompletionRun,
    names: Sequence[str],
    holes: Sequence[str],
    samples: int,
    batch_size: int,
    *,
    seed: int,
    weights: dict[str, str],
    progress: ProgressCallback | None,
    keep_going: bool,
    notify: Callable[[str], None],
) -> _Plan:
    kinds = tuple(holes) or SCORED_HOLES
    for kind in kinds:
        check_hole_kind(kind)
    lite0, photographs = installed_lite0(), run.images(held_out=True)
    protocols = [parse_protocol(name) for name in names]
    evaluator = completion_evaluator(run, photographs, protocols, progress, **weights) if protocols else None
    resolved = [evaluator.resolve(protocol) for protocol in protocols] if evaluator else []
    choice = choose_completion_protocols(evaluator, resolved, others=bool(holes), keep_going=keep_going, notify=notify)

    def items_at(step: int) -> Iterator[_Item]:
        at_step = dataclasses.replace(run, checkpoint=step)
        load = functools.cache(lambda raw: at_step.completer(raw=raw))
        of_step = {"seed": seed, "completed_by_step": step}
        for kind in kinds:
            settings = {**of_step, "holes": kind, "samples": samples, "fingerprint": photographs.fingerprint}
            settings |= {"lite0": lite0.origin} if lite0 else {}
            yield _Item(
                f"holes_{kind}",
                settings,
                lambda kind=kind: score_of_holes(load(False), photographs, kind, samples, seed, batch_size, lite0),
                hole_result,
            )
        for protocol in choice.possible:
            assert evaluator

            def measure(protocol: Protocol = protocol) -> Score:
                assert evaluator
                images = CompletedImages(load(protocol.raw), photographs, kinds, batch_size)
                return evaluator.score(protocol, images, seed=seed)

            settings = {**_settings(evaluator, protocol, seed), **of_step, "holes": list(kinds)}
            settings["fingerprint"] = photographs.fingerprint
            yield _Item(protocol.name, settings, measure, result_content)

    return _Plan(items_at, choice)


def _settings(evaluator: Evaluator, protocol: Protocol, seed: int) -> dict[str, Any]:
    """Returns the settings in the result file of a protocol, which identify its score."""
    settings: dict[str, Any] = {"protocol": protocol.settings(), "seed": seed}
    reference = evaluator.references.describe(protocol)
    if protocol.embedding not in ("classifier", None):
        settings["embedding"] = evaluator.references.embedding(protocol).identity
    training = evaluator.references.describe_training(protocol)
    named = {"reference": reference, "training_images": training}
    return settings | {name: value for name, value in named.items() if value}


def _recorded(path: Path, settings: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the values in a result file with these settings; None if it is missing, damaged or of other settings."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        document = json.loads(path.read_text())
        if any(document.get(name) != value for name, value in settings.items()):
            return None
        values = {str(name): float(value) for name, value in document["values"].items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return values if np.isfinite(list(values.values())).all() else None


def _curves(table: Mapping[int, Mapping[str, float]]) -> dict[str, Curve]:
    """Returns the curve of each value over the steps that have it."""
    curves = {}
    for name in dict.fromkeys(name for values in table.values() for name in values):
        steps = [step for step, values in table.items() if name in values]
        curves[name] = Curve(np.array(steps, np.int64), np.array([table[step][name] for step in steps]))
    return curves
