"""The first moments of a command, in a process of its own: what it prints, and how a signal ends it."""

import os
import signal
import subprocess
import sys
import time

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# The import of this jax never ends. So whatever a command does, it does before it imports jax.
ENDLESS_JAX = "import time\nprint('jax', flush=True)\ntime.sleep(600)\n"

# A command that swallows every exception, as callbacks of jax may. A half-written file lies beside a finished one.
STUBBORN = """
import sys, time, types
from pathlib import Path
from sagan_jax.cli import main
from sagan_jax.runtime.leftovers import removed_at_a_signal

def run(arguments):
    folder = Path(arguments[0])
    with removed_at_a_signal([folder, folder / "half"]):
        (folder / "half").touch()
        print("ready", flush=True)
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass

sys.modules["sagan_jax.cli.stubborn"] = types.SimpleNamespace(run=run)
main.COMMANDS["stubborn"] = "stubborn"
sys.exit(main.main())
"""


# A shell lets background programs ignore Ctrl-C, and `nohup` lets them ignore SIGHUP. So the launcher resets both,
# except for a signal that is named. `preexec_fn` would fork, and jax runs threads here.
LAUNCHER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN if sys.argv[1] == number.name else signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start(*words, environment=None, ignored="none"):
    return subprocess.Popen(
        [sys.executable, "-S", "-c", LAUNCHER, ignored, *map(str, words)],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def endless_jax(tmp_path):
    """The environment of a process whose `import jax` does not end."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "jax.py").write_text(ENDLESS_JAX)
    return {"PYTHONPATH": f"{tmp_path / 'fake'}:{os.environ.get('PYTHONPATH', '')}"}


def ended(process, number):
    """Sends a signal and returns the exit code, the lines of stderr and the seconds that it took."""
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.splitlines(), time.monotonic() - start


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_jax_is_imported_ends_the_command_in_one_line(number, endless_jax, tmp_path):
    words = "-m", "sagan_jax.cli.main", "train", "digits_32", "--workdir", tmp_path / "run"
    process = start(*words, environment=endless_jax)
    assert "training digits_32" in process.stdout.readline()
    assert process.stdout.readline() == "jax\n"
    code, lines, _ = ended(process, number)
    assert (code, lines) == (128 + number, [f"sagan-jax: interrupted by {number.name}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_a_command_that_loses_every_exception_and_removes_what_is_half_written(number, tmp_path):
    (tmp_path / "whole").touch()
    process = start("-c", STUBBORN, "stubborn", tmp_path)
    assert process.stdout.readline() == "ready\n"
    code, lines, seconds = ended(process, number)
    assert (code, lines) == (128 + number, [f"sagan-jax: interrupted by {number.name}"])
    assert seconds < 5
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_closed_terminal_is_ignored_under_nohup(tmp_path):
    process = start("-c", STUBBORN, "stubborn", tmp_path, ignored="SIGHUP")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    assert ended(process, signal.SIGTERM)[0] == 143


# Until our code is read, Python itself answers Ctrl-C with a traceback. So the delay counts from then.
TRAIN = "import sys; from sagan_jax.cli.main import main; print('read', flush=True); sys.exit(main())"
# Seconds after our code is read. CI runs the first three.
DELAYS = [0.3, 2, 8, *(pytest.param(delay, marks=pytest.mark.release) for delay in (0.1, 0.6, 1, 4))]


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("delay", DELAYS)
def test_signal_at_any_time_ends_training_without_a_traceback(delay, tmp_path):
    """Sends the three signals at once, each to its own process, because the test mostly waits."""
    flags = ["--batch-size", "8", "--base-channels", "1", "--total-steps", "100000"]
    train = ["-c", TRAIN, "train", "digits_32", *flags]
    processes = {number: start(*train, "--workdir", tmp_path / number.name) for number in SIGNALS}
    for process in processes.values():
        assert process.stdout.readline() == "read\n"
    time.sleep(delay)
    found = {number: ended(process, number)[:2] for number, process in processes.items()}
    for number, (code, lines) in found.items():
        assert code == 128 + number, lines
        assert not any("Traceback" in line or "Exception" in line for line in lines), lines


def test_command_line_does_not_import_slow_packages():
    program = "import sys, sagan_jax.cli.main; print(*sys.modules)"
    process = start("-c", program)
    loaded = set(process.communicate(timeout=60)[0].split())
    assert not loaded & {"jax", "numpy", "tyro", "rich", "typing", "pathlib"}


RUN = ["--workdir", "nowhere"]
COMMANDS = [
    ["train", "digits_32", *RUN],
    ["sample", *RUN, "--out", "x.npz"],
    ["evaluate", *RUN],
    ["complete", "photo.png", *RUN, "--box", "1,2,3,4"],
    ["attend", *RUN],
    ["explore", *RUN, "--out", "x.html"],
    ["interpolate", *RUN, "--out", "x.png"],
    ["neighbours", *RUN, "--out", "x.png"],
    ["report", *RUN],
    ["plan", "digits_32"],
    ["reproduce", "figure4"],
    ["export", *RUN],
    ["convert", "--from", "inception", "weights.pth"],
    ["fetch-weights"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_command_says_what_it_does_before_jax_is_imported(words, endless_jax):
    process = start("-m", "sagan_jax.cli.main", *words, environment=endless_jax)
    assert "(loading jax; the first compilation can take minutes)" in process.stdout.readline()
    assert process.stdout.readline() == "jax\n"
    process.kill()
    process.communicate()


WRONG = [
    (["sample", *RUN, "--out", "x.npz", "--num-images", "0"], "--num-images needs to be at least 1; got 0"),
    (["sample", *RUN, "--out", "x.npz", "--batch-size", "0"], "--batch-size needs to be at least 1; got 0"),
    (["sample", *RUN, "--out", "x.npz", "--seed", "-1"], "--seed needs to be in [0, 2**32); got -1"),
    (["sample", *RUN, "--out", "x.npz", "--truncation", "0"], "--truncation needs to be above 0; got 0.0"),
    (["sample", *RUN, "--out", "x.npz", "--truncation", "nan"], "--truncation needs to be above 0; got nan"),
    (["attend", *RUN, "--image", "nowhere.png"], "such as PNG, JPEG or WebP; there is no 'nowhere.png'"),
    (["attend", *RUN, "--seed", "-1"], "--seed"),
    (["attend", *RUN, "--queries", "1;2"], "--queries needs positions"),
    (["interpolate", *RUN, "--out", "x.png", "--steps", "1"], "--steps from 2 up; got 5, 1"),
    (["neighbours", *RUN, "--out", "x.png", "--seed", str(2**32)], "--seed"),
    (["plan", "digits_32", "--topology", "v5e:3x3"], "There is no TPU slice 'v5e:3x3'"),
    (["plan"], "EXPERIMENT, the first word, must be given"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_command_refuses_what_is_wrong_before_jax_is_imported(words, message, endless_jax):
    process = start("-m", "sagan_jax.cli.main", *words, environment=endless_jax)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed, len(errors.splitlines())) == (2, "", 1), errors
    assert message in errors


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["sample", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_gives_no_traceback(words, unbuffered):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sagan_jax.cli.main", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_to_a_full_disk_is_one_line_and_code_6(words, unbuffered):
    command = [sys.executable, "-m", "sagan_jax.cli.main", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        6,
        "sagan-jax: the output could not be written: No space left on device\n",
    )
