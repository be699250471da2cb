import io
import json
import platform
import struct
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.training import recording
from sagan_jax.training.recording import Progress, Recorder, save_png, write_atomically, write_run_files, write_together


def read_metrics(workdir):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def read_events(workdir):
    """Reads the records by their layout: length, its checksum, the bytes, their checksum."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


def record(workdir, first_step, steps):
    with Recorder(workdir, first_step=first_step) as recorder:
        for step in steps:
            recorder.scalars(step, {"generator/loss": step / 4})


def test_scalars_are_one_json_object_a_line(tmp_path):
    record(tmp_path / "run", 0, [3, 5])
    assert read_metrics(tmp_path / "run") == [
        {"step": 3, "generator/loss": 0.75},
        {"step": 5, "generator/loss": 1.25},
    ]


def test_scalars_are_on_disk_when_the_call_returns(tmp_path):
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.scalars(3, {"a": 1})
        assert read_metrics(tmp_path) == [{"step": 3, "a": 1.0}]
        assert read_events(tmp_path)[-1].step == 3


def test_scalars_take_jax_and_numpy_numbers(tmp_path):
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.scalars(np.int64(3), {"a": jax.numpy.float32(0.5), "b": np.int32(2)})
    assert read_metrics(tmp_path) == [{"step": 3, "a": 0.5, "b": 2.0}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scalars_that_are_not_finite_are_null(tmp_path, value):
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.scalars(3, {"a": value, "b": 1.5})
    assert read_metrics(tmp_path) == [{"step": 3, "a": None, "b": 1.5}]


def test_scalars_reach_tensorboard(tmp_path):
    record(tmp_path, 0, [3, 5])
    points = [
        (event.step, value.tag, value.simple_value) for event in read_events(tmp_path) for value in event.summary.value
    ]
    assert points == [(3, "generator/loss", 0.75), (5, "generator/loss", 1.25)]


def test_recorder_goes_on_from_the_restored_step(tmp_path):
    record(tmp_path, 0, [2, 4, 6, 8])
    record(tmp_path, 4, [6, 9])
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 4, 6, 9]


def test_recorder_tells_tensorboard_which_steps_are_done_again(tmp_path):
    record(tmp_path, 0, [2, 4, 6, 8])
    record(tmp_path, 4, [6])
    starts = [event.step for event in read_events(tmp_path) if event.HasField("session_log")]
    assert starts == [1, 5]


def test_recorder_keeps_the_events_of_a_start_in_the_same_second(tmp_path):
    for step in (1, 2, 3):
        record(tmp_path, step - 1, [step])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


@pytest.mark.parametrize("torn", ['{"step": 3, "gener', '{"step": 3, "a": 1.5', "\0\0\0", '"step"'])
def test_recorder_drops_a_torn_last_line(tmp_path, torn):
    record(tmp_path, 0, [2])
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(torn)
    record(tmp_path, 7, [9])
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 9]


def test_recorder_ends_a_whole_line_that_lost_its_end_of_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}', encoding="utf-8")
    record(tmp_path, 2, [3])
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 3]


def test_recorder_says_in_one_line_that_the_workdir_is_a_file(tmp_path):
    (tmp_path / "run").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match=r"run/metrics.jsonl could not be written: [^\n]*$"):
        Recorder(tmp_path / "run", first_step=0)


def test_recorder_says_in_one_line_that_tensorboard_has_no_place(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match=r"/tensorboard could not be written: File exists$"):
        Recorder(tmp_path, first_step=0)


def test_recorder_says_in_one_line_that_the_disk_is_full():
    # /dev/full refuses each write as a full disk does.
    recorder = Recorder.__new__(Recorder)
    recorder._metrics_path = Path("/dev/full")
    recorder._metrics = recorder._metrics_path.open("w")
    with pytest.raises(StorageError, match=r"^/dev/full could not be written: No space left on device$"):
        recorder.scalars(3, {"a": 1.0})
    with pytest.raises(OSError, match="No space"):
        recorder._metrics.close()


def leave_with_unwritten_text(workdir, error):
    with Recorder(workdir, first_step=0) as recorder:
        recorder._metrics.close()
        recorder._metrics = Path("/dev/full").open("w")  # noqa: SIM115, the recorder closes it
        recorder._metrics.write("not flushed")
        if error is not None:
            raise error


def test_recorder_says_that_the_disk_is_full_when_the_block_is_left(tmp_path):
    with pytest.raises(StorageError, match="No space left on device"):
        leave_with_unwritten_text(tmp_path, None)


def test_recorder_does_not_hide_the_error_that_ends_the_block(tmp_path):
    with pytest.raises(KeyError, match="planted"):
        leave_with_unwritten_text(tmp_path, KeyError("planted"))


@pytest.mark.parametrize("channels", [1, 3])
def test_image_is_a_png_of_the_same_pixels(tmp_path, channels):
    image = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.image("samples", 1200, image)
    with Image.open(tmp_path / "samples" / "samples-00001200.png") as found:
        np.testing.assert_array_equal(np.asarray(found).reshape(4, 5, channels), image)


def test_image_reaches_tensorboard(tmp_path):
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.image("samples", 1200, image)
    event = read_events(tmp_path)[-1]
    assert event.step == 1200
    with Image.open(io.BytesIO(event.summary.value[0].image.encoded_image_string)) as found:
        np.testing.assert_array_equal(np.asarray(found), image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5, 3), np.uint8)],
)
def test_save_png_refuses_what_is_no_image(tmp_path, image):
    with pytest.raises(InvalidInputError, match=r"needs an image \[H, W, 1 or 3\] of uint8; got \["):
        save_png(tmp_path / "a.png", image)


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(StorageError, match="/a could not be written: No space left on device"):
        write_atomically(tmp_path / "a", b"new!")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_write_together_writes_every_file(tmp_path):
    write_together(tmp_path / "new" / "folder", {"a": b"one", "b": b"other"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new/folder").iterdir()} == {
        "a": b"one",
        "b": b"other",
    }


def test_write_together_leaves_all_old_files_when_one_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    write_bytes = Path.write_bytes

    def refuse_b(path, content):
        if path.name.startswith(".b."):
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse_b)
    with pytest.raises(StorageError, match="/a, b could not be written: No space left on device"):
        write_together(tmp_path, {"a": b"new!", "b": b"new!"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_run_files_hold_the_config(tmp_path):
    config = {"name": "digits", "training": {"seed": 3, "sizes": [32]}}
    write_run_files(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8")) == config


def test_run_files_hold_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "2")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr("sys.argv", ["sagan-jax", "train"])
    write_run_files(tmp_path, {})
    environment = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert environment["versions"]["python"] == platform.python_version()
    assert environment["versions"]["jax"] == jax.__version__
    assert None not in environment["versions"].values()
    assert environment["device_count"] == jax.device_count()
    assert environment["argv"] == ["sagan-jax", "train"]
    assert environment["folder"] == str(Path.cwd())
    assert (environment["threads"], environment["XLA_FLAGS"]) == ("2", None)


@pytest.fixture
def checkout(tmp_path):
    """A package in a git checkout with one commit."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(package.parent), *command], check=True)
    return package


