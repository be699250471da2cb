"""From batches to moments and features, on a network whose feature is the brightness of an image."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import features
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch
from sagan_jax.evaluation.features import embed, gather_features, gather_moments
from sagan_jax.runtime.progress import NullProgress


def brightness(scale, images):
    means = scale * images.mean((1, 2))
    return {"features": means[:, :2], "doubled": 2 * means}


EMBEDDING = Embedding("brightness", "brightness", brightness, np.float32(1), 2)


def make_batches(images, sizes):
    """Batches of these sizes, each padded to the largest one."""
    starts = np.cumsum([0, *sizes[:-1]])
    for start, size in zip(starts, sizes, strict=True):
        padded = np.resize(images[start : start + size], (max(sizes), *images.shape[1:]))
        yield ImageBatch(padded, np.zeros(size, np.int32), int(start))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2411, 4, 6, 3), np.uint8)


def test_moments_are_those_of_all_images_and_not_of_the_padding(images):
    moments = gather_moments(EMBEDDING, make_batches(images, [700, 699, 700, 307, 5]), NullProgress())
    features = images.astype(np.float64).mean((1, 2))[:, :2]
    assert moments.count == 2411
    assert moments.mean == pytest.approx(features.mean(0), rel=1e-6)
    assert moments.covariance == pytest.approx(np.cov(features.T), rel=1e-4)


def test_features_come_in_the_order_of_the_draw(images):
    batches = list(make_batches(images[:19], [8, 8, 3]))
    found = gather_features(EMBEDDING, batches[::-1], NullProgress())
    assert found.shape == (19, 2)
    assert found == pytest.approx(images[:19].astype(np.float64).mean((1, 2))[:, :2], rel=1e-5)


def test_another_output_than_the_features_can_be_gathered(images):
    found = gather_features(EMBEDDING, make_batches(images[:5], [5]), NullProgress(), "doubled")
    assert found == pytest.approx(2 * images[:5].astype(np.float64).mean((1, 2)), rel=1e-5)


@pytest.fixture
def in_processes(monkeypatch):
    """Returns a function that calls another with each argument in its own thread. Threads gather as processes do."""

    def run(function, arguments):
        barrier, parts = threading.Barrier(len(arguments), timeout=10), {}

        def gather(array):
            parts[threading.current_thread()] = array
            barrier.wait()
            found = sorted(parts.items(), key=lambda item: item[0].name)
            barrier.wait()
            assert len({(part.dtype, part.shape[1:]) for _, part in found}) == 1  # as the real gather requires
            return [part for _, part in found]

        monkeypatch.setattr(features, "gather", gather)
        with ThreadPoolExecutor(len(arguments)) as pool:
            return list(pool.map(function, arguments))

    return run


@pytest.mark.parametrize(("output", "width"), [("features", 2), ("doubled", 3)])
def test_process_without_batches_gets_the_outputs_of_the_others(images, in_processes, output, width):
    batches = list(make_batches(images[:19], [8, 8, 3]))
    shares = [[], batches[1:2], batches[::2]]
    found = in_processes(lambda share: gather_features(EMBEDDING, share, NullProgress(), output), shares)
    wanted = np.concatenate([outputs[output] for outputs, _ in EMBEDDING(batches)])
    assert wanted.shape == (19, width)
    assert all(np.array_equal(one, wanted) for one in found)


def test_process_without_batches_gets_the_moments_of_the_others(images, in_processes):
    batches = list(make_batches(images[:19], [8, 8, 3]))
    found = in_processes(lambda share: gather_moments(EMBEDDING, share, NullProgress()), [batches, []])
    wanted = images[:19].astype(np.float64).mean((1, 2))[:, :2]
    assert [moments.count for moments in found] == [19, 19]
    assert all(moments.mean == pytest.approx(wanted.mean(0), rel=1e-6) for moments in found)


def test_features_that_are_not_finite_are_an_error(images):
    broken = Embedding("brightness", "broken", brightness, np.float32("inf"), 2)
    with pytest.raises(InvalidInputError, match="The brightness network returned features that are not finite"):
        list(embed(broken, make_batches(images[:5], [5]), NullProgress()))


def test_progress_counts_images_without_the_padding(images):
    ticks = []

    class Recorder(NullProgress):
        def tick(self, images):
            ticks.append(images)

    gather_moments(EMBEDDING, make_batches(images[:19], [8, 8, 3]), Recorder())
    assert ticks == [8, 8, 3]
