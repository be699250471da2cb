"""Runs the experiments of a table, `experiments/tables/NAME.py`, and writes their results as a table and a plot.

    python experiments/run_table.py completion_attention --out runs/completion_attention
    python experiments/run_table.py r3gan_digits --jobs 12 --out runs/r3gan_digits  # on a GPU with many CPU cores

The question of the table, its rows, its analysis and the statistical power are printed first, and written to
OUT/plan.md before the first run. A finished run is not run again, and a stopped run is resumed. After each run, the
table and the plot are written from the finished results. The tests follow when all runs are finished, because early
looks raise the rate of false findings. OUT/ROW-SEED is the workdir of each row and seed.
OUT/table.md and OUT/curves.png are the results. If images follow a rule, OUT/samples.png is written too. All rows of
one seed run before the next seed, so that a stopped table still compares rows fairly. If the table searches for
settings, OUT/search holds the same files of the search, which is finished before the first run. Ctrl-C stops the
program. Exit codes are those of `sagan-jax`. `--jobs N` does N runs at a time, each in its own process with its output
in ROW-SEED.log. `--pin` gives each of them its own share of the CPU cores, so that their threads do not wait for each
other. Compiled programs are cached, so the seeds of a row share them.
It needs scipy and statsmodels: pip install 'sagan-jax[tables]'.

The result of a run is OUT/ROW-SEED/row.json. A run that diverged has a result too: it counts as collapsed. Some of our
results are in `experiments/results`. Copied to OUT, they count as finished.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np

import sagan_jax
from comparisons.outcomes import COLLAPSED, outcomes, tested_scores
from comparisons.plan import plan
from comparisons.search import choices, chosen_table, search_table, trial
from comparisons.tables import estimate, known, whole
from sagan_jax.cli.main import explained
from sagan_jax.config import AnyExperiment, Experiment, Table, from_dict, to_dict
from sagan_jax.data.synthetic import parse_synthetic
from sagan_jax.errors import CollapsedError, InvalidInputError, NonFiniteError, SaganError, StoppedError
from sagan_jax.evaluation.rules import check_rule
from sagan_jax.runs.build import build_adversarial_task, build_completion_task, training_precision
from sagan_jax.runtime.compilation_cache import enable_compilation_cache
from sagan_jax.runtime.files import disk_errors, read_json, write_atomically
from sagan_jax.runtime.metrics_log import Curve, read_metrics
from sagan_jax.training import adversarial, completion
from sagan_jax.views.figures import image_grid

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

TABLES = Path(__file__).parent / "tables"
RESULT = "row.json"
Shares = Sequence[Sequence[int] | None]
"""The CPU cores of each run at a time, or None for all cores."""
STRIP = 2, 16
"""The number of lines and columns of images to show for a row."""


def load_table(name: str) -> Table:
    """Returns the table of a file in `experiments/tables`, with the docstring of the file as its question.

    Raises:
        InvalidInputError: there is no such table.
    """
    path = TABLES / f"{name}.py"
    if not path.is_file():
        known = sorted(found.stem for found in TABLES.glob("[!_]*.py"))
        raise InvalidInputError(f"There is no table {name!r}; there are {', '.join(known)}.")
    spec = importlib.util.spec_from_file_location(f"table_{name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.table(), question=inspect.getdoc(module) or "")


def rounded(curve: Curve) -> list[tuple[int, float]]:
    """Returns a curve with the precision that a plot shows.

    >>> rounded(Curve(np.array([50, 100]), np.array([0.123456, 2])))
    [(50, 0.1235), (100, 2.0)]
    """
    return [(int(step), float(f"{value:.4g}")) for step, value in zip(*curve, strict=True)]


def join_curves(runs: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps `[S]` at which any run recorded a metric, and the values `[runs, S]`; NaN where absent."""
    curves = [dict(run["curves"].get(name, ())) for run in runs]
    steps = sorted(set().union(*curves))
    return np.array(steps), np.array([[curve.get(step, np.nan) for step in steps] for curve in curves])


