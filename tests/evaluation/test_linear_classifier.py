"""Logistic regression against scikit-learn's. Theirs minimises the sum of the losses, ours the mean."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sagan_jax.evaluation.linear_classifier import PENALTY, fit_linear_classifier


@pytest.fixture(scope="module")
def drawn():
    """Features `[211, 7]` of three overlapping classes, the last feature constant, and labels. The scales differ."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 211)
    features = random.standard_normal((211, 7)) + random.standard_normal((3, 7))[labels]
    return (features * [1, 100, 0.01, 5, 2, 3, 0] + [0, 1000, 0, -5, 2, 3, 4]).astype(np.float32), labels


def test_probabilities_are_those_of_sklearn(drawn):
    features, labels = drawn
    varied = features[:, :6].astype(np.float64)
    inputs = (varied - varied.mean(axis=0)) / varied.std(axis=0)
    wanted = LogisticRegression(C=1 / (PENALTY * len(labels)), tol=1e-8, max_iter=5000).fit(inputs, labels)
    logits = fit_linear_classifier(features, labels, 3).logits(features)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), wanted.predict_proba(inputs), atol=2e-3)


def test_constant_feature_has_zero_weights(drawn):
    features, labels = drawn
    assert not fit_linear_classifier(features, labels, 3).kernel[6].any()


def test_class_without_images_is_never_found(drawn):
    features, labels = drawn
    logits = fit_linear_classifier(features, labels, 4).logits(features)
    assert logits.shape == (211, 4)
    assert (logits.argmax(axis=1) < 3).all()
