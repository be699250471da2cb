"""What a training run shows of its progress."""

import io

import pytest

from sagan_jax.runtime.progress import TrainingProgress

pytestmark = pytest.mark.one_jax


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
    with TrainingProgress(110, first_step, file=file, clock=lambda: next(times)) as progress:
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


@pytest.mark.parametrize(("wait", "shown"), [(0.117, "  input 12%"), (0.051, "  input 5%"), (0.05, ""), (0.0, "")])
def test_progress_shows_a_wait_for_data_above_5_percent(wait, shown):
    file = io.StringIO()
    with TrainingProgress(110, 10, file=file, clock=lambda: 0.0) as progress:
        progress.update(20, {"generator/loss": -0.5, "input_wait": wait}, 312.54)
    assert file.getvalue() == f"step 20/110  312.5 images/s  0:00:00 left{shown}  generator/loss -0.5000\n"


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    show(file, [0, 20], [20])
    assert "━" in file.getvalue()
    assert "step 20/110" in file.getvalue()
    assert "generator/gamma_16 0.0375" in file.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_progress_bar_keeps_a_name_beside_its_value_in_a_narrow_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    show(file, [0, 20], [20])
    phrases = (
        "step 20/110",
        "312.5 images/s",
        "0:03:00 left",
        "generator/loss -0.5000",
        "discriminator/gamma_16 -0.0625",
    )
    for phrase in phrases:
        assert phrase in file.getvalue()


def test_progress_bar_says_what_is_done_until_the_next_step(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()

    def shown():
        text = file.getvalue()
        file.seek(0)
        file.truncate()
        return text

    with TrainingProgress(110, 10, file=file) as progress:
        assert "starting" in shown()
        progress.doing("compiling the first step")
        assert "compiling the first step" in shown()
        progress.advance(11)
        progress.update(11, METRICS, 312.54)
        progress.doing("drawing samples")
        assert "drawing samples  step 11/110" in shown()
        progress.advance(12)
        progress.doing("scoring")
        assert "scoring  step 11/110" in shown()


def test_progress_bar_moves_with_each_step_before_the_first_update(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    with TrainingProgress(110, 10, file=file) as progress:
        progress.advance(11)
        progress.advance(12)
    assert "step 12/110" in file.getvalue()


def test_progress_without_a_terminal_says_what_is_done_until_the_first_update():
    file = io.StringIO()
    with TrainingProgress(110, 10, file=file) as progress:
        progress.doing("compiling the first step")
        progress.advance(11)
        progress.update(11, {}, 312.54)
        progress.doing("drawing samples")
    assert [line[:24] for line in file.getvalue().splitlines()] == [
        "compiling the first step",
        "step 11/110  312.5 image",
    ]


def test_progress_goes_to_standard_error(capsys):
    with TrainingProgress(30, 0) as progress:
        progress.update(3, {}, 1.0)
    captured = capsys.readouterr()
    assert captured.err.startswith("step 3/30")
    assert captured.out == ""


def test_line_that_is_said_stands_alone_beside_the_updates():
    file = io.StringIO()
    with TrainingProgress(10, 0, file=file, clock=lambda: 0.0) as progress:
        progress.update(1, {}, 1.0)
        progress.say("warning: [bold]step 1[/] is wrong")
    assert file.getvalue().splitlines()[1:] == ["warning: [bold]step 1[/] is wrong"]


def test_line_that_is_said_does_not_break_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    with TrainingProgress(10, 0, file=file, clock=lambda: 0.0) as progress:
        progress.update(1, {}, 1.0)
        progress.say(f"warning: {'long ' * 30}[bold]")
        progress.update(2, {}, 1.0)
    assert f"warning: {'long ' * 30}[bold]\n" in file.getvalue()
    assert "step 2/10" in file.getvalue()
