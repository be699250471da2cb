"""Scores in the features of DINOv2, with a small network that is read from a file as the large one is."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax.data import open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.dinov2 import find_weights, read_dinov2
from sagan_jax.evaluation.embeddings import ImageBatch, dinov2_embedding
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.features import gather_features
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.functional.distances import density_coverage, precision_recall
from sagan_jax.interop.dinov2 import published_shapes
from sagan_jax.interop.weight_files import to_safetensors
from sagan_jax.models.dinov2 import DinoV2
from sagan_jax.runtime.progress import NullProgress
from support.commands import command, error_line

TINY = DinoV2(width=6, depth=1, num_heads=2, hidden=5, patch_size=56, table_side=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in published_shapes(TINY).items()}
    path = tmp_path_factory.mktemp("dinov2") / "tiny.safetensors"
    source = {"num_heads": "2", "source_name": "tiny.pth", "source_sha256": "0123"}
    path.write_bytes(to_safetensors(arrays, source))
    return path


@pytest.fixture(scope="module")
def embedding(weights):
    return dinov2_embedding(weights)


def make_images(path, number, seed):
    random = np.random.default_rng(seed)
    images = random.integers(90 * seed, 200, (number, 1, 1, 3)) + random.integers(0, 56, (number, 20, 20, 3))
    np.savez(path / f"images-{seed}.npz", images=images.astype(np.uint8))
    return path / f"images-{seed}.npz"


def real_images(path, number, seed):
    return RealImages(open_source(str(make_images(path, number, seed)), resolution=20, cache=""), 8)


def test_features_are_the_class_token_of_images_that_pillow_resized(weights, embedding):
    images = np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), np.uint8)
    ((outputs, _),) = embedding([ImageBatch(images, np.zeros(3, np.int32))])
    resized = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    normal = (np.stack(resized) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    wanted = jax.jit(TINY.apply)(read_dinov2(weights).variables, normal.astype(np.float32))["class_token"]
    np.testing.assert_allclose(outputs["features"], wanted, rtol=0, atol=1e-5)
    assert embedding.size == 6


def test_score_says_network_sha256_and_resize(embedding, tmp_path):
    real, fake = real_images(tmp_path, 21, 0), real_images(tmp_path, 17, 1)
    score = Evaluator(real, dinov2=embedding).score(parse_protocol("fd17_train_dinov2"), fake)
    words = "width 6, depth 1, 2 heads and patches of 56 pixels"
    assert score.details["embedding"] == f"DINOv2 of {words}, tiny.pth sha256:0123"
    assert score.protocol.settings()["resize"].startswith("Pillow bicubic with antialiasing to 224")
    assert f"published scores are in the features of ViT-L/14, not of {words}" in str(score)


def test_precision_and_recall_look_at_five_neighbours(embedding, tmp_path):
    real, fake = real_images(tmp_path, 21, 0), real_images(tmp_path, 19, 1)
    score = Evaluator(real, dinov2=embedding).score(parse_protocol("prdc19_train_dinov2"), fake)
    features = [gather_features(embedding, images.draw(19, 0), NullProgress()) for images in (real, fake)]
    assert tuple(score.values.values()) == (*precision_recall(*features, 5), *density_coverage(*features, 5))
    assert precision_recall(*features, 5) != precision_recall(*features, 3)
    assert score.details["neighbours"] == {"precision, recall": 5, "density, coverage": 5}


def test_score_without_the_weights_names_the_command(tmp_path):
    with pytest.raises(InvalidInputError, match="run `sagan-jax fetch-weights dinov2`, or name a file with --dinov2"):
        Evaluator(real_images(tmp_path, 21, 0)).check(parse_protocol("fd17_train_dinov2"), 0)


def test_weights_that_are_no_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    assert find_weights() is None
    with pytest.raises(InvalidInputError, match=r"DINOv2 need to be a file.*convert --from dinov2 FILE"):
        find_weights(tmp_path)


def test_network_is_read_again_only_when_its_file_has_changed(weights):
    assert read_dinov2(weights) is read_dinov2(weights)


def test_evaluate_takes_the_weights_by_a_flag(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    images = make_images(tmp_path, 11, 0)
    words = ("--images", images, "--reference", images, "--cache", "", "--protocol", "fd11_train_dinov2")
    assert command("evaluate", *words) == 2
    assert "needs the weights of DINOv2" in error_line(capsys)
    assert command("evaluate", *words, "--dinov2-weights", weights, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "fd11_train_dinov2.json").read_text())
    assert found["values"]["fd11_train_dinov2"] == pytest.approx(0, abs=1e-6)
    statistics = ("--save-statistics", tmp_path / "s.npz", "--dinov2-weights", weights)
    assert command("evaluate", *words[2:], *statistics) == 0
    again = ("--images", images, "--reference", tmp_path / "s.npz", "--dinov2-weights", weights, "--cache", "")
    capsys.readouterr()
    assert command("evaluate", *again) == 0
    assert capsys.readouterr().out.startswith("fd11_train_dinov2 ")
