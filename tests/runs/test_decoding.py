"""Which images of a run are decoded fast: those that it trains on, and none that are scored."""

import dataclasses

import numpy as np
import pytest

from sagan_jax.config import (
    CompletionExperiment,
    CompletionNetworks,
    Data,
    Evaluation,
    Experiment,
    Networks,
    from_dict,
    to_dict,
)
from sagan_jax.data.decoding import decode
from sagan_jax.runs import generation
from sagan_jax.runs.build import open_images, open_labelled_images
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.generation import GenerationJob
from sagan_jax.runs.load import CompletionRun, GenerationRun
from sagan_jax.runs.resume import check_same_run
from sagan_jax.runtime.environment import write_run_files
from support.archives import write_folder
from support.assertions import refusal
from support.images import encoded, noise

pytestmark = pytest.mark.one_jax

FILES = {f"{number % 2}/{number}.jpg": encoded(noise(190, 170, 3, seed=number), "JPEG") for number in range(4)}
SMALL = Networks(
    resolution=32,
    num_classes=2,
    base_channels=1,
    latent_size=6,
    generator_attention_resolutions=(),
    discriminator_attention_resolutions=(),
)


@pytest.fixture
def data(tmp_path):
    folder = str(write_folder(tmp_path / "x", FILES))
    return Data(source=folder, held_out=folder, cache="", decoding="fast")


def pixels(how, resolution):
    return [decode(FILES[name], resolution, 3, how)[0].tolist() for name in sorted(FILES)]


def read(source):
    return [source[index][0].tolist() for index in range(len(source))]


class Monitor:
    """Replaces the monitor of the scores, and keeps the source that it is given."""

    best_by = None

    def __init__(self, experiment, workdir, source):
        self.source = source


@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_run_trains_on_images_as_its_config_says_and_is_scored_on_exact_ones(data, decoding, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "ScoreMonitor", Monitor)
    data = dataclasses.replace(data, decoding=decoding)
    experiment = Experiment(data=data, networks=SMALL, evaluation=Evaluation(protocols=("fd4_train_random",)))
    job = GenerationJob(experiment, tmp_path)
    assert read(job.source) == pixels(decoding, 32)
    assert read(job.score_monitor.source) == pixels("exact", 32)


@pytest.mark.slow
def test_batches_of_a_run_hold_the_images_of_its_decoding(data, tmp_path):
    experiment = Experiment(data=data, networks=SMALL)
    batch = next(GenerationJob(experiment, tmp_path).batches(0))
    images = np.rint((np.asarray(batch[0])[0] + 1) * 127.5).astype(np.uint8).tolist()
    assert all(image in pixels("fast", 32) for image in images)
    assert not any(image in pixels("exact", 32) for image in images)


def test_completion_trains_on_images_as_its_config_says_and_is_scored_on_exact_ones(data, tmp_path):
    job = CompletionJob(CompletionExperiment(data=data, networks=CompletionNetworks(resolution=64)), tmp_path)
    assert read(job.source) == pixels("fast", 64)
    assert read(job.held_out) == pixels("exact", 64)


@pytest.mark.parametrize("held_out", [False, True])
def test_opened_run_gives_exact_images(data, held_out, tmp_path):
    generating = Experiment(data=data, networks=SMALL)
    completing = CompletionExperiment(data=data, networks=CompletionNetworks(resolution=64))
    assert read(GenerationRun(tmp_path, generating).images(held_out=held_out)) == pixels("exact", 32)
    assert read(CompletionRun(tmp_path, completing).images(held_out=held_out)) == pixels("exact", 64)
    assert read(open_images(completing, held_out)) == pixels("exact", 64)
    assert read(open_labelled_images(generating, held_out)) == pixels("exact", 32)


def test_config_that_was_saved_without_a_decoding_means_exact():
    values = to_dict(Experiment())
    del values["data"]["decoding"]
    assert from_dict(values).data.decoding == "exact"


def test_run_that_was_started_without_a_decoding_goes_on_with_exact_images_alone(tmp_path):
    values = to_dict(Experiment(networks=SMALL))
    del values["data"]["decoding"]
    write_run_files(tmp_path, values, resumed=False)
    check_same_run(tmp_path, Experiment(networks=SMALL))
    fast = Experiment(networks=SMALL, data=Data(decoding="fast"))
    assert "data.decoding: exact -> fast" in refusal(check_same_run, tmp_path, fast)
