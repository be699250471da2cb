"""The table of what the images of runs lose when attention maps are replaced."""

import doctest
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sagan_jax.config import to_dict
from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.replaced_attention import KnockOut
from sagan_jax.runs.experiments import load_experiment
from support.programs import BENCHMARKS, program_with_neighbours

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "knock_out.py"


@pytest.fixture
def program():
    with program_with_neighbours(PROGRAM) as loaded:
        yield loaded


def scores(parts, follows, hue, chance=0.25):
    return {
        "parts": parts,
        "follows_rule": follows,
        "beyond_chance": follows - 0.125,
        "hue": hue,
        "hue_chance": chance,
    }


def found(hue):
    """Half of the blobs are lost where the map is uniform, and all where it is that of another image."""
    replaced = {"uniform": scores(0.5, 0.25, hue - 0.25), "another image's": scores(0.0, 0.0, 0.0, 0.0)}
    return KnockOut(7, {"learned": scores(1.0, 0.75, hue), **replaced, "without the partner": scores(1.0, 0.5, 0.5)})


def test_rows_are_means_over_seeds_of_what_is_left_and_what_is_lost(program, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    layers = {"both": ("attention_8", "attention_16"), "one": ("attention_16",), "none": ()}
    generators = {f"{row}-{seed}": (row, seed) for row in layers for seed in range(2)}
    asked = []

    def knock_out(generator, rule, chosen, *, count):
        asked.append((generator, rule.seed, chosen, count))
        return KnockOut(0, {}) if generator == ("both", 1) else found(0.75 + generator[1] / 8)

    monkeypatch.setattr(program, "require_pairs", lambda workdir: Pairs(seed=len(workdir.name)))
    opened = {name: SimpleNamespace(generator=lambda of=of: of) for name, of in generators.items()}
    monkeypatch.setattr(program, "open_run", lambda workdir: opened[workdir.name])
    monkeypatch.setattr(program, "replaceable_layers", lambda generator: layers[generator[0]])
    monkeypatch.setattr(program, "knock_out", knock_out)
    for name in generators:
        (tmp_path / "runs" / name).mkdir(parents=True)
    arguments = [*(f"runs/{name}" for name in generators), "--images", "321"]
    program.run(arguments)
    assert asked[:3] == [
        (("both", 0), 6, chosen, 321) for chosen in [*((layer,) for layer in layers["both"]), layers["both"]]
    ]
    printed, count = capsys.readouterr().out, len(asked)
    program.run(arguments)
    assert len(asked) == count  # the results are kept
    assert capsys.readouterr().out == printed
    lines = printed.splitlines()
    assert lines[0].startswith("| row | layers | map | two clear blobs |")
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        [f"| {row}", of, name]
        for row, of in (("both", "8"), ("both", "16"), ("both", "8 and 16"), ("one", "16"))
        for name in ("learned", "uniform", "another image's", "without the partner")
    ]
    assert lines[2] == "| both | 8 | learned | 1.00 | 0.75 | 0.62 |  | 0.75 | 0.25 |  | 1 of 2 |"
    assert lines[-4:] == [
        "| one | 16 | learned | 1.00 [1.00, 1.00] | 0.75 [0.75, 0.75] | 0.62 [0.62, 0.62] |  | 0.81 [0.75, 0.88] "
        "| 0.25 [0.25, 0.25] |  | 2 of 2 |",
        "| one | 16 | uniform | 0.50 [0.50, 0.50] | 0.25 [0.25, 0.25] | 0.12 [0.12, 0.12] | +0.50 [+0.50, +0.50] "
        "| 0.56 [0.50, 0.62] | 0.25 [0.25, 0.25] | +0.25 [+0.25, +0.25] | 2 of 2 |",
        "| one | 16 | another image's | 0.00 [0.00, 0.00] | 0.00 [0.00, 0.00] | -0.12 [-0.12, -0.12] | "
        "+0.75 [+0.75, +0.75] | – | – | – | 2 of 2 |",
        "| one | 16 | without the partner | 1.00 [1.00, 1.00] | 0.50 [0.50, 0.50] | 0.38 [0.38, 0.38] | "
        "+0.25 [+0.25, +0.25] | 0.50 [0.50, 0.50] | 0.25 [0.25, 0.25] | +0.31 [+0.25, +0.38] | 2 of 2 |",
    ]


def test_doctest(program):
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


def test_run_on_something_else_is_refused(program, tmp_path):
    with pytest.raises(InvalidInputError, match="no run"):
        program.run([str(tmp_path / "at 8-0")])
    with pytest.raises(InvalidInputError, match="--images needs at least 1; got 0"):
        program.run(["r/at 16-0", "--images", "0"])


def with_steps(steps):
    run = load_experiment("pairs_32")
    return replace(run, training=replace(run.training, total_steps=steps))


def test_runs_that_collapsed_or_are_not_finished_are_left_out_and_said(program, tmp_path, capsys, monkeypatch):
    results = {
        "a-0": {"curves": {"score/rule1k/parts": [[1, 0.5], [2, 0.0199]]}},
        "a-1": {"curves": {"score/rule1k/parts": [[1, 0.001], [2, 0.02]]}},
        "a-2": {"diverged_at": 300, "curves": {}},
        "a-3": None,
    }
    for name, result in results.items():
        (tmp_path / name).mkdir()
        if result is not None:
            (tmp_path / name / "row.json").write_text(json.dumps(result))
    workdirs = [tmp_path / name for name in results]
    assert program.finished_runs(workdirs) == [tmp_path / "a-1", tmp_path / "a-3"]
    assert capsys.readouterr().err == "".join(f"left out: {tmp_path}/{name} collapsed\n" for name in ("a-0", "a-2"))
    steps = {"b-0": [], "b-1": [400], "b-2": [1000, 2000], "b-3": [8000], "b-4": []}
    monkeypatch.setattr(sys.modules["agreement_by_distance"], "checkpoint_steps", lambda workdir: steps[workdir.name])
    for name in steps:
        (tmp_path / name).mkdir()
        run = to_dict(with_steps(8000 if name == "b-3" else 2000))
        (tmp_path / name / "config.json").write_text(json.dumps(run))
        if name in ("b-3", "b-4"):  # trained further since; a copy of the result alone
            (tmp_path / name / "row.json").write_text(
                json.dumps({"curves": {}, "experiment": to_dict(with_steps(2000))})
            )
    assert program.finished_runs([tmp_path / name for name in steps]) == [tmp_path / "b-2", tmp_path / "b-4"]
    assert capsys.readouterr().err.count("is not finished, or was trained further") == 3
    with pytest.raises(InvalidInputError, match="None of these runs is finished and did not collapse"):
        program.run([str(tmp_path / "a-0")])
