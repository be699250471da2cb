"""Arrays that are computed once for several runs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sagan_jax.evaluation.array_cache import cached


def test_runs_that_need_the_same_at_once_compute_it_once(tmp_path):
    begun, may_end, calls = threading.Event(), threading.Event(), []

    def compute():
        calls.append(1)
        begun.set()
        assert may_end.wait(30)
        return {"mean": np.arange(3.0)}

    with ThreadPoolExecutor(2) as pool:  # the lock belongs to an open file, so threads can stand in for processes
        first = pool.submit(cached, tmp_path, ("features", 5), compute)
        assert begun.wait(30)
        second = pool.submit(cached, tmp_path, ("features", 5), compute)
        other = cached(tmp_path, ("features", 6), lambda: {"mean": np.zeros(2)})  # another key does not wait
        may_end.set()
        results = [first.result(30), second.result(30)]
    assert len(calls) == 1
    assert [result["mean"].tolist() for result in results] == [[0.0, 1.0, 2.0]] * 2
    assert other["mean"].tolist() == [0.0, 0.0]


def test_run_that_waits_says_so(tmp_path, capfd):
    begun, may_end = threading.Event(), threading.Event()

    def compute():
        begun.set()
        assert may_end.wait(30)
        return {"mean": np.ones(1)}

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached, tmp_path, ("features", 5), compute)
        assert begun.wait(30)
        second = pool.submit(cached, tmp_path, ("features", 5), compute)
        said, end = "", time.monotonic() + 30
        while "waiting for another run that computes the same" not in said and time.monotonic() < end:
            time.sleep(0.01)
            said += capfd.readouterr().err
        may_end.set()
        assert "waiting for another run that computes the same" in said
        assert first.result(30)["mean"] == second.result(30)["mean"] == [1.0]


def test_folder_that_cannot_hold_a_lock_only_costs_the_computation(tmp_path):
    (tmp_path / "file").write_text("")
    calls = []

    def compute():
        calls.append(1)
        return {"mean": np.ones(1)}

    for _ in range(2):
        assert cached(tmp_path / "file" / "cache", ("features",), compute)["mean"] == [1.0]
    assert len(calls) == 2
