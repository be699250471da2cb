"""How much of a blob's attention falls on its partner, over the runs of a table."""

import dataclasses
import doctest
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import AttentionRecord
from sagan_jax.runs.build import build_adversarial_task, trained_discriminator, trained_generator
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.training.adversarial import initial_state
from support.attention_layers import layer_of_map
from support.programs import BENCHMARKS, program_with_neighbours

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "partner_attention.py"


@pytest.fixture
def program():
    with program_with_neighbours(PROGRAM) as loaded:
        yield loaded


def make_record(network, gamma, weight, clear=True):
    """The attention of 8x8 positions on a red pair: each blob gives the other `weight`, and the rest to the ground."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    places = np.zeros((2, 8, 8), bool)
    for place, (top, left) in zip(places, ((0, 0), (16, 20)), strict=True):
        place[top // 4 : top // 4 + 2, left // 4 : left // 4 + 2] = True
        image[0, top : top + 8, left : left + 8] = (255 if clear else 0, 0, 0)
    attention_map = np.zeros((1, 64, 64), np.float32)
    for own, other in (places, places[::-1]):
        attention_map[0, own.ravel()] = np.where(other.ravel(), weight / 4, (1 - weight) / 60)
    return AttentionRecord(image, np.zeros(1, np.int32), (layer_of_map(network, attention_map, 8, 8, gamma),))


def test_rows_are_means_over_seeds_of_what_each_layer_gives(program, monkeypatch, capsys):
    records = {
        "at 8-0": [make_record("generator", -0.25, 0.5), make_record("discriminator", 0.5, 0.25)],
        "at 8-1": [make_record("generator", 0.75, 0.25), make_record("discriminator", 0.5, 0.25)],
        "at 8-2": [make_record("generator", 0.5, 0.5, clear=False)],
        "none-0": [],
    }
    monkeypatch.setattr(program, "require_pairs", lambda workdir: Pairs(seed=len(workdir.name)))
    monkeypatch.setattr(program, "attention_records", lambda workdir, rule, count: records[workdir.name])
    program.run([f"runs/{name}" for name in records])
    # Uniform attention gives a blob 4 of 64 positions.
    assert capsys.readouterr().out.splitlines() == [
        "| row | layer | size of γ | share on the partner | times an even look | seeds |",
        "|---|---|---|---|---|---|",
        "| at 8 | G at 8 | 0.50 ± 0.25 | 0.38 ± 0.18 | 6.00 ± 2.83 | 2 of 3 |",
        "| at 8 | D at 8 | 0.50 ± 0.00 | 0.25 ± 0.00 | 4.00 ± 0.00 | 2 of 2 |",
    ]


def test_mean_and_deviation_are_of_the_values_that_there_are(program):
    means, deviations = program.mean_and_deviation(np.array([[1, np.nan, np.nan], [3, 5, np.nan]]))
    assert np.array_equal(means, [2, 5, np.nan], equal_nan=True)
    assert np.array_equal(deviations, [np.sqrt(2), np.nan, np.nan], equal_nan=True)
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


def opened(generator, discriminator):
    """A stand-in for an opened run with these networks."""
    return types.SimpleNamespace(generator=lambda: generator, discriminator=lambda: discriminator)


@pytest.mark.slow
def test_generated_images_are_those_of_the_run_and_real_ones_are_unseen(program, monkeypatch):
    experiment = load_experiment("pairs_32")
    networks = dataclasses.replace(experiment.networks, base_channels=1, latent_size=3)
    task = build_adversarial_task(dataclasses.replace(experiment, networks=networks))
    state = jax.jit(lambda: initial_state(task, 0, (32, 32, 3)))()
    generator, discriminator = trained_generator(task, state), trained_discriminator(task, state)
    monkeypatch.setattr(program, "open_run", lambda workdir: opened(generator, discriminator))
    drawn, real = program.attention_records(Path("run"), Pairs(seed=6), 5)
    assert drawn.layers[0].name == "generator_16"
    assert abs(drawn.images.astype(int) - generator.generate(5).images).max() <= 1
    assert real.layers[0].name == "discriminator_16"
    assert np.array_equal(real.images, np.stack([Pairs(seed=7).draw(index, 32) for index in range(5)]))
    monkeypatch.setattr(program, "open_run", lambda workdir: opened(generator, None))
    assert len(list(program.attention_records(Path("run"), Pairs(), 2))) == 1


def test_as_many_images_are_measured_as_asked(program, monkeypatch):
    asked = []
    monkeypatch.setattr(program, "require_pairs", lambda workdir: Pairs())
    monkeypatch.setattr(program, "attention_records", lambda workdir, rule, count: asked.append(count) or iter(()))
    program.run(["r/at 16-0", "--images", "33"])
    assert asked == [33]
    with pytest.raises(InvalidInputError, match="--images needs at least 1; got -3"):
        program.run(["r/at 16-0", "--images", "-3"])


def test_run_on_something_else_is_refused(program, tmp_path):
    with pytest.raises(InvalidInputError, match="no run"):
        program.run([str(tmp_path / "at 8-0")])
