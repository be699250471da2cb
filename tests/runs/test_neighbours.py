"""Which network the nearest neighbours are looked for in."""

import pytest

from sagan_jax.runs import neighbours
from support.assertions import refusal


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """Names in place of networks; weights that are not in a package lie in the file `there` alone."""
    monkeypatch.setattr(neighbours, "find_inception", lambda path: "inception" if path == "there" else None)
    monkeypatch.setattr(neighbours, "find_dinov2", lambda path: "dinov2" if path == "there" else None)
    monkeypatch.setattr(neighbours, "lite0_embedding", lambda: "lite0")
    monkeypatch.setattr(neighbours, "random_embedding", lambda: "random")


@pytest.mark.parametrize(
    ("features", "path", "found"),
    [
        ("auto", "there", "inception"),
        ("auto", "", "random"),
        ("inception", "there", "inception"),
        ("lite0", "there", "lite0"),
        ("dinov2", "there", "dinov2"),
        ("random", "there", "random"),
    ],
)
def test_features_are_those_that_were_asked_for(features, path, found):
    assert neighbours._embedding(features, path, path) == found


@pytest.mark.parametrize(
    ("features", "path", "dinov2", "network"),
    [("inception", "", "there", "the FID network"), ("dinov2", "there", "", "DINOv2")],
)
def test_features_whose_weights_are_missing_are_refused(features, path, dinov2, network):
    line = refusal(neighbours._embedding, features, path, dinov2)
    assert f"--features {features} needs the weights of {network}" in line
    assert f"--{features}-weights" in line