def test_revision_is_the_commit_of_the_checkout(checkout):
    head = (checkout.parent / ".git" / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: ")
    commit = (checkout.parent / ".git" / head).read_text(encoding="utf-8").strip()
    assert recording._revision(checkout) == {"git_revision": commit, "git_dirty": False}


def test_revision_is_dirty_when_the_package_was_changed(checkout):
    (checkout / "__init__.py").write_text("changed = True", encoding="utf-8")
    assert recording._revision(checkout)["git_dirty"] is True


def test_revision_is_not_dirty_for_the_results_of_runs(checkout):
    (checkout.parent / "runs").mkdir()
    (checkout.parent / "runs" / "metrics.jsonl").touch()
    assert recording._revision(checkout)["git_dirty"] is False


def test_revision_is_null_for_a_package_in_the_checkout_of_somebody_else(checkout):
    package = checkout.parent / "site-packages"
    package.mkdir()
    (package / "__init__.py").touch()
    assert recording._revision(package) == {"git_revision": None, "git_dirty": None}


def test_revision_is_null_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert recording._revision(checkout) == {"git_revision": None, "git_dirty": None}


class Terminal(io.StringIO):
    def isatty(self):
        return True


METRICS = {
    "discriminator/loss": 1.25,
    "discriminator/loss_real": 0.125,
    "generator/loss": -0.5,
    "generator/gamma_16": 0.0375,
    "discriminator/gamma_16": -0.0625,
}


def show(file, clock_times, steps, first_step=10):
    times = iter(clock_times)
    with Progress(110, first_step, file=file, clock=lambda: next(times)) as progress:
        for step in steps:
            progress.update(step, METRICS, 312.54)


def test_progress_is_one_plain_line_an_update():
    file = io.StringIO()
    show(file, [0, 20, 30], [20, 30])
    assert file.getvalue().splitlines()[0] == (
        "step 20/110  312.5 images/s  0:03:00 left  discriminator/loss 1.2500  generator/loss -0.5000  "
        "generator/gamma_16 0.0375  discriminator/gamma_16 -0.0625"
    )
    assert len(file.getvalue().splitlines()) == 2


def test_progress_counts_the_time_left_without_the_compilation():
    file = io.StringIO()
    show(file, [0, 500, 530], [20, 30])
    # After the first update 10 steps took 30 s; 80 are left.
    assert "  0:04:00 left" in file.getvalue().splitlines()[1]


def test_progress_of_a_run_that_is_done_has_no_time_left():
    file = io.StringIO()
    show(file, [0, 500], [110], first_step=110)
    assert "step 110/110  312.5 images/s  0:00:00 left" in file.getvalue()


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    show(file, [0, 20], [20])
    assert "━" in file.getvalue()
    assert "step 20/110" in file.getvalue()
    assert "generator/gamma_16 0.0375" in file.getvalue()


def test_progress_goes_to_standard_error(capsys):
    with Progress(30, 0) as progress:
        progress.update(3, {}, 1.0)
    captured = capsys.readouterr()
    assert captured.err.startswith("step 3/30")
    assert captured.out == ""
