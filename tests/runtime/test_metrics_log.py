"""The metrics of a run on disk: JSON lines and images."""

import doctest
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax.errors import StorageError
from sagan_jax.runtime import metrics_log
from sagan_jax.runtime.callbacks import Callback
from sagan_jax.runtime.metrics_log import MetricsWriter, read_metrics, read_step
from support.metrics import read_metrics as read_lines

pytestmark = pytest.mark.one_jax


def record(workdir, first_step, steps):
    with MetricsWriter(workdir, first_step=first_step) as writer:
        for step in steps:
            writer.scalars(step, {"generator/loss": step / 4})


def test_scalars_are_one_json_object_a_line(tmp_path):
    record(tmp_path / "run", 0, [3, 5])
    assert read_lines(tmp_path / "run") == [
        {"step": 3, "generator/loss": 0.75},
        {"step": 5, "generator/loss": 1.25},
    ]


def test_scalars_are_on_disk_when_the_call_returns(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.scalars(3, {"a": 1})
        assert read_lines(tmp_path) == [{"step": 3, "a": 1.0}]


def test_scalars_take_jax_and_numpy_numbers(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.scalars(np.int64(3), {"a": jax.numpy.float32(0.5), "b": np.int32(2)})
    assert read_lines(tmp_path) == [{"step": 3, "a": 0.5, "b": 2.0}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scalars_that_are_not_finite_are_null(tmp_path, value):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.scalars(3, {"a": value, "b": 1.5})
    assert read_lines(tmp_path) == [{"step": 3, "a": None, "b": 1.5}]


def test_writer_goes_on_from_the_restored_step(tmp_path):
    record(tmp_path, 0, [2, 4, 6, 8])
    record(tmp_path, 4, [6, 9])
    assert [line["step"] for line in read_lines(tmp_path)] == [2, 4, 6, 9]


@pytest.mark.parametrize("torn", ['{"step": 3, "gener', '{"step": 3, "a": 1.5', "\0\0\0", '"step"'])
def test_writer_drops_a_torn_last_line(tmp_path, torn):
    record(tmp_path, 0, [2])
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(torn)
    record(tmp_path, 7, [9])
    assert [line["step"] for line in read_lines(tmp_path)] == [2, 9]


def test_writer_ends_a_whole_line_that_lost_its_end_of_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}', encoding="utf-8")
    record(tmp_path, 2, [3])
    assert [line["step"] for line in read_lines(tmp_path)] == [2, 3]


def test_writer_says_in_one_line_that_the_workdir_is_a_file(tmp_path):
    (tmp_path / "run").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match=r"run/metrics.jsonl could not be written: [^\n]*$"):
        MetricsWriter(tmp_path / "run", first_step=0)


def test_writer_says_in_one_line_that_the_disk_is_full(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        # /dev/full refuses each write as a full disk does.
        writer._metrics.close()
        writer._metrics_path = Path("/dev/full")
        writer._metrics = writer._metrics_path.open("w")
        with pytest.raises(StorageError, match=r"^/dev/full could not be written: No space left on device$"):
            writer.scalars(3, {"a": 1.0})
        with pytest.raises(OSError, match="No space"):
            writer._metrics.close()


def leave_with_unwritten_text(workdir, error):
    with MetricsWriter(workdir, first_step=0) as writer:
        writer._metrics.close()
        writer._metrics = Path("/dev/full").open("w")  # noqa: SIM115, the writer closes it
        writer._metrics.write("not flushed")
        if error is not None:
            raise error


def test_writer_says_that_the_disk_is_full_when_the_block_is_left(tmp_path):
    with pytest.raises(StorageError, match="No space left on device"):
        leave_with_unwritten_text(tmp_path, None)


def test_writer_does_not_hide_the_error_that_ends_the_block(tmp_path):
    with pytest.raises(KeyError, match="planted"):
        leave_with_unwritten_text(tmp_path, KeyError("planted"))


def test_step_that_is_done_again_records_only_what_it_had_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "a": 1.5}\n{"step": 4, "a": 2.5}\n{"step": 4, "b": null}\n')
    with MetricsWriter(tmp_path, first_step=4) as writer:
        writer.scalars(4, {"a": 7.0, "b": 7.0, "c": 3.5})
        writer.scalars(4, {"a": 7.0})
        writer.scalars(5, {"a": 8.0})
    assert read_lines(tmp_path)[2:] == [{"step": 4, "b": None}, {"step": 4, "c": 3.5}, {"step": 5, "a": 8.0}]


def test_values_of_a_step_are_those_of_all_its_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 4, "a": 1.5}\n{"step": 14, "a": 9}\n{"step": 4, "b": null}\n{"step": 4, "c"\n')
    found = read_step(path, 4)
    assert found.keys() == {"a", "b"}
    assert found["a"] == 1.5
    assert math.isnan(found["b"])
    assert read_step(path, 1) == {}
    assert read_step(tmp_path / "absent.jsonl", 4) == {}


def remove(path):
    path.unlink()


def replace_by_a_copy(path):
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


@pytest.mark.parametrize(("spoil", "kept"), [(remove, [2, 3]), (replace_by_a_copy, [1, 2, 3])])
def test_metrics_that_are_removed_during_a_run_are_begun_again_and_that_is_said_once(spoil, kept, tmp_path, capsys):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.scalars(1, {"a": 1.0})
        assert capsys.readouterr().err == ""
        spoil(tmp_path / "metrics.jsonl")
        writer.scalars(2, {"a": 2.0})
        writer.scalars(3, {"a": 3.0})
    assert [line["step"] for line in read_lines(tmp_path)] == kept
    line = capsys.readouterr().err
    assert line.startswith("warning: ")
    assert "metrics.jsonl was removed or replaced" in line
    assert line.count("\n") == 1


def test_metrics_that_become_a_folder_during_a_run_end_it(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").mkdir()
        with pytest.raises(StorageError, match=r"metrics.jsonl could not be written: it is not a regular file"):
            writer.scalars(2, {"a": 2.0})


@pytest.mark.parametrize("channels", [1, 3])
def test_image_is_a_png_of_the_same_pixels(tmp_path, channels):
    image = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.image("samples", 1200, image)
    with Image.open(tmp_path / "samples" / "samples-00001200.png") as found:
        np.testing.assert_array_equal(np.asarray(found).reshape(4, 5, channels), image)


class Looking(Callback):
    """Notes what it is told, and whether that is on disk then."""

    def __init__(self, workdir: Path) -> None:
        self.workdir, self.told = workdir, []

    def metrics(self, step, values):
        self.told.append((step, dict(values), read_lines(self.workdir)[-1]["step"]))

    def images(self, name, step, image):
        self.told.append((name, step, image.shape, (self.workdir / f"samples/{name}-{step:08d}.png").is_file()))


def test_callback_is_told_what_is_on_disk_already(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "a": 1.5}\n')
    told = Looking(tmp_path)
    with MetricsWriter(tmp_path, first_step=2, callback=told) as writer:
        writer.scalars(2, {"a": 7.0})  # is recorded already
        writer.scalars(2, {"a": 7.0, "b": 0.5})
        writer.scalars(3, {"a": np.float32(0.25), "c": float("inf")})
        writer.image("samples", 3, np.zeros((4, 5, 1), np.uint8))
    assert told.told == [
        (2, {"b": 0.5}, 2),
        (3, {"a": 0.25, "c": float("inf")}, 3),
        ("samples", 3, (4, 5, 1), True),
    ]


# The reader


def write_lines(workdir, *lines):
    (workdir / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return workdir / "metrics.jsonl"


def points(curve):
    return list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


def test_examples_of_the_metrics_log_are_true():
    assert doctest.testmod(metrics_log) == (0, 1)


def test_reader_returns_what_was_written(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        writer.scalars(3, {"generator/loss": 0.75, "discriminator/loss": -2.0})
        writer.scalars(5, {"generator/loss": 1.25})
    curves, notes = read_metrics(tmp_path / "metrics.jsonl")
    assert list(curves) == ["discriminator/loss", "generator/loss"]
    assert points(curves["generator/loss"]) == [(3, 0.75), (5, 1.25)]
    assert points(curves["discriminator/loss"]) == [(3, -2.0)]
    assert notes == []


def test_reader_of_a_missing_file_returns_no_curves_and_says_so(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == ({}, ["There are no metrics yet."])


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 60, "generator/lo', b"\xff\xfe", b"[1, 2]", b'{"step": "x"}', b'{"a": 1}', b"null", b"[" * 100_000]
    + [b'{"step": %s, "a": 1}' % step for step in (b"true", b"-1", b"2.0", b"9007199254740992", b"1" + b"0" * 400)],
)
def test_reader_skips_a_broken_line_and_counts_it(tmp_path, torn):
    path = write_lines(tmp_path, b'{"step": 1, "a": 2}', torn, b'{"step": 3, "a": 4}', torn)
    curves, notes = read_metrics(path)
    assert points(curves["a"]) == [(1, 2.0), (3, 4.0)]
    assert notes == ["2 lines of metrics.jsonl could not be read."]


@pytest.mark.parametrize("value", [b"null", b"NaN", b"-Infinity", b'"1"', b"true", b"[1]", b"1" + b"0" * 400, b"1e300"])
def test_reader_leaves_out_values_that_are_not_finite_numbers(tmp_path, value):
    curves, notes = read_metrics(write_lines(tmp_path, b'{"step": 1, "a": 2}', b'{"step": 3, "b": 5, "a": %b}' % value))
    assert points(curves["a"]) == [(1, 2.0)]
    assert points(curves["b"]) == [(3, 5.0)]
    assert notes == ["metrics.jsonl: 1 value is not a finite number, so left out."]


def test_reader_has_no_curve_of_a_metric_without_one_number(tmp_path):
    assert read_metrics(write_lines(tmp_path, b'{"step": 3, "a": null}')).curves == {}


def test_reader_of_a_large_file_reads_a_part_of_it_and_all_scores(tmp_path, monkeypatch):
    lines = [json.dumps({"step": step, "a": step}).encode() for step in range(1, 301)]
    path = write_lines(tmp_path, *lines, *[b'{"step": 7, "score/b": 1.0}'] * 3)
    monkeypatch.setattr(metrics_log, "_MAX_BYTES", path.stat().st_size // 3)
    curves, (note,) = read_metrics(path)
    assert points(curves["a"]) == [(step, float(step)) for step in range(1, 301, 4)]
    assert len(curves["score/b"].steps) == 3
    assert "only one line in 4 was read" in note


def test_writer_goes_on_after_lines_that_no_run_wrote(tmp_path):
    wrong = [b"[" * 100_000, b'{"step": 1%s}' % (b"0" * 400), b'{"step": true}', b"null"]
    write_lines(tmp_path, b'{"step": 1, "a": 2.0}', *wrong, b'{"step": 9, "a": 2.0}')
    with MetricsWriter(tmp_path, first_step=5) as writer:
        writer.scalars(6, {"a": 3.0})
    curves, notes = read_metrics(tmp_path / "metrics.jsonl")
    assert (points(curves["a"]), notes) == ([(1, 2.0), (6, 3.0)], [])
