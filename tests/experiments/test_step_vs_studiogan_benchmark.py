"""The speed of our step and of StudioGAN's: which workers are started, and the table."""

import json
import sys

import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax

PEAK = {"float32": 200.0, "bfloat16": 400.0}


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_program(BENCHMARKS / "step_vs_studiogan.py")


def entry(library, variant, seconds, **facts):
    facts = {"library": library, "device": "cpu", **facts}
    return {"facts": facts, "variant": variant, "memory_bytes": None, "peak_gflops": PEAK, "seconds": seconds}


@pytest.fixture
def result():
    work = {"resolution": 32, "width": 16, "batch": 64, "classes": 10, "latent": 128, "attention": 16}
    workers = {
        "StudioGAN, float32": entry("PyTorch 9", "float32", [4.0, 2.0, 8.0]),
        "StudioGAN, bfloat16": entry("PyTorch 9", "bfloat16", [1.0, 2.0, 1.0]),
        "jax 7, float32": entry("jax 7", "float32", [1.0, 1.0, 4.0], flops=68.7e9, compiled_flops=70e9),
    }
    workers["jax 7, float32"] |= {"memory_bytes": 2**29, "peak_gflops": {"float32": 50.0, "bfloat16": 60.0}}
    return {"machine": {}, "rows": {"32-16-64": {"work": work, "rounds": 3, "workers": workers}}}


def test_table_has_medians_and_ratios_of_rounds(program, result):
    lines = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in program.tables(result).splitlines()}
    # 64 images in 4, 2 and 8 s are 16, 32 and 8 a second. Ours is 4, 2 and 2 times as fast. Compared with the fastest,
    # it is 1, 2 and 1/4 times as fast. It does 68.7 GFLOP in a second, of the 200 that the machine reached in another
    # process.
    assert lines["| StudioGAN, float32"][1:5] == ["16.0", "12.0 to 24.0", "1.00", "0.250"[:4]]
    assert lines["| jax 7, float32"][1:] == [
        "64.0", "40.0 to 64.0", "2.00", "1.00", "68.7", "70.0", "", "0.500", "68.7", "34%",
    ]  # fmt: skip
    assert "**32-16-64**: 32 px, width 16, batch 64, 10 classes; 3 rounds" in program.tables(result)


def test_share_of_the_peak_is_that_of_the_precision(program, result):
    line = next(line for line in program.tables(result).splitlines() if line.startswith("| StudioGAN, bfloat16"))
    assert line.endswith("| 68.7 | 17% |")


def test_table_without_a_peer_has_no_ratios(program, result):
    workers = result["rows"]["32-16-64"]["workers"]
    result["rows"]["32-16-64"]["workers"] = {"jax 7, float32": workers["jax 7, float32"]}
    assert "| jax 7, float32 | 64.0 | 40.0 to 64.0 |  |  | 68.7 |" in program.tables(result)


def test_plain_operations_are_those_of_the_rows(program):
    for work in (program.CPU_ROWS | program.GPU_ROWS).values():
        assert (work.resolution, work.width) in program.PLAIN_GFLOP


def test_workers_are_started_with_each_python_and_precision(program):
    words = ["--torch-python", "T", "--jax-python", "J", "--variant", "bfloat16"]
    given = program.parse([*words, "--precision", "float32", "--precision", "bfloat16"])
    work = program.CPU_ROWS["32-8-32"]
    found = [(name, command[0]) for name, command in program.commands(work, given)]
    ours = [(name, python) for python in (sys.executable, "J") for name in ("float32", "bfloat16")]
    assert found == [("bfloat16", "T"), *ours]
    assert program.commands(work, given)[0][1][2:6] == ["--variant", "bfloat16", "--resolution", "32"]


@pytest.fixture
def fake_python(tmp_path):
    """Replaces a Python with PyTorch. As a worker, it answers two seconds a step."""
    path = tmp_path / "python"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom worker import serve\n"
        "serve({'library': 'PyTorch 9', 'device': 'cpu'}, {'step': lambda count: 2.0 * count,"
        " 'memory': lambda: {'bytes': None}, 'peak': lambda: {'float32': 1.0, 'bfloat16': 2.0}})\n"
    )
    path.chmod(0o755)
    return path


def test_rows_are_measured_written_and_shown(program, fake_python, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(program.sys, "executable", str(fake_python))
    words = ["--torch-python", str(fake_python), "--variant", "float32", "--rounds", "3", "--row", "32-8-32"]
    # Both sides are the same fake, so their names are equal.
    assert "versions of jax differ; got StudioGAN, float32 twice" in refusal(program.run, words)
    words += ["--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(program, "commands", lambda work, given: [("float32", [str(fake_python), "peer"])])
    program.run(words)
    printed = capsys.readouterr().out
    assert "| StudioGAN, float32 | 16.0 | 16.0 to 16.0 | 1.00 | 1.00 |" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["rows"]["32-8-32"]["workers"]["StudioGAN, float32"]["seconds"] == [2, 2, 2]
    program.run(["--tables", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == printed


def test_an_unknown_row_is_refused(program):
    assert refusal(program.run, ["--row", "64-64-8"]).endswith("128-64-256, 32-64-64; got '64-64-8'.")


def test_no_rounds_are_refused(program):
    assert refusal(program.run, ["--rounds", "0"]) == "--rounds needs at least 1; got 0."


def test_a_python_without_torch_is_one_line(program, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = refusal(program.run, ["--quick", "--variant", "float32"])
    assert line.startswith(
        "studiogan_peer (float32) ended with exit code 1: the peer needs a Python with PyTorch; "
        f"{sys.executable} has none (No module named torch): give another --torch-python"
    )


@pytest.mark.slow
def test_ours_is_measured(program, capsys):
    program.run(["--quick", "--without-peer"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| jax "))
    name, speed, *_ = line.strip("| ").split(" | ")
    assert name.endswith(", float32")
    assert float(speed) > 0


@pytest.mark.slow
def test_peer_is_measured(program, capsys):
    pytest.importorskip("torch")
    program.run(["--quick"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| StudioGAN, ")]
    assert [line.split(" | ")[0] for line in lines] == [f"| StudioGAN, {name}" for name in program.VARIANTS]
