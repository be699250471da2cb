"""The file with the results of our layers in the long-range benchmark."""

import json

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.long_range import Trial
from sagan_jax.runs.long_range_table import RECORDED
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


def test_file_of_the_package_is_what_the_results_come_to():
    program = load_program(BENCHMARKS / "record_long_range.py")
    assert program.recorded() == json.loads(RECORDED.read_text())


def test_probe_and_gan_of_a_seed_are_one_trial_and_a_collapsed_gan_has_no_scores(tmp_path):
    program = load_program(BENCHMARKS / "record_long_range.py")
    probe = {
        "steps": 1500,
        "bins": [{"accuracy": 1.0}, {"accuracy": 0.75}],
        "curve": [[100, 0.5], [200, 0.9375], [300, 0.75]],
    }
    (tmp_path / "probe_of_reach").mkdir()
    (tmp_path / "probe_of_reach" / "article-3.json").write_text(json.dumps(probe))
    values = {"rule5k": 0.25, "rule5k/beyond_chance": 0.2, "rule5k/hue": 0.5, "rule5k/hue_chance": 0.125}
    values |= {"rule5k/parts": 0.375, "rule5k/kinds": 1}
    curves = {"score/rule1k/parts": [[1, 0.001], [2, 0.02]]}
    for seed, parts in ((3, 0.02), (4, 0.0199)):
        folder = tmp_path / "long_range_v1" / f"article at 16-{seed}"
        folder.mkdir(parents=True)
        curves["score/rule1k/parts"][-1][1] = parts
        run = {"name": "long_range_v1", "training": {"total_steps": 2000}}
        (folder / "row.json").write_text(json.dumps({"values": values, "curves": curves, "experiment": run}))
    scores = {"follows_rule": 0.25, "beyond_chance": 0.2, "hue": 0.5, "hue_chance": 0.125, "parts": 0.375}
    trials = [Trial(**trial) for trial in program.recorded(tmp_path)["rows"]["article"]]
    assert trials == [Trial(0.75, 200, scores, False), Trial(None, None, None, True)]
    assert list(program.recorded(tmp_path)["rows"]) == ["article"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("probe_of_reach/none-0.json", {"steps": 300}, "needs 1500 steps for long_range_v1; it has 300"),
        (
            "long_range_v1/none-0/row.json",
            {"experiment": {"name": "long_range_v1", "training": {"total_steps": 8000}}},
            "needs a run of long_range_v1 with 2000 steps",
        ),
    ],
)
def test_results_of_other_settings_are_refused(tmp_path, name, content, words):
    program = load_program(BENCHMARKS / "record_long_range.py")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InvalidInputError, match=words):
        program.recorded(tmp_path)
