"""Callbacks: what a run tells them, those that fail, those of a user, and Weights & Biases without a network."""

import hashlib
import importlib.util
import json
import re
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sagan_jax
from sagan_jax.config import (
    Data,
    Evaluation,
    Experiment,
    Networks,
    Recording,
    Training,
    from_dict,
    to_dict,
    user_objects,
)
from sagan_jax.errors import StorageError
from sagan_jax.import_paths import find_object
from sagan_jax.runs import session
from sagan_jax.runs.callbacks import CallbackCalls, find_callbacks
from sagan_jax.runs.resume import remove_run
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime.callbacks import Callback, RunStart
from sagan_jax.runtime.environment import RUN_FILES
from sagan_jax.runtime.tensorboard import TensorBoard
from support.assertions import refusal
from support.commands import command, error_line
from support.metrics import read_metrics

pytestmark = pytest.mark.one_jax

OWN = """
import json

import flax.linen as nn

from sagan_jax import Callback


class Generator(nn.Module):
    @nn.compact
    def __call__(self, latents, labels, *, train):
        return nn.tanh(nn.Dense(32 * 32 * 3)(latents).reshape(-1, 32, 32, 3))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, images, labels, *, train):
        return nn.Dense(1)(images.mean((1, 2)))[:, 0]


class Told(Callback):
    def start(self, run):
        self.path = run.workdir / "told.jsonl"
        self.write("start", run.name, run.first_step, run.total_steps, run.config["training"]["batch_size"])

    def metrics(self, step, values):
        self.write("metrics", step, sorted(values))
        values.clear()

    def images(self, name, step, image):
        self.write("images", name, step, list(image.shape))

    def scores(self, step, values):
        self.write("scores", step, values)

    def end(self, how, message):
        self.write("end", how, message)

    def write(self, *what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\\n")


class Fails(Told):
    def metrics(self, step, values):
        raise KeyError("planted")


class Short:
    def start(self, run): ...
    def metrics(self, step): ...


TOLD = Told()
NOTHING = 3


def needs(argument): ...
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "told.py"
    path.write_text(OWN)
    return path


def experiment(file: Path, *callbacks: str, total_steps: int = 3) -> Experiment:
    return Experiment(
        name="told",
        data=Data("pairs", cache=""),
        networks=Networks(
            modules=(f"{file}:Generator", f"{file}:Discriminator"), resolution=32, num_classes=0, latent_size=5
        ),
        training=Training(total_steps=total_steps, batch_size=4),
        recording=Recording(1, 2, 2, callbacks=callbacks),
        evaluation=Evaluation(("rule1k",), evaluate_every_steps=3),
    )


def told(workdir: Path) -> list[list]:
    return [json.loads(line) for line in (workdir / "told.jsonl").read_text().splitlines()]


def records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file of Weights & Biases: a log in blocks of 32 KiB, as LevelDB describes it."""
    content, place, record = path.read_bytes(), 7, b""  # the file begins with 7 bytes of its own
    assert content.startswith(b":W&B")
    while place < len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def steps_sent(workdir: Path) -> list[list[int]]:
    """Returns the steps of the rows that each start wrote for Weights & Biases."""
    from wandb.proto.wandb_internal_pb2 import Record

    starts = []
    for path in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        found = [Record.FromString(record) for record in records(path)]
        assert {f"run-{record.run.run_id}.wandb" for record in found if record.HasField("run")} == {path.name}
        starts.append([record.history.step.num for record in found if record.HasField("history")])
    return starts


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "wandb" in thread.name]


HAS_WANDB = importlib.util.find_spec("wandb") is not None


class Noting(Callback):
    def __init__(self) -> None:
        self.events: list = []

    def start(self, run):
        self.events.append("start")

    def metrics(self, step, values):
        self.events.append((step, values))

    def images(self, name, step, image):
        self.events.append(image)

    def end(self, how, message):
        self.events.append((how, message))


@pytest.fixture(scope="module")
def given() -> Noting:
    return Noting()


