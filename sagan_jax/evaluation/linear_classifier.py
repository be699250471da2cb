"""Multinomial logistic regression on the features of a network."""

from typing import NamedTuple

import numpy as np

PENALTY = 1e-2
"""The weight of half the squared norm of the kernel, relative to the mean cross-entropy per image."""
MOST_ITERATIONS = 300


class LinearClassifier(NamedTuple):
    """A linear map from features to logits."""

    kernel: np.ndarray
    """`[D, K]` float32"""
    bias: np.ndarray
    """`[K]` float32"""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns the logits `[N, K]` of features `[N, D]`."""
        return features @ self.kernel + self.bias


def fit_linear_classifier(features: np.ndarray, labels: np.ndarray, num_classes: int) -> LinearClassifier:
    """Returns the classifier that minimises the mean cross-entropy plus an L2 penalty.

        min_{W, b}  -mean_n log softmax(z_n W + b)[y_n] + PENALTY / 2 |W|^2

    z are the standardised features. The returned classifier takes unstandardised features. The loss is convex, so the
    result does not depend on a seed. Runs on the host with scipy's L-BFGS.

    Args:
        features: `[N, D]`, floating, finite.
        labels: `[N]` integers in [0, K).
        num_classes: K.

    Examples:
        >>> fitted = fit_linear_classifier(np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([0, 0, 1, 1]), 2)
        >>> fitted.logits(np.array([[3.0], [6.0]])).argmax(axis=1).tolist()
        [0, 1]
    """
    from scipy import optimize  # imported here, so that commands without a classifier start sooner

    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale = 1 / np.where(deviation > 0, deviation, 1)  # a constant feature carries no information
    inputs = np.asarray((features - mean) * scale, np.float32)
    count, size = inputs.shape
    places = np.arange(count), labels

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(size + 1, num_classes)
        kernel, bias = weights[:-1], weights[-1]
        logits = (inputs @ kernel.astype(np.float32)).astype(np.float64) + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = np.exp(log_p)
        error[places] -= 1
        error /= count
        gradient = np.vstack([inputs.T @ error.astype(np.float32) + PENALTY * kernel, error.sum(axis=0)])
        return float(PENALTY / 2 * (kernel**2).sum() - log_p[places].mean()), gradient.ravel()

    found = optimize.minimize(
        loss, np.zeros((size + 1) * num_classes), jac=True, method="L-BFGS-B", options={"maxiter": MOST_ITERATIONS}
    ).x.reshape(size + 1, num_classes)
    kernel = found[:-1] * scale[:, np.newaxis]
    return LinearClassifier(kernel.astype(np.float32), (found[-1] - mean @ kernel).astype(np.float32))