def widely_recorded(values: np.ndarray) -> np.ndarray:
    """Returns which steps most of the runs recorded, bool `[S]`. Runs that ended before a step are not counted for it.

    A run that was stopped also records its last step, which the other runs do not record.

    Args:
        values: `[runs, S]`; NaN where a run did not record a step.

    Examples:
        >>> widely_recorded(np.array([[1, 2, np.nan], [1, np.nan, 3], [1, np.nan, np.nan]])).tolist()
        [True, False, True]
    """
    recorded = ~np.isnan(values)
    not_ended = np.cumsum(recorded[:, ::-1], axis=1)[:, ::-1] > 0
    return recorded.sum(axis=0) * 2 > not_ended.sum(axis=0)


def minutes_of(experiment: AnyExperiment, speeds: np.ndarray) -> float:
    """Returns the minutes of a run's steps at its median speed, which pauses of the machine do not affect.

    Args:
        experiment: the experiment of the run.
        speeds: the recorded speeds, in images a second.
    """
    images = experiment.training.total_steps * experiment.training.batch_size
    if isinstance(experiment, Experiment):
        images *= experiment.training.discriminator_steps
    return float(images / np.median(speeds) / 60)


def parameters_of(experiment: AnyExperiment) -> int:
    """Returns the number of parameters of the networks, including a discriminator."""
    if isinstance(experiment, Experiment):
        networks = experiment.networks
        shape = (networks.resolution, networks.resolution, networks.image_channels)
        state = jax.eval_shape(lambda: adversarial.initial_state(build_adversarial_task(experiment), 0, shape))
        trained = (state.generator, state.discriminator)
    else:
        state = jax.eval_shape(lambda: completion.initial_state(build_completion_task(experiment), 0))
        trained = (state.network, state.discriminator)
    return sum(leaf.size for network in trained if network for leaf in jax.tree.leaves(network.params))


def run_of(table: Table, row: str, seed: int) -> AnyExperiment:
    """Returns the experiment of a row with one of the seeds."""
    experiment = table.rows[row]
    training = dataclasses.replace(experiment.training, seed=seed)
    return dataclasses.replace(experiment, training=training)  # pyrefly: ignore[bad-argument-type]


def read_result(table: Table, row: str, seed: int, out: Path) -> dict[str, Any] | None:
    """Returns the result of a run, or None if it is not finished.

    Raises:
        InvalidInputError: the result cannot be read, or belongs to another run than that of the table.
    """
    path = out / f"{row}-{seed}" / RESULT
    damaged = f"{str(path)!r} is damaged: remove it, and the run is scored again."
    try:
        result = read_json(path)
        experiment = from_dict(result["experiment"])  # a result of an older version lacks the newest fields
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (InvalidInputError, TypeError, KeyError) as error:
        raise InvalidInputError(damaged) from error
    if experiment != from_dict(to_dict(run_of(table, row, seed))):  # checked first: another table has other scores
        raise InvalidInputError(f"{str(path.parent)!r} holds another run than this table's: give another --out.")
    if not is_result(table, result):
        raise InvalidInputError(damaged)
    return result


def is_result(table: Table, result: Any) -> bool:
    """Returns whether a JSON value has the fields of a result, with the right types, and every score that is tested.

    Other scores may be missing, because they may have been added to the table later.
    """

    def is_number(value: Any) -> bool:
        return type(value) is float or (type(value) is int and abs(value) < 2**53)

    def is_point(point: Any) -> bool:
        return isinstance(point, list) and len(point) == 2 and type(point[0]) is int and all(map(is_number, point))

    if not isinstance(result, dict) or not is_number(result.get("minutes")):
        return False
    values, curves = result.get("values"), result.get("curves")
    tested = [score for score in tested_scores(table) if score != COLLAPSED]
    diverged = type(result.get("diverged_at")) is int and result["diverged_at"] > 0
    return (
        "experiment" in result
        and (diverged or "diverged_at" not in result)
        and isinstance(values, dict)
        and (diverged or all(name in values for name in tested))
        and all(is_number(values[name]) for name in table.scores if name in values)
        and isinstance(curves, dict)
        and all(isinstance(curve, list) and all(map(is_point, curve)) for curve in curves.values())
        and (diverged or table.collapse is None or bool(curves.get(table.collapse.curve)))
    )


