"""Opening a run: what it gives, what it reads, and what it refuses."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import sagan_jax
from sagan_jax.config import CompletionExperiment, CompletionNetworks, Data, Experiment, Networks, Training, to_dict
from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runs.build import build_adversarial_task, build_completion_task, image_shape
from sagan_jax.runs.load import NO_DISCRIMINATOR, checkpoint_steps
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training import adversarial, completion
from support.commands import command, error_line

pytestmark = pytest.mark.one_jax


def write_images(path, number, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(number) % 2)
    return str(path)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return Experiment(
        data=Data(write_images(folder / "train.npz", 5), write_images(folder / "test.npz", 3), cache=""),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=1,
            latent_size=3,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
        ),
        training=Training(ema_decay=0.5),
    )


@pytest.fixture(scope="module")
def state(experiment):
    """A state whose moving average differs from the weights."""
    state = adversarial.initial_state(build_adversarial_task(experiment), 0, image_shape(experiment))
    return dataclasses.replace(state, average=jax.tree.map(lambda leaf: 2 * leaf, state.average))


def save(workdir, experiment, state, folder="checkpoints", step=7, **meta):
    write_run_files(workdir, to_dict(experiment))
    with Checkpoints(workdir / folder) as checkpoints:
        checkpoints.save(step, dataclasses.replace(state, step=np.int32(step)), meta)
    return workdir


def test_run_gives_its_average_or_its_weights_as_trained(experiment, state, tmp_path):
    run = sagan_jax.open_run(save(tmp_path / "run", experiment, state))
    averaged, raw = run.generator(), run.generator(raw=True)
    assert (averaged.averaged, raw.averaged) == (True, False)
    stored = state.generator.batch_stats
    for twice, once, trained in zip(
        *(jax.tree.leaves(tree) for tree in (averaged.variables["batch_stats"], raw.variables["batch_stats"], stored)),
        strict=True,
    ):
        assert np.array_equal(once, trained)
        assert np.array_equal(twice, 2 * trained)


def test_run_opens_the_checkpoint_that_is_named(experiment, state, tmp_path):
    workdir = save(tmp_path / "run", experiment, state)
    save(workdir, experiment, state, "best", 4)
    assert sagan_jax.open_run(workdir).generator().step == 7
    assert sagan_jax.open_run(workdir, checkpoint="best").generator().step == 4
    assert sagan_jax.open_run(workdir, checkpoint="best").discriminator().step == 4


@pytest.mark.slow
def test_run_opens_the_checkpoint_of_a_step(experiment, state, tmp_path):
    workdir = tmp_path / "run"
    write_run_files(workdir, to_dict(experiment))
    with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        for step in (5, 7):
            checkpoints.save(step, dataclasses.replace(state, step=np.int32(step)), {})
    save(workdir, experiment, state, "best", 4)
    assert checkpoint_steps(workdir) == [4, 5, 7]
    for step in (4, 5, 7):  # 4 is the best one, and no longer among the newest
        assert sagan_jax.open_run(workdir, checkpoint=step).generator().step == step
        assert sagan_jax.load_run(workdir, checkpoint=step).step == step
    with pytest.raises(InvalidInputError, match=r"has no checkpoint 6: there are 5, 7 and, as the best, 4\."):
        sagan_jax.load_run(workdir, checkpoint=6)


def test_checkpoint_of_a_name_that_is_none_is_refused(experiment, state, tmp_path):
    workdir = save(tmp_path / "run", experiment, state)
    with pytest.raises(InvalidInputError, match="'newest', 'best' or a step, an integer; got 'bset'"):
        sagan_jax.load_run(workdir, checkpoint="bset")


COMMANDS = {
    "sample": ["--out", "x.png"],
    "evaluate": [],
    "attend": [],
    "explore": ["--out", "x.html"],
    "export": [],
    "neighbours": ["--out", "x.png"],
    "interpolate": ["--out", "x.png"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lists_the_checkpoints_when_a_step_is_absent(experiment, state, tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = save(tmp_path / "run", experiment, state)
    assert command(name, "--workdir", workdir, "--checkpoint", 6, *COMMANDS[name]) == 2
    assert "has no checkpoint 6: there are 7." in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_run_reads_its_checkpoint_once(experiment, state, tmp_path, monkeypatch):
    run = sagan_jax.open_run(save(tmp_path / "run", experiment, state))
    restored, restore = [], Checkpoints.restore
    monkeypatch.setattr(Checkpoints, "restore", lambda *given: restored.append(given) or restore(*given))
    run.generator(), run.generator(raw=True), run.discriminator()
    assert len(restored) == 1


@pytest.mark.parametrize("folder", ["checkpoints", "best"])
def test_run_whose_newest_checkpoint_cannot_be_read_stops_and_changes_nothing(experiment, state, tmp_path, folder):
    workdir = save(tmp_path / "run", experiment, state, folder)
    with Checkpoints(workdir / folder, keep=2) as checkpoints:
        checkpoints.save(9, state, {})
    metadata = workdir / folder / "9" / "meta" / "metadata"
    metadata.unlink()
    metadata.symlink_to("/proc/self/mem")  # a regular file; reading it is an input/output error
    before = sorted(workdir.rglob("*"))
    run = sagan_jax.open_run(workdir, checkpoint="best" if folder == "best" else "newest")
    with pytest.raises(StorageError, match=r"Checkpoint 9 in .* could not be read .*Input/output error"):
        run.generator()
    assert sorted(workdir.rglob("*")) == before


def spoil(folder):
    for path in folder.glob("*/meta/metadata"):
        path.write_text("{")


@pytest.mark.parametrize(
    ("asked", "folder", "advice"),
    [("best", "best", "Give --checkpoint newest"), ("newest", "checkpoints", "Give --checkpoint best")],
)
def test_run_whose_checkpoints_of_a_kind_are_all_damaged_names_the_other_kind(
    experiment, state, tmp_path, asked, folder, advice
):
    workdir = save(tmp_path / "run", experiment, state)
    save(workdir, experiment, state, "best", 4)
    spoil(workdir / folder)
    with pytest.raises(InvalidInputError, match=rf"Every checkpoint in .*{folder} is damaged .*{advice}"):
        sagan_jax.open_run(workdir, checkpoint=asked).generator()


def test_run_without_another_checkpoint_than_the_damaged_one_is_to_be_trained_again(experiment, state, tmp_path):
    workdir = save(tmp_path / "run", experiment, state)
    spoil(workdir / "checkpoints")
    with pytest.raises(
        InvalidInputError, match=r"is damaged .*Restore a backup, or train it again with sagan-jax train"
    ):
        sagan_jax.open_run(workdir).generator()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "platform"), [("sample", "cuda"), ("export", "nonsense"), ("train", "cuda"), ("train", "nonsense")]
)
def test_command_names_the_backend_that_is_absent(experiment, state, tmp_path, command, platform):
    workdir = save(tmp_path / "run", experiment, state)
    before = sorted(workdir.rglob("*"))
    out = ["--out", str(tmp_path / "out")] if command != "train" else []
    ended = subprocess.run(
        [sys.executable, "-m", "sagan_jax.cli.main", command, "--workdir", str(workdir), *out],
        env=os.environ | {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stderr.splitlines()
    assert (ended.returncode, len(lines)) == (2, 1), ended.stderr
    assert lines[0].startswith(f"sagan-jax: no '{platform}' backend here: ")
    assert sorted(workdir.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_run_reads_its_config_when_it_is_opened_and_not_again(experiment, state, tmp_path):
    workdir = save(tmp_path / "run", experiment, state)
    run = sagan_jax.open_run(workdir)
    (workdir / "config.json").unlink()
    assert run.generator().latent_size == 3
    assert len(run.images()) == 5


def test_run_has_the_images_of_its_config_or_those_that_are_given(experiment, state, tmp_path):
    workdir = save(tmp_path / "run", experiment, state)
    run = sagan_jax.open_run(workdir)
    assert (len(run.images()), len(run.images(held_out=True))) == (5, 3)
    moved = write_images(tmp_path / "moved.npz", 11, 1)
    run = sagan_jax.open_run(workdir, source=moved)
    assert (len(run.images()), len(run.images(held_out=True))) == (11, 3)
    run = sagan_jax.open_run(workdir, held_out=moved)
    assert (len(run.images()), len(run.images(held_out=True))) == (5, 11)


def test_run_without_a_discriminator_says_so(experiment, state, tmp_path):
    run = sagan_jax.open_run(save(tmp_path / "run", experiment, state, discriminator=NO_DISCRIMINATOR))
    assert run.discriminator() is None
    assert run.generator().step == 7


def test_run_without_a_checkpoint_is_refused_when_it_is_asked_for(experiment, tmp_path):
    write_run_files(tmp_path / "run", to_dict(experiment))
    run = sagan_jax.open_run(tmp_path / "run")
    with pytest.raises(InvalidInputError, match="has no checkpoint yet: it was stopped before the first save"):
        run.generator()
    with pytest.raises(InvalidInputError, match="has no best checkpoint: it was not scored while it trained"):
        sagan_jax.open_run(tmp_path / "run", checkpoint="best").generator()


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"There is no run in '.*nowhere': it has no config.json"):
        sagan_jax.open_run(tmp_path / "nowhere")


def test_run_of_the_other_task_is_refused(experiment, state, tmp_path):
    completing = CompletionExperiment(networks=CompletionNetworks(base_channels=1, latent_size=3))
    write_run_files(tmp_path / "completing", to_dict(completing))
    with pytest.raises(InvalidInputError, match="completes images"):
        sagan_jax.open_run(tmp_path / "completing")
    with pytest.raises(InvalidInputError, match="generates images"):
        sagan_jax.open_completion_run(save(tmp_path / "run", experiment, state))


def test_completion_run_gives_its_average_or_its_weights_as_trained(tmp_path):
    completing = CompletionExperiment(networks=CompletionNetworks(base_channels=1, latent_size=3))
    state = completion.initial_state(build_completion_task(completing), 0)
    state = dataclasses.replace(state, average=jax.tree.map(lambda leaf: 2 * leaf, state.average))
    run = sagan_jax.open_completion_run(save(tmp_path / "run", completing, state))
    averaged, raw = run.completer(), run.completer(raw=True)
    assert (averaged.averaged, raw.averaged, raw.step) == (True, False, 7)
    for twice, once in zip(jax.tree.leaves(averaged.params), jax.tree.leaves(raw.params), strict=True):
        assert np.array_equal(twice, 2 * once)
    assert sagan_jax.load_completer(tmp_path / "run", checkpoint=7).step == 7
    with pytest.raises(InvalidInputError, match=r"has no checkpoint 6: there are 7\."):
        sagan_jax.load_completer(tmp_path / "run", checkpoint=6)
    with pytest.raises(InvalidInputError, match="this one has no best"):
        sagan_jax.load_completer(tmp_path / "run", checkpoint="best")
