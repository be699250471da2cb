"""Scores of a run that completes images."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sagan_jax.cli.checks import check_hole_kind, require_completion
from sagan_jax.cli.completing import load_completer
from sagan_jax.cli.scoring import evaluator_for, result_path, write_result
from sagan_jax.cli.wiring import open_images
from sagan_jax.data import ImageSource
from sagan_jax.data.masks import AREA_BINS, HALVES
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.likeness import CompletedImages, completion_scores
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.progress import ProgressCallback

SCORED_HOLES = ("centre", *HALVES, "rectangle", "rectangles", "strokes", *AREA_BINS)
"""The kinds of holes that are scored where nobody names some."""


@dataclasses.dataclass(frozen=True)
class HoleScore:
    """How well a run fills holes of one kind.

    Attributes:
        holes: the kind.
        values: by names such as `centre/psnr`: the means over images of what `completion_scores` gives.
        details: what else the result file says.
    """

    holes: str
    values: dict[str, float]
    details: dict[str, Any]

    def __str__(self) -> str:
        """Returns the score for a person."""
        words: dict[bool, list[str]] = {False: [], True: []}
        for name, value in self.values.items():
            name = name.partition("/")[2]
            shown = f"{value:.2f} dB" if name.startswith("psnr") else f"{value:.4f}"
            words[name.endswith("_image")].append(f"{name.removesuffix('_image')} {shown}")
        return f"{self.holes:<12}  hole: {'  '.join(words[False])}   image: {'  '.join(words[True])}"


def completion_scores_of_run(
    workdir: Path,
    names: Sequence[str] = (),
    *,
    holes: Sequence[str] = (),
    samples: int = 4,
    source: str = "",
    held_out: str = "",
    inception_weights: str = "",
    seed: int = 0,
    batch_size: int = 50,
    out: Path | None = None,
    cache: str = "auto",
    watcher: ProgressCallback | None = None,
) -> "Iterator[HoleScore | Score]":
    """Yields the score of each kind of hole and of each protocol, once it is written to a result file.

    Args:
        workdir: of a run that completes images and has saved.
        names: of protocols, by which sampled completions of unseen photographs are compared with real images; none
            unless given.
        holes: kinds of `sagan_jax.data.masks`; `SCORED_HOLES` unless given. Protocols take them in turn.
        samples: completions of each image whose diversity is measured.
        source: where the images that the run was trained on lie, unless they are where the config says.
        held_out: the photographs to complete, unless the config says them.
        inception_weights: as for `scores_of_run`.
        seed: of holes and latents.
        batch_size: images a pass.
        out: folder of the result files; `scores/` in the workdir unless given.
        cache: as `Data.cache`.
        watcher: is told how far it is.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; before anything is measured.
    """
    experiment = require_completion(workdir)
    data = dataclasses.replace(
        experiment.data,
        source=source or experiment.data.source,
        held_out=held_out or experiment.data.held_out,
        cache=cache,
    )
    experiment = dataclasses.replace(experiment, data=data)
    kinds = tuple(holes) or SCORED_HOLES
    for kind in kinds:
        check_hole_kind(kind)
    protocols = [parse_protocol(name) for name in names]
    for protocol in protocols:
        if protocol.statistics != "stored":
            raise InvalidInputError(f"{protocol.name} says what batch norm normalises with; this network has none.")
    completer = load_completer(workdir)
    photographs = open_images(experiment, held_out=True)

    judge = None
    if protocols:
        judge, _ = evaluator_for(
            RealImages(open_images(experiment)),
            RealImages(photographs),
            protocols,
            inception_weights=inception_weights,
            cache=cache,
            watcher=watcher,
        )
        for protocol in protocols:
            judge.check(protocol, 0)
    for kind in kinds:
        score = _score_of_holes(completer, photographs, kind, samples, seed, batch_size)
        name = f"holes_{kind}"
        path = out / f"{name}.json" if out else workdir / "scores" / f"{name}-{completer.step:08d}.json"
        write_atomically(path, (json.dumps({"values": score.values, **score.details}, indent=2) + "\n").encode())
        yield score
    for protocol in protocols:
        assert judge
        weights = load_completer(workdir, raw=protocol.raw)
        found = judge.score(protocol, CompletedImages(weights, photographs, kinds, batch_size), seed=seed)
        write_result(out / f"{protocol.name}.json" if out else result_path(workdir, protocol, weights.step), found)
        yield found


def _score_of_holes(
    completer: TrainedCompleter, photographs: ImageSource, kind: str, samples: int, seed: int, batch_size: int
) -> HoleScore:
    count = len(photographs)
    found = completion_scores(
        completer, photographs, kind, num_images=count, samples=samples, seed=seed, batch_size=batch_size
    )
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
            "completed": "by the mean of the latents' distribution; diversity: of sampled completions",
            "versions": environment["versions"],
            "devices": f"{environment['device_count']} {environment['device_kind']}",
        },
    )
