"""Signals and the lock, in this process."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from sagan_jax.errors import BusyError, StorageError
from sagan_jax.runtime.lock import WorkdirLock
from sagan_jax.runtime.signals import StopSignals

pytestmark = pytest.mark.one_jax


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_request_hears_a_signal_and_says_what_will_happen(number, capfd):
    with StopSignals() as stop:
        assert not stop.should_stop(3)
        os.kill(os.getpid(), number)
        wait_until(lambda: stop.should_stop(4))
    assert stop.signal == number
    assert f"{number.name}: finishing the step and saving; a second signal" in capfd.readouterr().err


def test_stop_request_says_what_is_waited_for(capfd):
    with StopSignals() as stop:
        stop.activity = "drawing samples of step 20"
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: stop.should_stop(20))
    assert "SIGTERM: still drawing samples of step 20, then finishing the step and saving" in capfd.readouterr().err


def test_stop_request_leaves_a_closed_terminal_alone_where_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: stop.should_stop(1))
        assert stop.signal == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stop_request_puts_the_handlers_back_that_were_there():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_stop_request_leaves_signals_alone_off_the_main_thread():
    heard = []

    def listen():
        with StopSignals() as stop:
            heard.append((stop.should_stop(1), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [(False, before)]


def test_second_signal_ends_the_process_at_once_even_where_python_does_not_look():
    program = (
        "import ctypes, sys\n"
        "from sagan_jax.runtime.signals import StopSignals\n"
        "with StopSignals():\n"
        "    print('ready', flush=True)\n"
        "    libc = ctypes.CDLL(None)\n"
        "    while True: libc.sleep(60)\n"  # signals cut it short; Python's own handlers would run only here
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith(b"SIGTERM: finishing")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143
    assert process.stderr.readline() == b"SIGTERM: ended at once; the run can be resumed from its last checkpoint\n"
    process.stdout.close()
    process.stderr.close()


def test_lock_leaves_nothing_of_a_folder_that_stayed_empty(tmp_path):
    with WorkdirLock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_lock_leaves_what_was_written_and_not_itself(tmp_path):
    with WorkdirLock(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["kept"]


def test_lock_names_the_process_that_holds_the_folder(tmp_path):
    with WorkdirLock(tmp_path):
        with pytest.raises(BusyError, match=f"in use by process {os.getpid()} on ") as caught, WorkdirLock(tmp_path):
            pass
        assert caught.value.exit_code == 7
        assert (tmp_path / ".lock").exists()
    with WorkdirLock(tmp_path):
        pass


def test_lock_notices_that_its_folder_is_gone_or_another(tmp_path):
    with WorkdirLock(tmp_path / "run") as lock:
        lock.require_held()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(StorageError, match="was removed or replaced while the run used it"):
            lock.require_held()
        (tmp_path / "run").mkdir()
        with WorkdirLock(tmp_path / "run"), pytest.raises(StorageError, match="removed or replaced"):
            lock.require_held()


def test_lock_that_ends_leaves_that_of_a_run_in_the_new_folder(tmp_path):
    with WorkdirLock(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "kept").touch()
        other = WorkdirLock(tmp_path / "run")
        other.__enter__()
    other.require_held()
    other.__exit__(None, None, None)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["kept"]


def hold(path, held):
    with WorkdirLock(path):
        held.set()
        time.sleep(60)


def test_lock_of_a_process_that_was_killed_is_taken_over_and_said(tmp_path, capsys):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, held))
    process.start()
    assert held.wait(60)
    with pytest.raises(BusyError, match=f"process {process.pid} on"), WorkdirLock(tmp_path):
        pass
    process.kill()
    process.join()
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert f"from process {process.pid} on" in capsys.readouterr().err
    process.close()


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_lock_refuses_a_file_in_place_of_a_folder(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="needs a writable folder") as caught:
        WorkdirLock(tmp_path / folder).__enter__()
    assert caught.value.exit_code == 6
    assert (tmp_path / "file").read_text() == "mine"


def test_lock_refuses_a_folder_that_cannot_be_written_to():
    # /proc refuses root too, which a mode would not.
    with pytest.raises(StorageError, match="'/proc/self/run'"):
        WorkdirLock("/proc/self/run").__enter__()


WRONG_OWNERS = ["[" * 3000, "null", '{"pid": 1}', '{"pid": [], "host": "a"}', '{"pid": 1, "host": {}}', "\xff"]


@pytest.mark.parametrize("content", WRONG_OWNERS)
def test_lock_file_that_no_run_wrote_is_taken_over(content, tmp_path, capsys):
    (tmp_path / ".lock").write_text(content)
    with WorkdirLock(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()}"), WorkdirLock(tmp_path):
        pass
    assert "from another process, which has ended" in capsys.readouterr().err


def test_owner_in_a_lock_file_is_shown_in_one_short_line(tmp_path, capsys):
    (tmp_path / ".lock").write_text(json.dumps({"pid": 10**300, "host": "a\n\x1b[31m" + "b" * 2000}))
    with WorkdirLock(tmp_path):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert len(line) < 300
