"""`sagan-jax train` in a workdir that holds a run: whose config counts, and what may be given on top of it."""

import json

import pytest

from sagan_jax.config import to_dict
from sagan_jax.runs import train
from sagan_jax.runs.experiments import load_experiment
from support.commands import command, error_line


@pytest.fixture
def trained(monkeypatch):
    """Collects the experiments and workdirs that would be trained."""
    calls = []

    def collect(experiment, workdir, fresh, trust_checkpoint, profile_steps):
        calls.append((experiment, workdir, fresh))

    monkeypatch.setattr(train, "train_to_the_end", collect)
    return calls


@pytest.fixture
def run(tmp_path):
    """The workdir of a run of digits_32 that was started with other values."""
    config = to_dict(load_experiment("digits_32"))
    config["networks"]["base_channels"], config["training"]["total_steps"] = 3, 70
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def values(call):
    experiment, _, fresh = call
    return experiment.name, experiment.networks.base_channels, experiment.training.total_steps, fresh


def test_run_goes_on_with_its_own_config(run, trained, capsys):
    assert command("train", "--workdir", run) == 0
    assert values(trained[0]) == ("digits_32", 3, 70, False)
    assert "config" not in capsys.readouterr().out


def test_flags_change_the_config_of_the_run(run, trained):
    assert command("train", f"--workdir={run}", "--total-steps", 90) == 0
    assert values(trained[0]) == ("digits_32", 3, 90, False)


def test_experiment_that_is_named_says_where_the_run_differs(run, trained, capsys):
    assert command("train", "digits_32", "--workdir", run) == 0
    assert values(trained[0]) == ("digits_32", 3, 70, False)
    assert (
        "the run's own config is kept, which differs from digits_32: networks.base_channels: 8 -> 3; "
        "training.total_steps: 2000 -> 70"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pairs_32", "faces_completion_64"])
def test_another_experiment_is_refused(name, run, trained, capsys):
    assert command("train", name, "--workdir", run) == 2
    assert f"is of the experiment 'digits_32'; got '{name}': leave EXPERIMENT out to resume it" in error_line(capsys)
    assert not trained


def test_run_with_a_name_of_its_own_goes_on_under_its_experiment(run, trained):
    config = json.loads((run / "config.json").read_text()) | {"name": "mine"}
    (run / "config.json").write_text(json.dumps(config))
    assert command("train", "digits_32", "--name", "mine", "--workdir", run) == 0
    assert values(trained[0]) == ("mine", 3, 70, False)


def test_fresh_starts_over_with_the_config_of_the_run(run, trained):
    assert command("train", "--workdir", run, "--fresh", "--seed", 4) == 0
    assert values(trained[0]) == ("digits_32", 3, 70, True)


def test_fresh_with_an_experiment_starts_over_with_that(run, trained):
    assert command("train", "pairs_32", "--workdir", run, "--fresh") == 0
    assert values(trained[0])[0] == "pairs_32"


def test_shared_draws_cannot_be_turned_on_in_a_run_that_was_started_without(run, capsys):
    config = json.loads((run / "config.json").read_text())
    del config["training"]["shared_draws"]  # as in a run from before this field existed
    (run / "config.json").write_text(json.dumps(config))
    assert command("train", "--workdir", run, "--shared-draws") == 2
    assert "started with another config (training.shared_draws: False -> True)" in error_line(capsys)


def test_no_fresh_goes_on(run, trained):
    assert command("train", "--workdir", run, "--fresh", "--no-fresh") == 0
    assert values(trained[0]) == ("digits_32", 3, 70, False)


def test_workdir_that_is_absent_gets_the_default_experiment(tmp_path, trained):
    assert command("train", "--workdir", tmp_path / "new") == 0
    assert values(trained[0]) == ("digits_32", 8, 2000, False)
    assert not (tmp_path / "new").exists()


def test_run_in_the_default_workdir_goes_on_too(run, trained, monkeypatch):
    (run.parent / "runs").mkdir()
    run.rename(run.parent / "runs" / "digits_32")
    monkeypatch.chdir(run.parent)
    assert command("train") == 0
    assert values(trained[0]) == ("digits_32", 3, 70, False)


def test_tuned_run_goes_on_after_the_run_that_it_started_from_is_gone(run, trained):
    config = json.loads((run / "config.json").read_text())
    config["training"]["init_from"] = "gone"
    (run / "config.json").write_text(json.dumps(config))
    assert command("train", "--workdir", run, "--init-from", "gone") == 0
    assert trained[0][0].training.init_from == "gone"


def test_printed_commands_are_quoted_for_a_shell(run, trained, capsys):
    spaced = run.rename(run.with_name("my run"))
    assert command("train", "--workdir", spaced) == 0
    assert f"sagan-jax sample --workdir '{spaced}' --out samples.png" in capsys.readouterr().out
