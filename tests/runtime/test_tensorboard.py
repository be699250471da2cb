"""The callback for TensorBoard: what is in its files, read by their layout."""

import io
import shutil
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from sagan_jax.errors import StorageError
from sagan_jax.runtime.callbacks import RunStart
from sagan_jax.runtime.tensorboard import TensorBoard

pytestmark = pytest.mark.one_jax


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


def started(workdir, first_step=0):
    tensorboard = TensorBoard()
    tensorboard.start(RunStart("run", workdir, {}, first_step, 9))
    return tensorboard


def record(workdir, first_step, steps):
    tensorboard = started(workdir, first_step)
    for step in steps:
        tensorboard.metrics(step, {"generator/loss": step / 4})
    tensorboard.end("finished", "")


def test_metrics_that_are_finite_are_points(tmp_path):
    tensorboard = started(tmp_path)
    tensorboard.metrics(3, {"generator/loss": 0.75, "a": float("nan"), "b": float("inf")})
    points = [
        (event.step, value.tag, value.simple_value) for event in read_events(tmp_path) for value in event.summary.value
    ]
    assert points == [(3, "generator/loss", 0.75)]  # on disk when the call returns
    tensorboard.end("finished", "")


def test_tensorboard_is_told_which_steps_are_done_again(tmp_path):
    record(tmp_path, 0, [2, 4, 6, 8])
    record(tmp_path, 4, [6])
    starts = [event.step for event in read_events(tmp_path) if event.HasField("session_log")]
    assert starts == [1, 5]


def test_events_of_a_start_in_the_same_second_are_kept(tmp_path):
    for step in (1, 2, 3):
        record(tmp_path, step - 1, [step])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match=r"/tensorboard could not be written: File exists$"):
        started(tmp_path)


def test_events_that_are_removed_during_a_run_are_begun_again_and_that_is_said_once(tmp_path, capsys):
    tensorboard = started(tmp_path)
    tensorboard.metrics(1, {"a": 1.0})
    shutil.rmtree(tmp_path / "tensorboard")
    for step in (2, 3):
        tensorboard.metrics(step, {"a": float(step)})
    tensorboard.end("finished", "")
    assert [event.step for event in read_events(tmp_path) if event.summary.value] == [2, 3]
    line = capsys.readouterr().err
    assert "was removed while the run wrote it" in line
    assert line.count("\n") == 1


def test_image_is_a_png_of_the_same_pixels(tmp_path):
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    tensorboard = started(tmp_path)
    tensorboard.images("samples", 1200, image)
    tensorboard.end("finished", "")
    event = read_events(tmp_path)[-1]
    assert event.step == 1200
    with Image.open(io.BytesIO(event.summary.value[0].image.encoded_image_string)) as found:
        np.testing.assert_array_equal(np.asarray(found), image)
