"""The command that measures a layer in the long-range benchmark."""

import json

import pytest

from sagan_jax.runs import long_range
from sagan_jax.runs.long_range import Trial, beside_ours, experiment, measure_layer
from sagan_jax.runs.validate import check_config
from support.commands import command, error_line

LAYERS = """
import flax.linen as nn

class Mean(nn.Module):
    @nn.compact
    def __call__(self, features):
        gamma = self.param("gamma", nn.initializers.zeros, ())
        mean = features.mean(axis=(1, 2), keepdims=True)
        return features + gamma * nn.Conv(features.shape[-1], (1, 1))(mean)
"""


@pytest.fixture
def scored(monkeypatch):
    """What was asked of training and scoring, without any of it."""
    asked = []

    def train(run, workdir):
        asked.append((run.training.seed, run.networks.attention, run.training.total_steps))
        workdir.mkdir(parents=True)
        (workdir / "metrics.jsonl").write_text(
            json.dumps({"step": 60, long_range.PARTS: 0.01 * workdir.name[-1].count("0")}) + "\n"
        )

    monkeypatch.setattr(long_range, "train", train)
    return asked


def test_row_has_means_ranges_collapse_and_the_p_of_an_exact_test(monkeypatch):
    def trial(share):
        return Trial(0.5, None, {"follows_rule": share, "hue": 0.25, "hue_chance": 0.2, "parts": 0.4}, False)

    monkeypatch.setattr(long_range, "recorded_rows", lambda: {"none": [trial(0.1), trial(0.2), trial(0.3)]})
    trials = [trial(0.5)._replace(beyond_reach=0.75), trial(0.75)._replace(beyond_reach=1.0, learned_at=300)]
    trials += [Trial(0.5, None, None, True)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in beside_ours("mine", trials).splitlines()]
    assert lines[0][0] == "layer"
    assert lines[0][-1] == "p of the rule against none"
    assert lines[2][0] == "none"
    assert lines[2][1:4] == ["0.500 (0.500 to 0.500)", "never, never, never", "0.200 (0.100 to 0.300)"]
    assert lines[2][-1] == "–"
    assert lines[3][:3] == ["**mine**", "0.750 (0.500 to 1.000)", "never, 300, never"]
    assert lines[3][3] == "0.625 (0.500 to 0.750)"
    # Ranks, the worst first: the collapsed run 1, none 2, 3, 4, the others 5, 6. Sums 12 and 9; of 20 groupings, those
    # with sums from 9 to 12 are nearer: 10 and 11, three each.
    assert lines[3][7:] == ["1 of 3", "3", "0.7"]


def test_one_seed_has_no_test(monkeypatch):
    monkeypatch.setattr(long_range, "recorded_rows", dict)
    assert (
        beside_ours("mine", [Trial(0.5, None, None, None)]).splitlines()[-1]
        == "| **mine** | 0.500 | never | – | – | – | – | – | 1 | – |"
    )


def test_recorded_rows_are_readable():
    for trials in long_range.recorded_rows().values():
        assert all(isinstance(trial, Trial) for trial in trials)


@pytest.mark.parametrize("attention", ["release", "none", "squeeze_excite"])
def test_run_of_a_layer_is_a_valid_config_with_the_settings_of_the_version(attention):
    run = experiment(attention, seed=7)
    check_config(run)
    assert (run.name, run.training.seed, run.training.precision) == ("long_range_v1", 7, "float32")
    assert run.networks.generator_attention_resolutions == run.networks.discriminator_attention_resolutions == (16,)
    assert run.data.source == "pairs:forms=1,size=8,distance=16"
    assert (run.training.total_steps, run.training.batch_size, run.networks.base_channels) == (2000, 32, 8)


def test_gan_that_draws_nothing_counts_as_collapsed(scored, tmp_path):
    trial = measure_layer("release", 0, tmp_path, probe=False)
    assert scored == [(0, "release", 2000)]
    assert trial == Trial(None, None, None, True)


def test_results_of_another_layer_are_not_taken_for_this_one(tmp_path):
    known = {"attention": "release", "seed": 0, "steps": 1500, "beyond_reach": 0.75, "learned_at": 400}
    (tmp_path / "reach-0.json").write_text(json.dumps(known))
    assert measure_layer("release", 0, tmp_path, gan=False) == Trial(0.75, 400, None, None)
    (tmp_path / "reach-0.json").write_text(json.dumps(known | {"attention": "uniform"}))
    with pytest.raises(long_range.InvalidInputError, match="is of another layer or damaged"):
        measure_layer("release", 0, tmp_path, gan=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--attention", "releese"), "Perhaps you meant 'release'"),
        (("--attention", "release", "--seeds", "0"), "--seeds from 1 to 100; got 0"),
        (("--attention", "layers.py:None"), "layers.py"),
    ],
)
def test_mistake_is_one_line_before_anything_is_written(words, line, tmp_path, capsys):
    assert command("benchmark", "long_range", *words, "--out", tmp_path / "out") == 2
    assert line in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_layer_of_a_user_becomes_a_row_and_is_not_run_twice(tmp_path, capsys, monkeypatch):
    (tmp_path / "layers.py").write_text(LAYERS)
    words = (
        "benchmark",
        "long_range",
        "--attention",
        f"{tmp_path}/layers.py:Mean",
        "--quick",
        "--out",
        tmp_path / "out",
    )
    assert command(*words) == 0
    out = capsys.readouterr().out
    (folder,) = (tmp_path / "out").iterdir()
    table = (folder / "table.md").read_text()
    assert table in out
    assert "layers.py:Mean, quick" in table.splitlines()[-1]
    assert "mean nothing" in out
    reached = (folder / "reach-0.json").read_text()
    monkeypatch.setattr(long_range, "measure_reach", None)
    assert command(*words) == 0
    assert (folder / "table.md").read_text() == table
    assert (folder / "reach-0.json").read_text() == reached
