"""Networks written in flax nnx: a run of them, and every command that takes a run."""

import dataclasses
import json
import shutil

import jax
import jax.export
import numpy as np
import pytest

import sagan_jax
from sagan_jax.runs.build import build_adversarial_task, image_shape
from sagan_jax.runs.contracts import check_contracts
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.training.adversarial import Batch, initial_state, step
from support.assertions import same_bits
from support.commands import command

pytestmark = pytest.mark.one_jax

SOURCE = """
import jax
from flax import nnx

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


class Generator(nnx.Module):
    def __init__(self, *, axis_name=None, dtype=None, norm_decay=0.5, rngs):
        self.linear = nnx.Linear(6, 8 * 8 * 5, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(
            5, axis_name=axis_name, momentum=norm_decay, use_fast_variance=False, dtype=dtype, rngs=rngs
        )
        self.query = nnx.Conv(5, 2, (1, 1), dtype=dtype, rngs=rngs)
        self.conv = nnx.Conv(5, 3, (3, 3), rngs=rngs)

    def __call__(self, latents, labels, *, train):
        features = self.linear(latents).reshape(-1, 8, 8, 5)
        features = nnx.relu(self.norm(features, use_running_average=not train))
        queries = self.query(features).reshape(-1, 64, 2)
        weights = jax.nn.softmax(queries @ queries.swapaxes(1, 2))
        self.attention_map = nnx.Intermediate((weights,))
        features = (weights @ features.reshape(-1, 64, 5)).reshape(features.shape)
        features = jax.image.resize(features, (features.shape[0], 32, 32, 5), "nearest")
        return nnx.tanh(self.conv(features))


class Discriminator(nnx.Module):
    def __init__(self, *, dtype=None, rngs):
        self.conv = nnx.Conv(3, 7, (4, 4), strides=4, dtype=dtype, rngs=rngs)
        self.linear = nnx.Linear(7, 1, rngs=rngs)

    def __call__(self, images, labels, *, train):
        return self.linear(nnx.relu(self.conv(images)).mean((1, 2)))[:, 0]


GENERATOR = nnx.bridge.to_linen(Generator, axis_name=None, dtype=None, norm_decay=0.5)
DISCRIMINATOR = nnx.bridge.to_linen(Discriminator, dtype=None)


def experiment():
    return Experiment(
        name="nnx",
        data=Data("pairs:images=40", cache=""),
        networks=Networks(modules=(GENERATOR, DISCRIMINATOR), resolution=32, num_classes=0, latent_size=6),
        training=Training(total_steps=2, batch_size=8),
        recording=Recording(log_every_steps=1, save_every_steps=1, sample_every_steps=2),
    )
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("nnx") / "my_nnx.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def finished(file):
    """The workdir of a run of two steps; read only."""
    assert command("train", file, "--workdir", file.parent / "run") == 0
    return file.parent / "run"


def test_spectral_norm_and_moments_are_found_by_the_same_rules(file):
    experiment = load_experiment(str(file))
    task = build_adversarial_task(experiment)
    check_contracts(task, image_shape(experiment))
    state = jax.eval_shape(lambda: initial_state(task, 0, image_shape(experiment)))
    assert set(state.generator.spectral) == {"linear", "query", "conv"}
    assert set(state.discriminator.spectral) == {"conv", "linear"}
    assert set(state.generator.batch_stats) == {"norm"}
    assert state.discriminator.batch_stats == {}


def traced(task, state, **options):
    batch = Batch(jax.ShapeDtypeStruct((1, 4, 32, 32, 3), np.float32), jax.ShapeDtypeStruct((1, 4), np.int32))
    axes = [("data", 2)] if options else []
    return str(jax.make_jaxpr(lambda *arrays: step(task, *arrays, **options), axis_env=axes)(state, batch))


@pytest.mark.slow
def test_fields_of_an_nnx_network_are_set(file):
    experiment = load_experiment(str(file))
    task = build_adversarial_task(experiment)
    state = jax.eval_shape(lambda: initial_state(task, 0, image_shape(experiment)))
    assert "bf16[" not in traced(task, state)
    assert "bf16[" in traced(dataclasses.replace(task, precision="bfloat16"), state)
    # With global moments, the means and variances of G's norm are over the axis.
    apart = dataclasses.replace(task, global_moments=False)
    sums = [traced(one, state, axis_name="data").count("psum") for one in (task, apart)]
    assert sums[0] > sums[1]


@pytest.mark.slow
def test_run_of_nnx_networks_is_resumed_with_the_bits_of_one_that_was_not_stopped(finished, file, tmp_path):
    workdir = tmp_path / "run"
    assert command("train", file, "--workdir", workdir, "--total-steps", 1) == 0
    assert command("train", file, "--workdir", workdir, "--total-steps", 2) == 0
    whole, resumed = (sagan_jax.open_run(folder).state for folder in (finished, workdir))
    assert same_bits(whole.generator.params, resumed.generator.params)
    assert same_bits(whole.generator.batch_stats, resumed.generator.batch_stats)
    assert same_bits(whole.discriminator.params, resumed.discriminator.params)
    assert whole.step == 2


@pytest.mark.slow
def test_commands_take_a_run_of_nnx_networks(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert (run / "samples" / "samples-00000002.png").is_file()
    assert command("sample", "--workdir", run, "--num-images", 4, "--out", tmp_path / "samples.png") == 0
    assert command("attend", "--workdir", run, "--num-images", 1, "--out", tmp_path / "maps") == 0
    assert (tmp_path / "maps" / "generator-0.png").is_file()
    protocols = ["rule1k", "fd20_train_random_standing"]
    assert command("evaluate", "--workdir", run, "--protocol", *protocols, "--cache", "") == 0
    values = [json.loads(path.read_text())["values"] for path in sorted((run / "scores").glob("*.json"))]
    assert len(values) == 2
    assert command("report", "--workdir", run, "--out", tmp_path / "report.html") == 0
    assert "my_nnx.py:GENERATOR" in (tmp_path / "report.html").read_text()
    assert command("export", "--workdir", run, "--out", tmp_path / "out") == 0
    exported = jax.export.deserialize(bytearray((tmp_path / "out" / "generator.jax_export").read_bytes()))
    trained = sagan_jax.load_run(run)
    latents = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    drawn = trained.generator.apply(trained.variables, latents, np.zeros(3, np.int32), train=False)
    assert np.abs(np.asarray(exported.call(latents, np.zeros(3, np.int32))) - drawn).max() < 1e-5
