"""The animation of training: its frames, read back by Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sagan_jax.runs.animation import animate
from sagan_jax.views.animation import training_frame
from support.assertions import refusal
from support.commands import command, error_line
from support.images import noise, smooth_images

pytestmark = pytest.mark.one_jax


@pytest.fixture
def run(tmp_path):
    """A folder with pictures of six steps. Sorted as text, the steps have another order than as numbers."""
    (tmp_path / "samples").mkdir()
    for step in (7, 1000, 20_000, 300_000, 99_999_999, 123_456_789):
        (smooth,) = smooth_images(1, 50, seed=step)
        Image.fromarray(smooth[:30]).save(tmp_path / "samples" / f"samples-{step:08d}.png")
    return tmp_path


def frames_of(path) -> list[np.ndarray]:
    with Image.open(path) as animation:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]


def picture(run, step):
    with Image.open(run / "samples" / f"samples-{step:08d}.png") as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", ["png", "gif", "webp"])
def test_frames_are_the_pictures_by_step_below_a_line(kind, run):
    made = animate(run, run / f"out.{kind}")
    steps = [7, 1000, 20_000, 300_000, 99_999_999, 123_456_789]
    assert (made.steps, made.left_out) == (steps, [])
    assert made.size == (run / f"out.{kind}").stat().st_size
    frames = frames_of(run / f"out.{kind}")
    assert [frame.shape for frame in frames] == [(30 + 16, 50, 3)] * 6
    for step, frame in zip(steps, frames, strict=True):
        difference = np.abs(frame[16:].astype(float) - picture(run, step)).mean()
        assert difference == 0 if kind == "png" else difference < 10  # few colours, or lossy
        others = [np.abs(frame[16:].astype(float) - picture(run, other)).mean() for other in steps if other != step]
        assert difference < min(others) / 2


def test_line_of_a_frame_shows_its_step_and_how_much_is_done():
    lines = [training_frame(noise(30, 50, 1), step, 1000)[:16] for step in (0, 3, 500, 1000)]
    assert [int((line[13:15] == 0).all((0, 2)).sum()) for line in lines] == [0, 0, 25, 50]
    texts = [line[:13].tobytes() for line in lines]
    assert len(set(texts)) == 4  # the text differs from step to step
    assert texts[1] == training_frame(noise(20, 50, 3, seed=5), 3, 7)[:13].tobytes()


def test_large_pictures_are_made_smaller_and_keep_their_shape():
    flat = np.full((200, 400, 3), 77, np.uint8)
    frame = training_frame(flat, 1, 1, pixels=100)
    assert frame.shape == (50 + 16, 100, 3)
    assert (frame[16:] == 77).all()


def test_some_of_many_pictures_are_left_out_evenly_and_counted(run):
    made = animate(run, run / "out.png", max_frames=4)
    assert made.steps[0] == 7
    assert made.steps[-1] == 123_456_789
    assert len(made.steps) == len(frames_of(run / "out.png")) == 4
    assert made.left_out == ["2 of 6, evenly over the run, to keep the file small"]


def test_file_is_no_larger_than_its_budget(run):
    whole = animate(run, run / "out.png").size
    made = animate(run, run / "out.png", budget=whole // 2)
    assert made.size == (run / "out.png").stat().st_size <= whole // 2
    assert 2 <= len(made.steps) < 6
    assert {7, 123_456_789} <= set(made.steps)
    (run / "out.png").unlink()
    assert "more than --megabytes 0.001: give more" in refusal(animate, run, run / "out.png", budget=1000)
    assert not (run / "out.png").exists()


def test_damaged_pictures_and_those_of_another_size_are_left_out(run):
    (run / "samples" / "samples-00001000.png").write_bytes(b"damaged")
    Image.fromarray(noise(31, 50, 3)).save(run / "samples" / "samples-00300000.png")
    made = animate(run, run / "out.gif")
    assert made.steps == [7, 20_000, 99_999_999, 123_456_789]
    assert made.left_out == [
        "samples-00001000.png, which is damaged",
        "1 of another size than the last one, such as that of step 300000",
    ]


def test_command_writes_it_and_says_what_is_in_it(run, capsys):
    assert command("animate", "--workdir", run, "--out", run / "out.gif", "--max-frames", 5) == 0
    said = capsys.readouterr().out
    assert "left out: 1 of 6, evenly over the run" in said
    assert f"{run / 'out.gif'}: 5 frames of steps 7 to 123,456,789, " in said
    with Image.open(run / "out.gif") as animation:
        animation.seek(4)
        assert animation.info["duration"] == 960


def test_command_says_in_one_line_what_it_needs(tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    for flags, words in (
        ([], "/samples' needs pictures of samples, such as samples-00001000.png; there are none."),
        (["--out", "out.mp4"], "--out needs a .gif, .webp or .png file; got 'out.mp4'."),
        (["--max-frames", 1], "--max-frames needs to be in [2, 1000]; got 1."),
        (["--megabytes", 0], "--megabytes needs to be in [0.1, 1000]; got 0.0."),
    ):
        assert command("animate", "--workdir", tmp_path, "--out", "out.gif", *flags) == 2
        assert words in error_line(capsys)