def kept_curves(table: Table) -> list[str]:
    """Returns the metrics that a result keeps: those that are drawn, and the one that defines a collapse."""
    return list(dict.fromkeys([*table.curves, *([table.collapse.curve] if table.collapse else [])]))


def run_row(table: Table, row: str, seed: int, out: Path) -> None:
    """Trains and scores one run, unless its result exists. A run that diverged or collapsed has a result too.

    Raises:
        InvalidInputError: a trained run has lost its metrics, or never recorded the one that defines a collapse.
    """
    if read_result(table, row, seed, out):
        return
    experiment, workdir = run_of(table, row, seed), out / f"{row}-{seed}"
    print(f"\n{row}, seed {seed}", flush=True)
    outcome: dict[str, Any] = {}
    try:
        sagan_jax.train(experiment, workdir)
        check_metrics(table, workdir)
        values = sagan_jax.evaluate(workdir, *table.protocols, **table.evaluation)
        outcome = {"values": {name: values[name] for name in table.scores}}
    except (NonFiniteError, CollapsedError) as error:
        print(f"{row}, seed {seed}, counts as collapsed. {error}", flush=True)
        outcome = {"values": {}, "diverged_at": step_of(error, workdir)}
    curves = read_metrics(workdir / "metrics.jsonl").curves
    speeds = curves["images_per_second"].values if "images_per_second" in curves else np.array([np.inf])
    done = outcome.get("diverged_at", experiment.training.total_steps) / experiment.training.total_steps
    result = outcome | {
        "experiment": to_dict(experiment),
        "precision": training_precision(experiment),
        "minutes": minutes_of(experiment, speeds) * done,
        "curves": {name: rounded(curves[name]) if name in curves else [] for name in kept_curves(table)},
    }
    write_atomically(workdir / RESULT, (json.dumps(result) + "\n").encode())


def check_metrics(table: Table, workdir: Path) -> None:
    """Raises InvalidInputError if a trained run has lost its metrics, or lacks the one that defines a collapse."""
    curves = read_metrics(workdir / "metrics.jsonl").curves
    if "images_per_second" not in curves:
        raise InvalidInputError(f"The run in {str(workdir)!r} has lost its metrics: remove it, and it is run again.")
    if table.collapse and table.collapse.curve not in curves:
        raise InvalidInputError(
            f"The table defines a collapse by {table.collapse.curve!r}, which the run in {str(workdir)!r} has never "
            f"recorded: name a metric that its rows record."
        )


def step_of(error: NonFiniteError | CollapsedError, workdir: Path) -> int:
    """Returns the step at which a run ended: the step of its error, or else the last recorded step."""
    if isinstance(error, NonFiniteError) and error.step is not None:
        return error.step
    recorded = read_metrics(workdir / "metrics.jsonl").curves.values()
    return max((int(curve.steps.max()) for curve in recorded), default=1)