@pytest.fixture(scope="module")
def first(file, given, tmp_path_factory) -> Path:
    """The workdir of a run of three steps; read only."""
    workdir = tmp_path_factory.mktemp("callbacks") / "run"
    ours = ("tensorboard", "wandb") if HAS_WANDB else ("tensorboard",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        sagan_jax.train(experiment(file, *ours, f"{file}:Fails", f"{file}:TOLD"), workdir, callbacks=[given])
    return workdir


@pytest.fixture(scope="module")
def again(first) -> Path:
    """A copy of `first` that lost its last checkpoint, and went on from step 2 to step 4; read only."""
    workdir = Path(shutil.copytree(first, first.with_name("again"), symlinks=True))
    shutil.rmtree(workdir / "checkpoints" / "3")
    (workdir / "told.jsonl").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        assert command("train", "--workdir", workdir, "--total-steps", 4) == 0
    return workdir


def test_callbacks_are_told_all_that_a_run_records_in_its_order(first):
    events, lines = told(first), read_metrics(first)
    assert events[:2] == [["start", "told", 0, 3, 4]] * 2
    assert events[-2:] == [["end", "finished", ""]] * 2  # also for the one that failed at its first metrics
    assert [event for event in events if event[0] == "metrics"] == [
        ["metrics", line["step"], sorted(line.keys() - {"step"})] for line in lines
    ]
    scores = json.loads((first / "scores" / "rule1k-00000003.json").read_text())["values"]
    assert [event for event in events if event[0] == "scores"] == [["scores", 3, scores]]
    assert [event[1:3] for event in events if event[0] == "images"] == [["samples", 2], ["samples", 3]]


def test_callbacks_that_no_config_names_are_told_the_same(first, given):
    assert (given.events[0], given.events[-1]) == ("start", ("finished", ""))
    lines = [(line["step"], line.keys() - {"step"}) for line in read_metrics(first)]
    assert [(event[0], event[1].keys()) for event in given.events[1:-1] if isinstance(event, tuple)] == lines


def test_only_the_first_process_calls_and_only_where_something_is_left_to_do(first, tmp_path, monkeypatch):
    workdir = Path(shutil.copytree(first, tmp_path / "run"))
    told = Noting()
    experiment = replace(sagan_jax.open_run(first).experiment, recording=Recording(1, 2, 2, callbacks=()))
    sagan_jax.train(experiment, workdir, callbacks=[told])
    assert told.events == []
    for is_first, events in ((False, []), (True, ["start", ("finished", "")])):
        (workdir / "report.html").unlink()
        monkeypatch.setattr(session, "is_main_process", lambda is_first=is_first: is_first)
        sagan_jax.train(experiment, workdir, callbacks=[told])
        assert told.events == events


def test_a_run_that_goes_on_tells_its_steps_from_there(again):
    events = told(again)
    assert events[:2] == [["start", "told", 2, 4, 4]] * 2
    assert sorted({event[1] for event in events if event[0] == "metrics"}) == [3, 4]


@pytest.mark.skipif(not HAS_WANDB, reason="needs wandb, which is in the extra `wandb`")
def test_wandb_has_each_step_once_and_in_order_under_one_id(first, again):
    assert steps_sent(first) == [[1, 2, 3]]
    assert steps_sent(again) == [[1, 2, 3], [4]]
    saved = [json.loads((workdir / "wandb" / "sagan_jax.json").read_text()) for workdir in (first, again)]
    assert [one["step"] for one in saved] == [3, 4]
    assert saved[0]["id"] == saved[1]["id"]
    assert threads() == []


def test_config_of_a_run_names_its_callbacks_and_opening_it_needs_none(first, file):
    saved = json.loads((first / "config.json").read_text())
    assert saved["recording"]["callbacks"][-1] == f"{file}:TOLD"
    assert saved["sources"][f"{file}:TOLD"] == hashlib.sha256(file.read_bytes()).hexdigest()
    experiment = sagan_jax.open_run(first).experiment
    assert user_objects(experiment) == [f"{file}:Discriminator", f"{file}:Generator"]


def test_old_configs_are_told_tensorboard():
    values = to_dict(Experiment())
    del values["recording"]["callbacks"]
    assert from_dict(values).recording.callbacks == ("tensorboard",)


# One by one


def failing(method: str, error: BaseException) -> Noting:
    def fail(self, *arguments):
        raise error

    return type("Failing", (Noting,), {method: fail})()


def calls_of(*callbacks: Callback) -> CallbackCalls:
    return CallbackCalls(find_callbacks((), callbacks), RunStart("told", Path(), {}, 0, 9))


@pytest.mark.parametrize("error", [ValueError("planted"), StorageError("planted"), SystemExit("planted")])
@pytest.mark.parametrize("method", ["metrics", "images", "scores"])
def test_a_callback_that_fails_is_one_line_and_the_others_go_on(method, error, capsys):
    bad, good = failing(method, error), Noting()
    with calls_of(bad, good) as calls:
        for step in (1, 2):
            calls.metrics(step, {"a": 0.5})
            calls.images("samples", step, np.zeros((2, 3, 1), np.uint8))
            calls.scores(step, {"b": 1.5})
        calls.end("finished", "")
    assert bad.events[-1] == ("finished", "")
    assert len(bad.events) == {"metrics": 2, "images": 3, "scores": 4}[method]
    assert [event for event in good.events if isinstance(event, tuple)][:2] == [(1, {"a": 0.5}), (2, {"a": 0.5})]
    said = capsys.readouterr().err
    place = "" if isinstance(error, StorageError) else f"{type(error).__name__} in line "
    assert said.startswith(f"warning: The callback Failing failed in {method}: {place}")
    assert said.endswith("planted. The run goes on without it.\n")
    assert said.count("\n") == 1
    assert ("of 'test_callbacks.py'" in said) == bool(place)


def test_a_callback_that_cannot_start_ends_those_before_it_and_the_command(capsys):
    good, bad, after = Noting(), failing("start", ValueError("planted")), Noting()
    line = refusal(calls_of(good, bad, after).__enter__)
    assert re.fullmatch(
        r"The callback Failing could not start: ValueError in line \d+ of 'test_callbacks.py': planted.", line
    )
    assert good.events == ["start", ("failed", line.removesuffix("."))]
    assert bad.events == after.events == []
    assert capsys.readouterr().err == ""


def test_a_callback_that_cannot_start_leaves_no_run_that_another_config_contradicts(file, tmp_path):
    bad = failing("start", ValueError("planted"))
    assert "could not start" in refusal(sagan_jax.train, experiment(file), tmp_path / "run", callbacks=[bad])
    assert not any((tmp_path / "run" / name).exists() for name in RUN_FILES)


def test_tensorboard_that_could_not_begin_again_ends_without_a_second_error(tmp_path):
    board = TensorBoard()
    board.start(RunStart("told", tmp_path, {}, 0, 9))
    shutil.rmtree(tmp_path / "tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(StorageError):
        board.metrics(1, {"a": 0.5})
    board.end("finished", "")


def test_callbacks_cannot_change_what_is_recorded_or_told_to_others():
    first, second = Noting(), Noting()
    values, image = {"a": 0.5}, np.zeros((2, 3, 1), np.uint8)
    with calls_of(first, second) as calls:
        calls.metrics(1, values)
        first.events[1][1].clear()
        calls.images("samples", 1, image)
    assert second.events[1] == (1, {"a": 0.5})
    assert values == {"a": 0.5}
    with pytest.raises(ValueError, match="read-only"):
        first.events[2][0] = 1
    image[0] = 1


def test_an_error_that_ends_a_run_ends_its_callbacks_once(capsys):
    good = Noting()
    with pytest.raises(KeyError), calls_of(good, failing("end", OSError("gone"))):
        raise KeyError("planted")
    assert good.events == ["start", ("failed", "'planted'")]
    assert re.fullmatch(
        r"warning: The callback Failing failed in end: OSError in line \d+ of 'test_callbacks.py': gone.\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Short", "needs a method metrics(step, values); its own is metrics(step)."),
        ("NOTHING", "needs a method start(run); an object of type int has none. A subclass of sagan_jax.Callback has"),
        ("needs", "could not be called without arguments: TypeError"),
        ("Tolt", "has no 'Tolt'. Perhaps you meant Told."),
    ],
)
def test_a_broken_contract_is_refused_in_one_line(name, words, file):
    assert words in refusal(find_callbacks, ("tensorboard", f"{file}:{name}"))


