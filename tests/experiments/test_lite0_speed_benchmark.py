"""The speed of EfficientNet-Lite0 and of its authors' code: which workers are started, and the table."""

import importlib.util
import sys

import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_program(BENCHMARKS / "lite0_speed.py")


def test_table_has_medians_and_ratios_of_rounds(program):
    found = {
        "ours, P": {"facts": {"library": "jax 7", "logits": [1.0, -2.5]}, "seconds": [1.0, 1.0, 4.0]},
        "authors": {"facts": {"library": "PyTorch 9", "logits": [1.0, -2.0]}, "seconds": [4.0, 2.0, 8.0]},
    }
    lines = program.table(16, found).splitlines()
    # 16 images take 1, 1 and 4 s. Round by round, this is 4, 2 and 2 times as fast as the authors' code.
    assert lines[0] == "**Batch 16**, 224 px"
    assert lines[-2:] == [
        "| ours, jax 7 | 16.0 | 10.0 to 16.0 | 2.00 | 2e-01 |",
        "| authors, PyTorch 9 | 4.00 | 3.00 to 6.00 | 1.00 | 0e+00 |",
    ]


def test_workers_take_turns_and_the_peer_can_be_left_out(program, monkeypatch, capsys, tmp_path):
    answers = "import sys, json\nprint(json.dumps({'library': sys.argv[1], 'logits': [2.0]}), flush=True)\n"
    answers += "for line in sys.stdin: print(0.25, flush=True)"

    def words(batch, given):
        names = ("ours, here", *([] if given.without_peer else ["authors"]))
        return {name: [sys.executable, "-c", answers, f"{name[:4]} {batch}"] for name in names}

    monkeypatch.setattr(program, "commands", words)
    program.run(["--batch", "3", "--rounds", "2", "--turn-seconds", "0", "--out", str(tmp_path / "out.json")])
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert rows == [
        "| ours, ours 3 | 12.0 | 12.0 to 12.0 | 1.00 | 0e+00 |",
        "| authors, auth 3 | 12.0 | 12.0 to 12.0 | 1.00 | 0e+00 |",
    ]
    assert (tmp_path / "out.json").is_file()
    program.run(["--batch", "3", "--rounds", "1", "--turn-seconds", "0", "--without-peer"])
    assert capsys.readouterr().out.splitlines()[-1] == "| ours, ours 3 | 12.0 | 12.0 to 12.0 |  | 0e+00 |"


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite_pytorch") is not None, reason="the peer is installed")
def test_peer_without_its_packages_is_one_line(program, monkeypatch):
    all_words = program.commands
    monkeypatch.setattr(program, "commands", lambda *given: {"authors": all_words(*given)["authors"]})
    line = refusal(program.run, ["--torch-python", sys.executable, "--rounds", "1"])
    assert line.startswith("authors ended with exit code 1: ")
    assert "pip install torch efficientnet-lite-pytorch" in line


def test_rounds_are_checked(program):
    assert refusal(program.run, ["--rounds", "0"]) == "needs --rounds and --batch of at least 1; got 0 and 16."
