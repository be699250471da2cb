"""Files with the mean and the covariance of features, as others publish them and as we write them."""

import io
import re
import zipfile

import numpy as np
import pytest

from sagan_jax.data import open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import random_embedding
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.evaluation.statistics_files import is_statistics_file, read_statistics, write_statistics
from sagan_jax.functional.distances import moments_of
from support.images import smooth_images

pytestmark = pytest.mark.one_jax

FEATURES = np.random.default_rng(0).normal(size=(40, 5)) + np.arange(5)


def write(path, mean=None, covariance=None, **more):
    mean = FEATURES.mean(0) if mean is None else mean
    np.savez(path, mu=mean, sigma=np.cov(FEATURES.T) if covariance is None else covariance, **more)
    return path


def test_published_file_gives_its_mean_and_covariance(tmp_path):
    read = read_statistics(write(tmp_path / "a.npz", covariance=np.cov(FEATURES.T).astype(np.float32)))
    assert read.mean.dtype == read.covariance.dtype == np.float64
    assert np.array_equal(read.mean, FEATURES.mean(0))
    assert np.allclose(read.covariance, np.cov(FEATURES.T), rtol=1e-6)
    assert (read.count, read.features, read.name) == (None, "", "a.npz")


def test_file_of_ours_says_how_many_images_and_which_network(tmp_path):
    write_statistics(tmp_path / "a.npz", moments_of(FEATURES), random_embedding())
    read = read_statistics(tmp_path / "a.npz")
    assert np.allclose(read.covariance, np.cov(FEATURES.T), rtol=1e-12)
    assert (read.count, read.features, read.identity) == (40, "random", random_embedding().identity)


def test_only_an_npz_with_mu_and_sigma_holds_statistics(tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    assert is_statistics_file(write(tmp_path / "a.npz"))
    for name in ("images.npz", "damaged.npz", "absent.npz", "."):
        assert not is_statistics_file(tmp_path / name)


ASYMMETRIC = np.eye(5) + np.triu(np.full((5, 5), 0.01), 1)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"mean": np.zeros(4)}, "the shapes [D] and [D, D]; got [4] and [5, 5]"),
        ({"mean": np.zeros((1, 5))}, "got [1, 5] and [5, 5]"),
        ({"covariance": np.ones(5)}, "got [5] and [5]"),
        ({"mean": np.zeros(5, int)}, "`mu` needs to be floating"),
        ({"mean": np.array([0, 1, np.nan, 0, 0])}, "`mu` holds values that are not finite"),
        ({"covariance": np.diag([1, 1, np.inf, 1, 1.0])}, "`sigma` holds values that are not finite"),
        ({"covariance": ASYMMETRIC}, "`sigma` is not symmetric"),
        ({"covariance": np.diag([1, 1, 1, 1, -0.01])}, "negative eigenvalue, -0.01 beside 1"),
        ({"mean": np.full(5, 1e200)}, "`mu` needs values up to 1e+100; the largest is 1e+200"),
        ({"count": np.array([1, 2])}, "one integer of at least 2"),
        ({"count": np.str_("x")}, "one integer of at least 2"),
        ({"count": np.int64(-3)}, "one integer of at least 2"),
    ],
)
def test_what_is_no_mean_and_covariance_is_refused_in_one_line(tmp_path, arrays, says):
    with pytest.raises(InvalidInputError, match=re.escape(says)) as refused:
        read_statistics(write(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(refused.value)


def test_file_without_a_covariance_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(5))
    with pytest.raises(InvalidInputError, match="needs the arrays `mu` and `sigma`; it has no sigma"):
        read_statistics(tmp_path / "a.npz")


@pytest.mark.parametrize("offset", [6, 8])
def test_damaged_zip_directory_raises_no_error(tmp_path, offset):
    content = bytearray(write(tmp_path / "a.npz").read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + offset + 1] = 99  # a version that zipfile does not know, or flags of an encoding
    (tmp_path / "a.npz").write_bytes(content)
    assert is_statistics_file(tmp_path / "a.npz") in (True, False)


def test_rounding_of_float32_is_no_fault(tmp_path):
    few = np.random.default_rng(1).normal(size=(4, 5))  # a singular covariance
    covariance = np.cov(few.T).astype(np.float32)
    covariance[0, 1] *= 1 + 1e-6
    assert read_statistics(write(tmp_path / "a.npz", covariance=covariance)).covariance.shape == (5, 5)


def test_objects_and_false_headers_are_refused(tmp_path):
    write(tmp_path / "objects.npz", mean=np.array([{}], object))
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(write(tmp_path / "header.npz"), "w") as archive:
        archive.writestr("mu.npy", content.getvalue())
        archive.writestr("sigma.npy", content.getvalue())
    for name, says in (("objects", "reading them can run code"), ("header", "fewer bytes than its header")):
        with pytest.raises(InvalidInputError, match=says):
            read_statistics(tmp_path / f"{name}.npz")


# As the reference of scores


def images(path, count, seed):
    np.savez(path, images=smooth_images(count, 32, seed))
    return RealImages(open_source(str(path), resolution=32), 8)


def test_distance_to_statistics_is_that_to_the_images_they_are_of(tmp_path):
    real, fake = images(tmp_path / "real.npz", 30, 0), images(tmp_path / "fake.npz", 20, 1)
    protocol, direct = parse_protocol("fd20_train_random"), Evaluator(real)
    write_statistics(tmp_path / "s.npz", direct.references.moments(protocol), random_embedding())
    score = Evaluator(None, statistics=read_statistics(tmp_path / "s.npz")).score(protocol, fake)
    assert score.value == pytest.approx(direct.score(protocol, fake).value, rel=1e-9)
    assert score.details["reference"]["statistics"] == "s.npz"
    assert score.details["reference"]["images"] == 30


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        ("fd20_train_random", "holds 5 features of each image, and random ones are 512"),
        ("kd20_train_random", "needs the real images; s.npz holds only the mean"),
        ("prdc20_test_random", "with random features, uniform noise"),
        ("intra_fd_train_random", "needs the real images"),
        ("classifier_accuracy", "needs the real images"),
        ("rule20", "needs the real images"),
    ],
)
def test_scores_that_statistics_cannot_serve_are_refused(tmp_path, protocol, says):
    evaluator = Evaluator(None, statistics=read_statistics(write(tmp_path / "s.npz")))
    with pytest.raises(InvalidInputError, match=says):
        evaluator.check_images(parse_protocol(protocol), images(tmp_path / "fake.npz", 20, 1))


def test_statistics_of_other_weights_of_our_network_are_refused(tmp_path):
    more = {"count": 9, "features": "random", "identity": "random-vgg-64:other"}
    file = write(tmp_path / "s.npz", np.zeros(512), np.eye(512), **more)
    evaluator = Evaluator(None, statistics=read_statistics(file))
    with pytest.raises(InvalidInputError, match="features of another network, random-vgg-64:other"):
        evaluator.check(parse_protocol("fd20_train_random"), 0)
