"""Which process of a run writes what."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from sagan_jax.config import Experiment, to_dict
from sagan_jax.errors import StorageError
from sagan_jax.runs.session import Pause, _Session
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.runtime.lock import WorkdirLock

pytestmark = pytest.mark.one_jax


def session_in(workdir, lock=None, writer=None):
    job = SimpleNamespace(score_monitor=None, source=SimpleNamespace(fingerprint="f"), draw=writer, code={})
    return _Session(Experiment(), job, workdir, None, lock, writer, None, None)


def test_process_without_the_lock_writes_no_report(tmp_path):
    write_run_files(tmp_path, to_dict(Experiment()))
    session_in(tmp_path).report("training")
    assert not (tmp_path / "report.html").exists()


def test_process_with_the_lock_writes_the_report(tmp_path):
    write_run_files(tmp_path, to_dict(Experiment()))
    with WorkdirLock(tmp_path) as lock:
        session_in(tmp_path, lock).report("stopped by SIGTERM")
    assert "stopped by SIGTERM" in (tmp_path / "report.html").read_text()


def test_reports_on_the_way_have_a_pause_between_them_where_nothing_is_scored(tmp_path):
    write_run_files(tmp_path, to_dict(Experiment()))
    times = iter([0.0, 19.0, 20.0, 39.0, 40.0])
    written = []
    with WorkdirLock(tmp_path) as lock:
        session = dataclasses.replace(session_in(tmp_path, lock), pause=Pause(20.0, lambda: next(times)))
        for step in (1, 2, 3, 4):
            session.actions()[-1].run(step, None)
            written += [step] if (tmp_path / "report.html").exists() else []
            (tmp_path / "report.html").unlink(missing_ok=True)
    assert written == [2, 4]


def test_report_is_refused_where_the_workdir_was_replaced(tmp_path):
    with WorkdirLock(tmp_path / "run") as lock:
        (tmp_path / "run" / ".lock").unlink()
        with pytest.raises(StorageError, match="was removed or replaced"):
            session_in(tmp_path / "run", lock).report("training")


def test_process_without_a_writer_draws_nothing(tmp_path):
    session_in(tmp_path).draw(3, {"weights": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_what_is_removed_during_a_run_is_said_once_and_its_config_is_written_again(tmp_path, capsys):
    write_run_files(tmp_path, to_dict(Experiment()))
    written = (tmp_path / "config.json").read_text()
    with WorkdirLock(tmp_path) as lock:
        session = session_in(tmp_path, lock)
        session.replace_removed_files()
        (tmp_path / "samples").mkdir()
        session.replace_removed_files()
        assert capsys.readouterr().err == ""
        (tmp_path / "samples").rmdir()
        (tmp_path / "config.json").unlink()
        for _ in range(2):
            session.replace_removed_files()
    config, samples = capsys.readouterr().err.splitlines()
    assert f"warning: {tmp_path / 'config.json'} was removed while the run used it, and is written again" in config
    assert f"warning: {tmp_path / 'samples'} was removed while the run used it, and is started again" in samples
    assert (tmp_path / "config.json").read_text() == written


def test_run_ends_at_its_next_look_when_its_workdir_is_gone(tmp_path):
    with WorkdirLock(tmp_path / "run") as lock:
        session = session_in(tmp_path / "run", lock)
        session.replace_removed_files()
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run").rmdir()
        with pytest.raises(StorageError, match="was removed or replaced"):
            session.replace_removed_files()
