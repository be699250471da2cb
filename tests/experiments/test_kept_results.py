"""Measurements of a run are kept until the run or the question changes."""

import json

import pytest

from sagan_jax.errors import InvalidInputError
from support.programs import BENCHMARKS, load_program

PROGRAM = BENCHMARKS / "kept_results.py"


@pytest.fixture(scope="module")
def program():
    return load_program(PROGRAM)


@pytest.fixture
def ask(program, tmp_path, monkeypatch):
    """Returns a function that asks for a count of images of a run with checkpoints of some steps.

    The answer is the number of the measurement that it comes from, counted from 1.
    """
    measured = []

    def asked(count=7, steps=()):
        monkeypatch.setattr(program, "checkpoint_steps", lambda workdir: list(steps))
        found = program.kept(tmp_path, "looks", count, lambda: measured.append(count) or [len(measured), None])
        assert found is not None
        return found[0]

    return asked


def test_it_is_measured_once(ask, tmp_path):
    assert [ask(steps=(10, 20)), ask(steps=(10, 20)), ask()] == [1, 1, 1]
    kept = {"images": 7, "step": 20, "run": None, "found": [1, None]}
    assert json.loads((tmp_path / "looks.json").read_text()) == kept


def test_it_is_measured_anew_for_another_run_in_the_same_folder(ask, program, monkeypatch):
    runs = iter(["one", "one", "other", "other"])
    monkeypatch.setattr(program, "digest_of", lambda workdir: next(runs))
    assert [ask(steps=(20,)) for _ in range(4)] == [1, 1, 2, 2]


def test_it_is_measured_anew_for_other_images_and_after_more_training(ask):
    assert [ask(steps=(20,)), ask(8, steps=(20,)), ask(8, steps=(20, 30)), ask(8, steps=(20, 30))] == [1, 2, 3, 3]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 7}', '{"images": 7, "step": 3}'])
def test_a_damaged_file_is_named(ask, tmp_path, content):
    (tmp_path / "looks.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"looks.json\' is damaged: remove it, and it is measured again"):
        ask()
