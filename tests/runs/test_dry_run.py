"""A dry run opens, checks and compiles what a run would, and leaves no trace."""

import re

import pytest

from sagan_jax.runtime.devices import ParallelStep, StepMemory
from support.commands import command, error_line

TINY = ["--batch-size", 4, "--base-channels", 2, "--latent-size", 6, "--total-steps", 9]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run_tells_images_networks_steps_and_memory_and_writes_nothing(home, capsys, monkeypatch):
    monkeypatch.setattr(ParallelStep, "memory", lambda self, state, batch: StepMemory(2_000_000, 1_500_000_000))
    assert command("train", "pairs_32", "--source", "pairs:images=40", "--protocols", "--dry-run", *TINY) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "pairs_32: pairs:images=40: 40 images, unlabelled"
    assert re.fullmatch(r"[\d,]+ parameters in G, [\d,]+ in D; 4 images a batch over 4 cpu device\(s\)", said[1])
    assert said[2:] == [
        "steps 0 to 9, into runs/pairs_32",
        "compiling a step ..",
        "memory of a step on each device, as compiled: 1.50 GB (2.0 MB for state and batch, 1.50 GB for temporaries)",
        "dry run: no step was done and nothing written",
    ]
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_dry_run_of_a_run_leaves_it_as_it_is_and_names_the_next_step(home, capsys):
    flags = ["--source", "mirror:images=40", "--held-out", "", *TINY]
    assert command("train", "faces_completion_64", "--workdir", "run", *flags, "--total-steps", 2) == 0
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert command("train", "--workdir", "run", "--total-steps", 3, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "steps 2 to 3, into run" in said
    assert re.search(r"as compiled: [\d.]+ MB \([\d.]+ MB for state and batch, [\d.]+ MB for temporaries", said)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.one_jax
def test_dry_run_goes_on_where_the_run_would(home, capsys, monkeypatch):
    monkeypatch.setattr(ParallelStep, "memory", lambda self, state, batch: StepMemory(2_000_000, 1_500_000_000))
    flags = ["--source", "pairs:images=40", "--protocols", "--cache", "", *TINY, "--save-every-steps", 1]
    assert command("train", "pairs_32", "--workdir", "run", *flags, "--total-steps", 2) == 0
    capsys.readouterr()
    config = home / "run" / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 3'))
    assert command("train", "--workdir", "run", "--dry-run") == 2
    assert "--trust-checkpoint" in error_line(capsys)
    for flags in ([], ["--profile-steps", "4:5"]):
        assert command("train", "--workdir", "run", "--total-steps", 5, "--trust-checkpoint", "--dry-run", *flags) == 0
        assert "steps 2 to 5, into run" in capsys.readouterr().out
    late = ["--total-steps", 5, "--trust-checkpoint", "--dry-run", "--profile-steps", "2:3"]
    assert command("train", "--workdir", "run", *late) == 2
    assert "needs steps that are still to be done; got 2:3" in error_line(capsys)
    (home / "run" / "checkpoints" / "2" / "meta" / "metadata").write_text("{}")
    assert command("train", "--workdir", "run", "--total-steps", 5, "--trust-checkpoint", "--dry-run") == 0
    said = capsys.readouterr()
    assert "steps 1 to 5, into run" in said.out
    assert "Checkpoint 2" in said.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--source", "nowhere.zip"], "nowhere.zip"),
        (["--batch-size", 6], "multiple of the 4 devices"),
        (["--profile-steps", "7:10"], "--profile-steps needs steps from 1 to --total-steps 9"),
    ],
)
def test_dry_run_refuses_what_a_run_refuses(flags, words, home, capsys):
    assert command("train", "pairs_32", "--protocols", "--dry-run", *TINY, *flags) == 2
    assert words in error_line(capsys)
    assert list(home.iterdir()) == []
