"""Measures what each part of the training step gains: takes steps with one part in its plain form, and as they are.

    python experiments/benchmarks/step_parts.py --row 32-64-16 --rounds 7 --out parts.json
    python experiments/benchmarks/step_parts.py --tables parts.json

The plain forms are: convolutions and resampling in two steps; XLA's gradients of all kernels; batch norm in two steps.
Two more forms follow. One has D's passes over real and generated images as one batch. The other has `shared_draws`,
which changes the experiment: see `Training`. All forms are programs of one process and take turns. Each time is divided
by that of the step as it is, in the same round. A ratio above 1 means that the form is slower.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax import Array
from measuring import (
    add_turns,
    check_turns,
    figures,
    machine,
    markdown,
    progress,
    ratios,
    read_result,
    spread,
    take_turns,
    write_result,
)
from sagan_worker import alone, experiment_of
from step_vs_studiogan import CPU_ROWS, GPU_ROWS, rows_of
from worker import Work

from sagan_jax.cli.main import explained
from sagan_jax.functional import convolution, normalization, resampling
from sagan_jax.models import layers
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.training import adversarial
from sagan_jax.training.adversarial import AdversarialTask
from sagan_jax.training.flops import step_flops

WHOLE = "the step as it is"
SHARED = "shared_draws"


def upsample_then_convolve(features: Array, kernel: Array, **options: Any) -> Array:
    """Returns `upsample_convolve` in two steps."""
    return convolution.convolve(resampling.upsample_nearest(features), kernel, **options)


def convolve_then_pool(features: Array, kernel: Array, **options: Any) -> Array:
    """Returns `convolve_pool` in two steps."""
    return resampling.average_pool(convolution.convolve(features, kernel, **options))


def standardize_then_scale(
    features: Array, mean: Array, variance: Array, scale: Array, shift: Array, *, epsilon: float
) -> Array:
    """Returns `normalize` in two steps."""
    standardized = normalization.standardize(features, mean, variance, epsilon=epsilon)
    return normalization.scale_and_shift(standardized, scale, shift)


def judge_in_one_batch(
    task: AdversarialTask, variables: Any, reals: Any, draws: Any, generate: Callable[[Any], Array]
) -> tuple[Any, Any]:
    """Returns the results of D on real and on generated images, from one pass over both.

    It is the same up to rounding if D has no batch norm and the task no gradient penalty.
    """
    assert not task.r1
    assert not task.r2
    assert not variables["batch_stats"]
    keys = jnp.concatenate([draws.real_keys, draws.fake_keys])
    labels = jnp.concatenate([reals.labels, draws.labels])
    images = jnp.concatenate([adversarial._real_images(task, reals, draws), generate(draws)])
    logits, batch_stats = adversarial._discriminator_pass(task, variables, keys, labels)(images)
    real, fake = jnp.split(logits, 2)
    return adversarial._Judged(real, batch_stats), adversarial._Judged(fake, batch_stats)


FORMS: Mapping[str, list[tuple[Any, str, Any]]] = {
    WHOLE: [],
    "convolutions and resampling in two steps": [
        (layers, "upsample_convolve", upsample_then_convolve),
        (layers, "convolve_pool", convolve_then_pool),
    ],
    "XLA's gradients of all kernels": [(convolution, "_has_patches", lambda *_: False)],
    "batch norm in two steps": [(layers, "normalize", standardize_then_scale)],
    "D on real and generated images as one batch": [(adversarial, "_judge_both", judge_in_one_batch)],
    SHARED: [],
}
"""The forms of the step: what is replaced, by the name of the form."""


@contextlib.contextmanager
def with_form(form: str) -> Iterator[None]:
    """Replaces the functions of a form while a step is traced."""
    jax.clear_caches()
    with contextlib.ExitStack() as replaced:
        for place, name, function in FORMS[form]:
            replaced.enter_context(mock.patch.object(place, name, function))
        yield
    jax.clear_caches()


def compiled_step(work: Work, precision: str, form: str) -> tuple[Callable[[int], float], dict[str, Any]]:
    """Returns a function that takes steps of a form and returns the seconds, and facts about the program."""
    experiment = experiment_of(work, precision)
    experiment = replace(experiment, training=replace(experiment.training, shared_draws=form == SHARED))
    task = build_adversarial_task(experiment)
    with with_form(form):
        take, facts = alone(task, work)
        facts["flops"] = step_flops(task, work.batch, (work.resolution, work.resolution, 3))

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready([take() for _ in range(steps)])
        return time.perf_counter() - start

    return seconds, facts


def measure(work: Work, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the results of a row: for each form the facts about its program, and its seconds per step."""
    steppers, facts = {}, {}
    for form in FORMS:
        steppers[form], facts[form] = compiled_step(work, given.precision, form)
        steppers[form](1)  # the first step also allocates memory
        progress(f"ready: {form}")
    times = take_turns(steppers, rounds=given.rounds, turn_seconds=given.turn_seconds, say=progress)
    return {form: {"facts": facts[form], "seconds": times[form]} for form in FORMS}


def tables(result: Mapping[str, Any]) -> str:
    """Returns the result as Markdown, with a table for each row."""
    heads = ["form", "ms a step", "time over that of the step as it is", "quartiles", "GFLOP", "temporaries, MiB"]
    parts = []
    for name, row in result["rows"].items():
        whole = row["forms"][WHOLE]["seconds"]
        lines = []
        for form, found in row["forms"].items():
            gain = ratios(whole, found["seconds"])
            memory = found["facts"]["temporary_bytes"]
            lines.append(
                [
                    form,
                    figures(1000 * spread(found["seconds"]).median),
                    f"{gain.median:.2f}",
                    "" if form == WHOLE else f"{gain.lower:.2f} to {gain.upper:.2f}",
                    figures(found["facts"]["flops"] / 1e9),
                    figures(memory / 2**20 if memory else None),
                ]
            )
        work = Work(**row["work"])
        title = f"**{name}**: {work.resolution} px, width {work.width}, batch {work.batch}, {row['precision']}"
        parts.append(f"{title}, {row['library']}; {row['rounds']} rounds\n\n{markdown(heads, lines)}")
    return "\n\n".join(parts)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--row", action="append", default=[], help=f"of {', '.join(CPU_ROWS | GPU_ROWS)}; repeatable")
    parser.add_argument("--precision", default="float32", choices=("float32", "tensorfloat32", "bfloat16"))
    add_turns(parser, rounds=7, turn_seconds=1.0, each="row")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="one tiny row, to check that it works")
    given = parser.parse_args(arguments)
    check_turns(given, quick_rounds=2)
    return given


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    given = parse(arguments)
    if given.tables:
        print(tables(read_result(given.tables)))
        return
    result: dict[str, Any] = {"machine": machine(), "rows": {}}
    for name, work in rows_of(given).items():
        progress(f"row {name}")
        facts = {"work": vars(work), "rounds": given.rounds, "precision": given.precision}
        library = f"jax {jax.__version__} on {jax.default_backend()}"
        result["rows"][name] = {**facts, "library": library, "forms": measure(work, given)}
        write_result(given.out, result)
    print(tables(result))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "step_parts"))