def results(table: Table, out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns the finished results, by row and seed.

    Raises:
        InvalidInputError: a result cannot be read, or belongs to another run than that of the table. Also when the runs
            were trained in different precisions.
    """
    found = {
        row: {seed: result for seed in table.seeds if (result := read_result(table, row, seed, out))}
        for row in table.rows
    }
    precisions = precisions_of(found)
    if len(precisions) > 1:
        raise InvalidInputError(
            f"{str(out)!r} needs runs of one precision; it holds {' and '.join(sorted(precisions))}, perhaps of a CPU "
            f"and a GPU: give another --out."
        )
    return found


def precisions_of(found: dict[str, dict[int, dict[str, Any]]]) -> set[str]:
    """Returns the precisions of the training of finished runs. Results of earlier versions do not hold it."""
    return {run["precision"] for of_row in found.values() for run in of_row.values() if "precision" in run}


def check_precision(table: Table, runs: Sequence[tuple[str, int]], out: Path) -> None:
    """Raises InvalidInputError if runs would be trained in another precision than the finished ones."""
    finished = precisions_of(results(table, out))
    for row in dict.fromkeys(row for row, _ in runs):
        precision = training_precision(table.rows[row])
        if finished - {precision}:
            raise InvalidInputError(
                f"{str(out)!r} needs runs of one precision; it holds {' and '.join(sorted(finished))}, and {row!r} "
                f"would be trained here in {precision}. Another device may have trained the others: give another --out."
            )


def plot(table: Table, found: dict[str, dict[int, dict[str, Any]]], out: Path) -> None:
    """Draws the curves of the finished runs, one colour per row: the mean over its seeds, with minimum and maximum."""
    count = len(table.curves)
    figure, panels = pyplot.subplots(count, figsize=(8, 3 * count), layout="constrained", squeeze=False)
    for axes, name in zip(panels[:, 0], table.curves, strict=True):
        for number, (row, runs) in enumerate(found.items()):
            steps, values = join_curves(list(runs.values()), name)
            if "gamma" in name:
                values = abs(values)  # the sign is arbitrary: the output kernel can absorb it
            if not len(steps):  # not run yet, or without this metric
                continue
            kept = widely_recorded(values)
            steps, values, colour = steps[kept], values[:, kept], f"C{number}"
            axes.plot(steps, np.nanmean(values, axis=0), color=colour, label=row)
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="steps", ylabel=f"|{name}|" if "gamma" in name else name)
        if axes.has_data():
            axes.legend(frameon=False, fontsize=8)
    save(figure, out / "curves.png", dpi=100)


def draw_strips(table: Table, found: dict[str, dict[int, dict[str, Any]]], out: Path) -> None:
    """Draws images of a row's first run below the row's first score. Images that follow the rule are underlined.

    Runs that diverged are skipped. Rows without a checkpoint are left out.
    """
    workdirs = {
        row: [
            out / f"{row}-{seed}"
            for seed, run in sorted(found[row].items())
            if "diverged_at" not in run and any((out / f"{row}-{seed}").glob("checkpoints/*"))
        ]
        for row in table.strips
    }
    shown = [row for row, kept in workdirs.items() if kept]
    if not shown:
        return
    score, called = next(iter(table.scores.items()))
    lines, columns = STRIP
    figure, panels = pyplot.subplots(len(shown), figsize=(8, 1.4 * len(shown)), layout="constrained", squeeze=False)
    for axes, row in zip(panels[:, 0], shown, strict=True):
        samples = sagan_jax.load_run(workdirs[row][0]).generate(lines * columns)
        images, rule = samples.images, parse_synthetic(table.rows[row].data.source)
        step = images.shape[1] + 8
        axes.imshow(image_grid(images, columns, padding=8), interpolation="nearest")
        for number in np.flatnonzero(check_rule(images, rule, samples.labels).follows_rule):
            left, bottom = number % columns * step, (number // columns + 1) * step - 5
            axes.plot([left, left + step - 9], [bottom, bottom], color="C2", linewidth=2.5, clip_on=False)
        axes.set_title(f"{row}: {called} {estimate(known(outcomes(table, found, row, score)))}", fontsize=9)
        axes.axis("off")
    save(figure, out / "samples.png", dpi=120)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure atomically, because other processes may write the same file, and closes it."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi)
    write_atomically(path, content.getvalue())
    pyplot.close(figure)


def run(arguments: list[str]) -> None:
    """Does the remaining runs of a table, and writes the table after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the name of a file in experiments/tables")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--rows", nargs="+", default=[], help="the rows to run. Defaults to all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="the seeds to run. Defaults to all")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--pin", action="store_true", help="give each run its own share of the CPU cores (Linux)")
    given = parser.parse_args(arguments)
    enable_compilation_cache()
    if importlib.util.find_spec("statsmodels") is None:
        raise InvalidInputError("Tables need scipy and statsmodels: pip install 'sagan-jax[tables]'.")
    table = load_table(given.name)
    for wanted, offered in ((given.rows, table.rows), (given.seeds, table.seeds)):
        for name in wanted:
            if name not in offered:
                raise InvalidInputError(f"The table {given.name!r} has {', '.join(map(str, offered))}; got {name}.")
    if given.jobs < 1:
        raise InvalidInputError(f"--jobs needs at least 1; got {given.jobs}.")
    shares: Shares = core_shares(given.jobs) if given.pin else [None] * given.jobs
    if given.out.exists() and not given.out.is_dir():
        raise InvalidInputError(f"--out needs a folder; {str(given.out)!r} is a file.")
    check_results(table, given.out)
    state_plan(table, given.out)
    rows, seeds = list(dict.fromkeys(given.rows or table.rows)), list(dict.fromkeys(given.seeds or table.seeds))
    if table.search:
        trials = search_table(table)
        wanted = [trial(row, setting) for row in rows for setting in table.search.settings]
        run_rows(trials, wanted, trials.seeds, given.out / "search", shares=shares)
    chosen, table = resolved(table, given.out)
    if chosen:
        print(settings_text(chosen), flush=True)
    run_rows(table, rows, seeds, given.out, above=settings_text(chosen), shares=shares)
    print((given.out / "table.md").read_text(encoding="utf-8"))


