"""The errors of completed mirrored textures, by the distance of a pixel from its mirror image."""

import doctest
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sagan_jax.config import CompletionExperiment, CompletionNetworks, CompletionTraining, Data, to_dict
from sagan_jax.data.synthetic import Mirror
from sagan_jax.errors import InvalidInputError
from sagan_jax.models.completion import CompletionNetwork
from support.programs import BENCHMARKS, program_with_neighbours

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "mirror_by_distance.py"


@pytest.fixture(scope="module")
def program():
    with program_with_neighbours(PROGRAM) as loaded:
        yield loaded


@pytest.fixture
def experiment():
    return CompletionExperiment(
        name="m",
        data=Data("mirror:grain=3", held_out="mirror:grain=3,seed=1,images=7"),
        networks=CompletionNetworks(base_channels=2, latent_size=3, attention_resolutions=()),
        training=CompletionTraining(holes="half_right"),
    )


def test_doctest(program):
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


def test_reach_of_the_convolutions(program):
    network = CompletionNetwork(base_channels=2, latent_size=3, attention_resolutions=(8,), attention="article")
    # Counted by hand: the 3x3 convolutions carry a value over six positions of 4x4 pixels and four of 8x8, 56 pixels in
    # all. In column 28, the mirror image is 57 pixels away.
    assert program.columns_in_reach(network) == [True] * 28 + [False] * 4
    assert all(program.columns_in_reach(network.clone(blocks=2)))
    assert not any(program.columns_in_reach(network.clone(skips=False)))  # the latents are constant


def test_errors_by_column(program):
    images = np.stack([Mirror(grain=3).draw(index, 64) // 2 for index in range(5)])
    added = np.r_[np.zeros(32), np.arange(32)].astype(np.uint8)[:, None]

    def complete(given, masks):
        assert masks[:, :, 32:].all()
        assert not masks[:, :, :32].any()
        return given + added

    source = type("Source", (), {"__len__": lambda self: 5, "__getitem__": lambda self, index: (images[index], 0)})()
    run = SimpleNamespace(images=lambda held_out: source, completer=lambda: SimpleNamespace(complete=complete))
    assert program.squared_errors(run) == pytest.approx((np.arange(32) / 255) ** 2)


def test_gains_are_split_by_column(program):
    baseline, other = np.full((2, 8), 0.5), np.full((3, 8), 0.5)
    other[:, 1] -= [0.1, 0.2, 0.3]
    other[:, 7] -= 0.6 - 0.4 * np.array([1.0, 1.0, -1.0]) + 0.4 / 3  # 0.6 in the mean
    table = program.gain_table({"residual": baseline, "article": other}, "residual", [True] * 7 + [False])
    assert table.splitlines()[-1] == "| article | 20% | 25% | 75% | 75% |"
    assert "of it in 4 to 7" in table


def test_only_results_are_needed(program, experiment, tmp_path, capsys):
    for name, error in (("residual-0", 0.1), ("residual-1", 0.001), ("article-0", 0.01)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "row.json").write_text(json.dumps({"experiment": to_dict(experiment)}))
        kept = {"images": 7, "step": 3, "run": None, "found": [error] * 32}
        (folder / "by_distance.json").write_text(json.dumps(kept))
    diverged, stopped = tmp_path / "none-0", tmp_path / "none-1"
    diverged.mkdir()
    (diverged / "row.json").write_text(json.dumps({"experiment": to_dict(experiment), "diverged_at": 5}))
    stopped.mkdir()
    (stopped / "config.json").write_text(json.dumps(to_dict(experiment)))
    names = [str(folder) for folder in sorted(tmp_path.iterdir())]
    program.run(names)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "none-0 collapsed" in shown.err
    assert "none-1 is not finished" in shown.err
    assert not any("| none |" in line for line in lines)
    assert any(line.startswith("| article | 20.00 | 20.00") for line in lines)
    assert any(line.startswith("| residual | 20.00 [10.00, 30.00] |") for line in lines)
    assert lines[-1] == "The convolutions reach the mirror images of the first 28 of 32 columns."
    with pytest.raises(InvalidInputError, match="--baseline needs to be one of article, residual; got 'none'"):
        program.run([*names, "--baseline", "none"])


def test_other_runs_are_refused(program, experiment, tmp_path):
    others = {
        "completes images of `mirror`": replace(experiment, data=Data("blobs")),
        "needs to be trained with half_right; got 'centre'": replace(
            experiment, training=CompletionTraining(holes="centre")
        ),
    }
    for message, other in others.items():
        (tmp_path / "row.json").write_text(json.dumps({"experiment": to_dict(other)}))
        with pytest.raises(InvalidInputError, match=message):
            program.run([str(tmp_path)])
