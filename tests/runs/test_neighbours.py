"""Which network the nearest neighbours are looked for in."""

import pytest

from sagan_jax.runs import neighbours
from support.assertions import refusal


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """Names in place of networks; the weights of the FID network lie in the file `there` alone."""
    monkeypatch.setattr(neighbours, "find_inception", lambda path: "inception" if path == "there" else None)
    monkeypatch.setattr(neighbours, "lite0_embedding", lambda: "lite0")
    monkeypatch.setattr(neighbours, "random_embedding", lambda: "random")


@pytest.mark.parametrize(
    ("features", "path", "found"),
    [
        ("auto", "there", "inception"),
        ("auto", "", "random"),
        ("inception", "there", "inception"),
        ("lite0", "there", "lite0"),
        ("random", "there", "random"),
    ],
)
def test_features_are_those_that_were_asked_for(features, path, found):
    assert neighbours._embedding(features, path) == found


def test_features_whose_weights_are_missing_are_refused():
    assert "--features inception needs the weights of the FID network" in refusal(
        neighbours._embedding, "inception", ""
    )
