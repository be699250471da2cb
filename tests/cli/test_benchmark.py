"""The command that measures a layer in the long-range benchmark."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sagan_jax import import_paths
from sagan_jax.config import Experiment, to_dict
from sagan_jax.data.synthetic import Pairs, parse_synthetic
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.runs import long_range, long_range_table, reach
from sagan_jax.runs.long_range import Trial, experiment, measure_layer
from sagan_jax.runs.long_range_table import beside_ours
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime import files
from support.commands import command, error_line

pytestmark = pytest.mark.one_jax

LAYERS = """
import flax.linen as nn

class Mean(nn.Module):
    @nn.compact
    def __call__(self, features):
        gamma = self.param("gamma", nn.initializers.zeros, ())
        mean = features.mean(axis=(1, 2), keepdims=True)
        return features + gamma * nn.Conv(features.shape[-1], (1, 1))(mean)

class Narrow(nn.Module):  # fits the probe, and not D
    @nn.compact
    def __call__(self, features):
        assert features.shape[-1] == 32
        return features
"""


@pytest.fixture
def fake(monkeypatch):
    """Replaces training and scoring. Returns their calls, and the values of `PARTS` that the run of each seed records.

    A run whose seed has no values diverges.
    """
    asked, parts = [], {}

    def train(run, workdir):
        asked.append((run.training.seed, run.networks.attention, run.training.total_steps))
        workdir.mkdir(parents=True, exist_ok=True)
        values = parts.get(run.training.seed)
        if values is None:
            raise NonFiniteError("The loss is nan.", 7)
        lines = [{"step": step, long_range.PARTS: value} for step, value in enumerate(values, 1)]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def evaluate(workdir, protocol):
        asked.append((workdir.name, protocol))
        return {protocol: 0.25, f"{protocol}/beyond_chance": 0.2, f"{protocol}/hue": 0.5}

    monkeypatch.setattr(long_range, "train", train)
    monkeypatch.setattr(long_range, "evaluate", evaluate)
    return asked, parts


def measured(*arguments, **options):
    *_, trials = measure_layer(*arguments, **options)
    return trials


def test_no_seeds_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InvalidInputError, match=r"needs at least one seed; got none\.$"):
        measured("none", [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


SCORES = {"hue": 0.25, "hue_chance": 0.2, "parts": 0.4}


def test_row_has_means_ranges_collapse_and_the_p_of_an_exact_test(monkeypatch):
    def trial(share):
        return Trial(0.5, None, {**SCORES, "follows_rule": share, "beyond_chance": share / 2}, False)

    monkeypatch.setattr(long_range_table, "recorded_rows", lambda: {"none": [trial(0.1), trial(0.2), trial(0.3)]})
    trials = [trial(0.5)._replace(beyond_reach=0.75), trial(0.75)._replace(beyond_reach=1.0, learned_at=300)]
    trials += [Trial(0.5, None, None, True)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in beside_ours("mine", trials).splitlines()]
    assert lines[0][0] == "layer"
    assert lines[0][-1] == "p beyond chance against none, not corrected"
    assert lines[2][0] == "none"
    assert lines[2][1:4] == ["0.500 (0.500 to 0.500)", "never, never, never", "0.200 (0.100 to 0.300)"]
    assert lines[2][-1] == "–"
    assert lines[3][:3] == ["**mine**", "0.750 (0.500 to 1.000)", "never, 300, never"]
    assert lines[3][3:5] == ["0.625 (0.500 to 0.750) (2)", "0.312 (0.250 to 0.375) (2)"]
    # Ranks from the worst: 1 for the collapsed run, 2, 3 and 4 for none, 5 and 6 for the others. The sums are 12 and 9.
    # Of 20 groupings, six are nearer: three have the sum 10 and three the sum 11.
    assert lines[3][8:] == ["1 of 3", "3", "0.7"]
    assert beside_ours("mine", trials, tested=False).endswith("| 1 of 3 | 3 | – |")


def test_one_seed_has_no_test(monkeypatch):
    monkeypatch.setattr(long_range_table, "recorded_rows", dict)
    assert (
        beside_ours("mine", [Trial(0.5, None, None, None)]).splitlines()[-1]
        == "| **mine** | 0.500 | never | – | – | – | – | – | – | 1 | – |"
    )


def test_recorded_rows_are_readable():
    rows = long_range_table.recorded_rows()
    assert rows
    for trials in rows.values():
        assert all(isinstance(trial, Trial) for trial in trials)


@pytest.mark.parametrize("attention", ["release", "none", "squeeze_excite"])
def test_run_of_a_layer_is_a_valid_config_with_the_settings_of_the_version(attention):
    run = experiment(attention, seed=7)
    check_config(run)
    assert (run.name, run.training.seed, run.training.precision) == ("long_range_v1", 7, "float32")
    assert run.networks.generator_attention_resolutions == run.networks.discriminator_attention_resolutions == (16,)
    assert run.data.source == "pairs:forms=1,size=8,distance=16"
    assert (run.training.total_steps, run.training.batch_size, run.networks.base_channels) == (2000, 32, 8)


def test_gan_collapsed_if_few_images_have_clear_parts_at_its_end_or_if_it_diverged(fake, tmp_path):
    asked, parts = fake
    parts.update({0: [0.5, 0.0199], 1: [0.001, 0.02]})  # seed 2 diverges
    said = []
    trials = measured("release", (0, 1, 2), tmp_path, probe=False, notify=said.append)
    assert trials == [
        Trial(None, None, None, True),
        Trial(None, None, {"follows_rule": 0.25, "beyond_chance": 0.2, "hue": 0.5}, False),
        Trial(None, None, None, True),
    ]
    assert asked == [(0, "release", 2000), (1, "release", 2000), ("gan-1", "rule5k"), (2, "release", 2000)]
    assert said == ["seed 2 counts as collapsed. The loss is nan."]
    asked.clear()
    assert measured("release", (0, 2), tmp_path, probe=False) == trials  # runs nothing again, and gives all runs
    assert asked == []


def test_gan_that_diverges_while_it_is_scored_counts_as_collapsed(fake, monkeypatch, tmp_path):
    def evaluate(workdir, protocol):
        raise NonFiniteError("The generator has diverged.")

    fake[1][4] = [0.5]
    monkeypatch.setattr(long_range, "evaluate", evaluate)
    said = []
    assert measured("release", [4], tmp_path, probe=False, notify=said.append) == [Trial(None, None, None, True)]
    assert said == ["seed 4 counts as collapsed. The generator has diverged."]


def test_table_shows_all_that_a_folder_holds(fake, monkeypatch, tmp_path):
    _, parts = fake
    parts[0] = [0.5]

    def reach(attention, *, seed, steps, on_progress):
        if seed == 3:
            raise NonFiniteError("The loss of the probe is nan.", 5)
        bins = (SimpleNamespace(accuracy=0.75),)
        return SimpleNamespace(beyond_reach=bins[0], first_step=lambda: 400)

    monkeypatch.setattr(long_range, "measure_reach", reach)
    measured("release", (0,), tmp_path, probe=False)
    said = []
    trials = measured("release", (0, 3), tmp_path, gan=False, notify=said.append)
    assert trials == [
        Trial(0.75, 400, {"follows_rule": 0.25, "beyond_chance": 0.2, "hue": 0.5}, False),
        Trial(None, None, None, None, probe_diverged=True),
    ]
    assert said == ["probe of reach, seed 3, diverged. The loss of the probe is nan."]
    row = beside_ours("release", trials).splitlines()[-1]
    assert (
        row
        == "| **release** | 0.750 (1), 1 diverged | 400 | 0.250 (1) | 0.200 (1) | 0.500 (1) | – | – | 0 of 1 | 2 | – |"
    )


def test_no_p_value_with_too_many_runs_for_an_exact_test(monkeypatch):
    trial = Trial(None, None, {"follows_rule": 0.5, "beyond_chance": 0.5}, False)
    monkeypatch.setattr(long_range_table, "recorded_rows", lambda: {"none": [trial] * 8})
    assert beside_ours("mine", [trial] * 20).splitlines()[-1].endswith("| 20 | – |")
    assert beside_ours("mine", [trial] * 3).splitlines()[-1].endswith("| 3 | 1 |")


def test_results_of_another_layer_or_another_source_are_not_taken_for_this_one(fake, tmp_path):
    _, parts = fake
    parts[0] = [0.5]
    layer = tmp_path / "own.py"
    layer.write_text(LAYERS)
    measured(f"{layer}:Mean", (0,), tmp_path / "out", probe=False)
    for other in ("release", f"{layer}:Mean"):
        layer.write_text(LAYERS + "\n# changed\n")
        import_paths._files.clear()
        with pytest.raises(InvalidInputError, match=r"holds results of another layer, or of .* give another --out"):
            measured(other, (0,), tmp_path / "out", probe=False)
    layer.write_text(LAYERS)
    import_paths._files.clear()
    with pytest.raises(InvalidInputError, match="another layer"):
        measured(f"{layer}:Mean", (0,), tmp_path / "out", probe=False, quick=True)


@pytest.mark.parametrize("content", ["[]", "{}", '{"beyond_reach": "a", "learned_at": null}', '{"beyond_reach": 0.5}'])
def test_damaged_result_is_named(content, fake, tmp_path):
    (tmp_path / "reach-0.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"reach-0.json' is damaged: remove it"):
        measured("release", (0,), tmp_path, gan=False)


@pytest.mark.parametrize("scores", [{"hue": 0.5}, {"follows_rule": 0.5}, {"follows_rule": "a", "beyond_chance": 0}])
def test_damaged_scores_and_a_damaged_claim_are_named(scores, fake, tmp_path):
    (tmp_path / "gan-0.json").write_text(json.dumps({"scores": scores, "collapsed": False}))
    with pytest.raises(InvalidInputError, match=r"gan-0.json' is damaged: remove it"):
        measured("release", (0,), tmp_path, probe=False)
    (tmp_path / "layer.json").write_text("[]")
    with pytest.raises(InvalidInputError, match=r"layer.json' is damaged: restore it, or give another --out"):
        measured("release", (0,), tmp_path, probe=False)
    assert fake[0] == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--attention", "releese"), "Perhaps you meant release."),
        (("--attention", "release", "--seeds", "0"), "--seeds from 1 to 100; got 0"),
        (("--attention", "layers.py:None"), "layers.py"),
        (("--attention", "{layers}:Narrow"), "Narrow"),
    ],
)
def test_mistake_is_one_line_before_anything_is_written(words, line, tmp_path, capsys):
    (tmp_path / "layers.py").write_text(LAYERS)
    words = [word.format(layers=tmp_path / "layers.py") for word in words]
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
    for name in ("measure_reach", "train"):
        monkeypatch.setattr(long_range, name, None)  # a second call would fail
    assert command(*words) == 0
    assert (folder / "table.md").read_text() == table


def test_layer_is_tested_after_the_last_seed(monkeypatch, tmp_path):
    trial = Trial(None, None, {"follows_rule": 0.5, "beyond_chance": 0.5}, False)
    monkeypatch.setattr(long_range, "measure_layer", lambda *_, **options: ([trial] * 4 for _ in range(3)))
    monkeypatch.setattr(long_range_table, "recorded_rows", lambda: {"none": [trial] * 3})
    written = []
    monkeypatch.setattr(files, "write_atomically", lambda path, content: written.append(content))
    assert command("benchmark", "long_range", "--attention", "release", "--seeds", "3", "--out", tmp_path) == 0
    assert [content.split(b"|")[-2] for content in written] == [b" \xe2\x80\x93 ", b" \xe2\x80\x93 ", b" 1 "]


def test_out_that_cannot_be_written_is_said_before_anything_is_trained(fake, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command("benchmark", "long_range", "--attention", "release", "--out", tmp_path / "file") == 6
    assert str(tmp_path / "file") in error_line(capsys)
    assert fake[0] == []


def test_version_1_keeps_its_settings_and_its_images():
    """A failure here means that new results no longer compare with recorded ones. Then the version needs a new name."""
    default, own = (flatten_dict(to_dict(one), sep=".") for one in (Experiment(), experiment("release")))
    sections = ("data.", "networks.", "training.")
    assert {name: own[name] for name in own if own[name] != default[name] and name.startswith(sections)} == {
        "data.source": "pairs:forms=1,size=8,distance=16",
        "networks.resolution": 32,
        "networks.num_classes": 0,
        "networks.base_channels": 8,
        "networks.latent_size": 64,
        "networks.generator_attention_resolutions": (16,),
        "networks.discriminator_attention_resolutions": (16,),
        "networks.norm_decay": 0.99,
        "networks.final_norm_decay": 0.99,
        "training.total_steps": 2000,
        "training.batch_size": 32,
        "training.generator_learning_rate": 0.0005,
        "training.discriminator_learning_rate": 0.001,
        "training.ema_decay": 0.99,
        "training.precision": "float32",
    }
    assert (reach.RULE, reach.RESOLUTION, reach.BINS[-1]) == (Pairs(hues=6, forms=1, size=6), 32, (18, 20))
    assert (reach.STEPS, reach.QUARTETS, reach.LEARNING_RATE, reach.WARMUP_STEPS) == (1500, 16, 3e-3, 50)
    assert (reach.HELD_OUT, long_range.PROTOCOL, long_range.LEAST_PARTS) == (512, "rule5k", 0.02)
    rule = parse_synthetic("pairs:forms=1,size=8,distance=16")
    drawn = np.stack([rule.draw(number, 32) for number in range(20)]), reach._held_out(3)[:20]
    assert [hashlib.sha256(images.tobytes()).hexdigest() for images in drawn] == [
        "03e12608e72a1a8ec6992a27ca517585017927268e01a1f0eba7ee0da1a690eb",
        "08fc3e36bd36bf49ef43f88b746e5f5d00098f065e2049930eb8ed6c8490ffa8",
    ]