def test_a_name_that_is_none_is_refused_with_the_near_one():
    line = refusal(check_config, Experiment(recording=Recording(callbacks=("tensorbord",))))
    assert "--callbacks needs to be one of tensorboard, wandb or an object of yours as file.py:NAME" in line
    assert line.endswith("Perhaps you meant tensorboard.")


def test_wandb_that_is_not_installed_is_said_before_anything_is_written(monkeypatch, file, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refusal(sagan_jax.train, experiment(file, "wandb"), tmp_path / "run")
    assert line == "The callback wandb needs its package: pip install 'sagan-jax[wandb]'."
    assert not (tmp_path / "run").exists()


def test_flag_takes_callbacks_of_a_user_and_refuses_them_before_anything_is_written(file, tmp_path, capsys):
    words = ("train", "digits_32", "--callbacks", "tensorboard", f"{file}:Short", "--workdir", tmp_path / "run")
    assert command(*words) == 2
    assert f"--callbacks {file}:Short needs a method metrics(step, values)" in error_line(capsys)
    assert not (tmp_path / "run").exists()
    assert command("train", "--callbacks", "wandb", "digits_32") == 2
    assert "EXPERIMENT comes before the flags" in error_line(capsys)


def test_starting_over_is_another_run_of_wandb_and_keeps_what_may_not_be_sent_yet(tmp_path):
    (tmp_path / "wandb" / "offline-run-1-a").mkdir(parents=True)
    (tmp_path / "wandb" / "sagan_jax.json").write_text("{}")
    remove_run(tmp_path)
    assert [path.name for path in (tmp_path / "wandb").iterdir()] == ["offline-run-1-a"]


def test_objects_in_python_are_named_in_the_config(file):
    told = find_object(f"{file}:TOLD")
    assert Recording(callbacks=["wandb", told, type(told)]).callbacks == ("wandb", f"{file}:TOLD", f"{file}:Told")
    assert "has no name" in refusal(Recording, callbacks=(Noting(),))