def check_results(table: Table, out: Path) -> None:
    """Checks, before anything is written, that a folder holds no damaged results and none of another table.

    Raises:
        InvalidInputError: as `read_result`.
    """
    chosen, made = resolved(table, out)
    for row in chosen if table.search else table.rows:
        for seed in table.seeds:
            read_result(made, row, seed, out)


def state_plan(table: Table, out: Path) -> None:
    """Prints the plan of a table, and writes it to OUT/plan.md. If the plan has changed, the earlier plan stays above.

    A plan that is written after the first result says so.

    Raises:
        InvalidInputError: the rows are not a factorial design of the table's factors.
    """
    try:
        stated, path = plan(table), out / "plan.md"
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    print(stated, flush=True)
    before = path.read_bytes() if path.is_file() else b""  # as bytes, because a damaged file may not be text
    if before.endswith(stated.encode()):
        return
    finished = len(list(out.glob("**/" + RESULT)))
    if not before and finished:
        before = f"Written when {finished} runs were finished:\n\n".encode()
    elif before:
        print(f"The plan in {str(path)!r} has changed: the earlier plan is kept above the new one.", flush=True)
        before += f"\n---\n\nChanged when {finished} runs were finished:\n\n".encode()
    write_atomically(path, before + stated.encode())


def resolved(table: Table, out: Path) -> tuple[dict[str, str], Table]:
    """Returns the settings that the search of a table has chosen so far, by row, and the table with these settings."""
    if table.search is None:
        return {}, table
    chosen = choices(table, results(search_table(table), out / "search"))
    return chosen, chosen_table(table, chosen)


def settings_text(chosen: dict[str, str]) -> str:
    """Returns the chosen settings as a Markdown list."""
    return "".join(f"- {row}: {setting}\n" for row, setting in chosen.items())


def run_rows(
    table: Table, rows: Sequence[str], seeds: Sequence[int], out: Path, above: str = "", shares: Shares = (None,)
) -> None:
    """Does the remaining runs of some rows and seeds, and writes the table after each run.

    Args:
        table: a table without a search.
        rows: rows of the table.
        seeds: seeds of the table.
        out: the folder of the results.
        above: text above the written table.
        shares: one for each run at a time. With one share, the runs take place in this process.
    """
    parameters = {row: parameters_of(experiment) for row, experiment in table.rows.items()}
    runs = [(row, seed) for seed in seeds for row in rows if read_result(table, row, seed, out) is None]
    check_precision(table, runs, out)
    made = finish_runs(table, runs, out) if len(shares) == 1 else finish_runs_at_once(table, runs, out, shares)
    for _ in made if runs else [None]:
        found = results(table, out)
        text = whole(table, found, parameters)
        write_atomically(out / "table.md", (f"{above}\n{text}" if above else text).encode())
        plot(table, found, out)
        draw_strips(table, found, out)


