"""Which network the nearest neighbours are looked for in."""

import types

import pytest

from sagan_jax.config import Evaluation
from sagan_jax.runs import neighbours
from sagan_jax.runtime.progress import NullProgress
from support.assertions import refusal

pytestmark = pytest.mark.one_jax


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """Replaces networks by their names. Weights that are not in a package exist only in the file `there`."""
    monkeypatch.setattr(neighbours, "find_inception", lambda path: "inception" if path == "there" else None)
    monkeypatch.setattr(neighbours, "find_dinov2", lambda path: "dinov2" if path == "there" else None)
    monkeypatch.setattr(neighbours, "lite0_embedding", lambda: "lite0")
    monkeypatch.setattr(neighbours, "random_embedding", lambda: "random")
    monkeypatch.setattr(neighbours, "is_installed", lambda: True)


@pytest.mark.parametrize(
    ("features", "path", "found"),
    [
        ("auto", "there", "inception"),
        ("auto", "", "lite0"),
        ("inception", "there", "inception"),
        ("lite0", "there", "lite0"),
        ("dinov2", "there", "dinov2"),
        ("random", "there", "random"),
    ],
)
def test_features_are_those_that_were_asked_for(features, path, found):
    assert neighbours._embedding(features, path, path) == found


def test_random_features_remain_where_nothing_trained_is_installed(monkeypatch):
    monkeypatch.setattr(neighbours, "is_installed", lambda: False)
    assert neighbours._embedding("auto", "", "there") == "random"


def test_weights_that_the_config_of_a_run_names_are_found(monkeypatch, tmp_path):
    class WantedError(Exception):
        """Raised when the network is looked for, before anything is drawn."""

    def embedding(features, inception, dinov2):
        raise WantedError(inception, dinov2)

    evaluation = Evaluation(inception_weights="of_the_config", dinov2_weights="of_the_config_too")
    run = types.SimpleNamespace(experiment=types.SimpleNamespace(evaluation=evaluation))
    monkeypatch.setattr(neighbours, "open_run", lambda *_, **__: run)
    monkeypatch.setattr(neighbours, "_embedding", embedding)
    with pytest.raises(WantedError) as caught:
        neighbours.write_neighbours(tmp_path, tmp_path / "a.png", dinov2_weights="named", progress=NullProgress())
    assert caught.value.args == ("of_the_config", "named")


@pytest.mark.parametrize(
    ("features", "path", "dinov2", "network"),
    [("inception", "", "there", "the FID network"), ("dinov2", "there", "", "DINOv2")],
)
def test_features_whose_weights_are_missing_are_refused(features, path, dinov2, network):
    line = refusal(neighbours._embedding, features, path, dinov2)
    assert f"--features {features} needs the weights of {network}" in line
    assert f"--{features}-weights" in line