def finish_runs(table: Table, runs: Sequence[tuple[str, int]], out: Path) -> Iterator[None]:
    """Does the runs, each a row and a seed, one by one, and yields after each."""
    for row, seed in runs:
        run_row(table, row, seed, out)
        yield


def core_shares(jobs: int) -> list[list[int]]:
    """Returns the CPU cores of each of several runs at a time.

    Raises:
        InvalidInputError: there are fewer cores than runs, or the operating system cannot pin processes.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise InvalidInputError("--pin needs Linux: this operating system cannot give a process its own CPU cores.")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs:
        raise InvalidInputError(f"--pin needs a CPU core for each of the {jobs} --jobs; there are {len(cores)}.")
    return [cores[number::jobs] for number in range(jobs)]


def finish_runs_at_once(table: Table, runs: Sequence[tuple[str, int]], out: Path, shares: Shares) -> Iterator[None]:
    """Does the runs, each in its own process, one for each share of the CPU cores, and yields after each.

    An error of one run, or a signal, stops the other runs. They save first, and the same command resumes them.

    Raises:
        SaganError: a run ended with an error, which is in its log.
        StoppedError: SIGINT, SIGTERM or SIGHUP.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else the first process takes most GPU memory
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # a fork would copy jax's locks
    waiting, running, free = list(runs), {}, list(shares)

    def start() -> None:
        while waiting and free:
            name, share = waiting.pop(0), free.pop(0)
            with disk_errors(log := log_of(*name, out)):
                log.open("a").close()  # checked here, because the process could not report an error
            process = context.Process(target=run_row_apart, args=(table, *name, out, share))
            process.start()
            running[process.sentinel] = name, process, share

    with signals_as_errors():
        try:
            start()
            while running:
                ended = connection.wait(list(running))
                for sentinel in ended:
                    name, process, share = running.pop(sentinel)
                    process.join()
                    free.append(share)
                    if process.exitcode:
                        raise error_of_run(name, process.exitcode, out)
                start()  # before the caller draws the table
                yield from [None] * len(ended)
        finally:
            if running:
                print(f"stopping {len(running)} runs, which save first", file=sys.stderr, flush=True)
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.join()


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """Raises StoppedError in the block when a signal asks this process to end."""

    def stop(number: int, _: Any) -> None:
        raise StoppedError(f"{signal.Signals(number).name}: the same command resumes the runs.", number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def error_of_run(run: tuple[str, int], exit_code: int, out: Path) -> SaganError:
    """Returns the error for a process that ended with an exit code; a code below 0 stands for a signal."""
    row, seed = run
    log = log_of(row, seed, out)
    if exit_code < 0:
        what = signal.Signals(-exit_code).name
        return InvalidInputError(
            f"The process of {row!r}, seed {seed}, was ended by {what}; perhaps memory ran out. Finished runs are "
            f"kept: give the same command, with fewer --jobs if memory is short."
        )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    error = SaganError(f"{row!r}, seed {seed}: {lines[-1].removeprefix('run_table: ')} More is in {str(log)!r}.")
    error.exit_code = exit_code
    return error


def log_of(row: str, seed: int, out: Path) -> Path:
    """Returns the log file of a run in its own process."""
    return out / f"{row}-{seed}.log"


def run_row_apart(table: Table, row: str, seed: int, out: Path, cores: Sequence[int] | None) -> None:
    """Calls `run_row` in its own process. Its output goes to a log file, so that the lines of runs do not mix."""
    os.setsid()  # so that Ctrl-C reaches only the parent process, which stops all runs
    if cores is not None:
        os.sched_setaffinity(0, cores)  # before jax counts the cores for its threads
    with log_of(row, seed, out).open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        enable_compilation_cache()
        sys.exit(explained(lambda: run_row(table, row, seed, out), "run_table"))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "run_table"))
