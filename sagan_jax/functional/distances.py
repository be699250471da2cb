"""Distances between sets of images, on their features: Fréchet, kernel, inception score, precision and recall.

All of it runs in float64 on the host: a Fréchet distance is a small difference of large sums, which float32 loses.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_BLOCK_ROWS = 1000  # of a matrix of distances that is never held whole


class Moments(NamedTuple):
    """How many features there were, and what a Gaussian keeps of them."""

    count: int
    mean: np.ndarray
    """`[D]` float64"""
    scatter: np.ndarray
    """`[D, D]` float64: the sum over the features of (x - mean)(x - mean)^T"""

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance `[D, D]`: scatter / (count - 1)."""
        if self.count < 2:
            raise ValueError(f"A covariance needs at least 2 features; got {self.count}.")
        return self.scatter / (self.count - 1)


def moments_of(features: Any) -> Moments:
    """Returns the moments of a set of features, in two passes.

    Args:
        features: `[N, D]`, N at least 1, floating.

    Returns:
        Moments in float64.

    Raises:
        ValueError: for another shape, or a value that is not finite.

    >>> moments_of([[0.0, 1.0], [2.0, 1.0]]).covariance.tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    rows = _features(features, "moments_of")
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Moments(len(rows), mean, centred.T @ centred)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Returns the moments of the union of two sets, so that a stream of any length needs one set at a time.

        M = M1 + M2 + n1 n2 / (n1 + n2) d d^T,    d = mean2 - mean1

    Source: Chan, Golub and LeVeque 1979, equation 2.1.

    Args:
        first: of one set.
        second: of another, with features of the same size.

    Returns:
        The same, up to rounding, as `moments_of` the rows of both.

    Raises:
        ValueError: the sizes differ.

    >>> merge_moments(moments_of([[0.0]]), moments_of([[2.0]])).covariance.tolist()
    [[2.0]]
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"merge_moments needs features of one size; got {first.mean.size} and {second.mean.size}.")
    count = first.count + second.count
    difference = second.mean - first.mean
    mean = first.mean + difference * (second.count / count)
    between = np.outer(difference, difference) * (first.count * second.count / count)
    return Moments(count, mean, first.scatter + second.scatter + between)


def frechet_distance(mean1: Any, covariance1: Any, mean2: Any, covariance2: Any) -> float:
    """Returns the squared Fréchet (Wasserstein-2) distance between two Gaussians.

        |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2), which stays real and exact where
    covariances are singular: with fewer images than features a matrix root turns complex.

    Args:
        mean1: `[D]`, floating.
        covariance1: `[D, D]`, symmetric, positive semidefinite; unbiased in FID.
        mean2: `[D]`.
        covariance2: `[D, D]`.

    Returns:
        At least 0, symmetric in the two Gaussians up to rounding.

    Raises:
        ValueError: for other shapes, or a value that is not finite.

    Source: Heusel et al. 2017, equation 6; mseitzer/pytorch-fid:src/pytorch_fid/fid_score.py.

    >>> import numpy as np
    >>> round(frechet_distance([0, 0], np.eye(2), [3, 4], np.eye(2)), 9)
    25.0
    """
    mean1, covariance1, mean2, covariance2 = (
        np.asarray(array, np.float64) for array in (mean1, covariance1, mean2, covariance2)
    )
    size = mean1.size
    if mean1.shape != (size,) or mean2.shape != (size,) or {covariance1.shape, covariance2.shape} != {(size, size)}:
        shapes = ", ".join(str(list(array.shape)) for array in (mean1, covariance1, mean2, covariance2))
        raise ValueError(f"frechet_distance needs [D], [D, D], [D] and [D, D]; got {shapes}.")
    if not all(np.isfinite(array).all() for array in (mean1, covariance1, mean2, covariance2)):
        raise ValueError(
            "frechet_distance needs finite moments; got one that is not: are there images without a value?"
        )
    product = _root(covariance1).T @ _root(covariance2)
    cross = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    difference = mean1 - mean2
    distance = difference @ difference + np.trace(covariance1) + np.trace(covariance2) - 2 * cross
    return max(0.0, float(distance))


def kernel_distance(real: Any, fake: Any) -> float:
    """Returns the unbiased squared maximum mean discrepancy with the cubic kernel: KID on the whole of both sets.

        k(x, y) = (x^T y / D + 1)^3
        sum_{i != j} k(x_i, x_j) / (N (N-1)) + sum_{i != j} k(y_i, y_j) / (M (M-1)) - 2 sum_ij k(x_i, y_j) / (N M)

    The published KID is the mean of it over random subsets of 1,000.

    Args:
        real: `[N, D]`, N at least 2, floating.
        fake: `[M, D]`, M at least 2.

    Returns:
        0 on average for equal distributions, so it may be below 0.

    Raises:
        ValueError: for other shapes, or a value that is not finite.

    Source: Bińkowski et al. 2018, section 4; toshas/torch-fidelity:torch_fidelity/metric_kid.py.

    >>> kernel_distance([[0.0], [0.0]], [[1.0], [1.0]])
    7.0
    """
    real, fake = _pair(real, fake, "kernel_distance", least=2)
    return _mean_of_others(real) + _mean_of_others(fake) - 2 * _sum_of_kernel(real, fake) / (len(real) * len(fake))


def inception_score(logits: Any, splits: int = 10) -> tuple[float, float]:
    """Returns the mean and the standard deviation over splits of the inception score.

        exp( mean_x KL( p(y | x) || mean_x p(y | x) ) )

    The splits are consecutive, so images sorted by class have to be shuffled before.

    Args:
        logits: `[N, K]`, floating.
        splits: how many parts, from 1 to N; their sizes differ by at most 1.

    Returns:
        The mean over the parts, between 1 and K, and their standard deviation (of the population: 0 for one).

    Raises:
        ValueError: for another shape, a value that is not finite, or another number of splits.

    Source: Salimans et al. 2016, section 4; toshas/torch-fidelity:torch_fidelity/metric_isc.py.

    >>> [round(number, 6) for number in inception_score([[99.0, 0.0], [0.0, 99.0]], splits=1)]
    [2.0, 0.0]
    """
    rows = _features(logits, "inception_score")
    if not 1 <= splits <= len(rows):
        raise ValueError(f"inception_score needs 1 to {len(rows)} splits, the number of images; got {splits}.")
    log_all = rows - rows.max(axis=1, keepdims=True)
    log_all -= np.log(np.exp(log_all).sum(axis=1, keepdims=True))
    scores = []
    for part in range(splits):
        log_p = log_all[part * len(rows) // splits : (part + 1) * len(rows) // splits]
        p = np.exp(log_p)
        marginal = p.mean(axis=0)
        divergence = (p * log_p).sum(axis=1).mean() - (marginal * np.log(np.maximum(marginal, 1e-300))).sum()
        scores.append(math.exp(divergence))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(real: Any, fake: Any, neighbours: int = 3) -> tuple[float, float]:
    """Returns how much of the fake set lies among the real one, and the other way round.

    A point lies among a set when it is no farther from one of its points than that one's k-th nearest neighbour in
    the set.

    Args:
        real: `[N, D]`, floating.
        fake: `[M, D]`.
        neighbours: k, at least 1 and below N and M; the paper's is 3.

    Returns:
        Precision, the share of fake points among the real ones, and recall, the share of real among the fake ones.

    Raises:
        ValueError: for other shapes, a value that is not finite, or too few points.

    Source: Kynkäänniemi et al. 2019, equations 1 and 2.

    >>> precision_recall([[0.0], [1.0], [2.0]], [[1.0], [9.0]], neighbours=1)
    (0.5, 1.0)
    """
    real, fake = _pair(real, fake, "precision_recall", least=neighbours + 1, neighbours=neighbours)
    real_radii, fake_radii = _radii(real, neighbours), _radii(fake, neighbours)
    fake_among = np.zeros(len(fake), bool)
    real_among = np.zeros(len(real), bool)
    for start, distances in _distances(fake, real):
        stop = start + len(distances)
        fake_among[start:stop] = (distances <= real_radii).any(axis=1)
        real_among |= (distances <= fake_radii[start:stop, None]).any(axis=0)
    return float(fake_among.mean()), float(real_among.mean())


def density_coverage(real: Any, fake: Any, neighbours: int = 5) -> tuple[float, float]:
    """Returns how densely the fake points sit among the real ones, and how many real ones have one near them.

    Unlike precision and recall neither measures distances within the fake set, and an outlier counts little.

    Args:
        real: `[N, D]`, floating.
        fake: `[M, D]`.
        neighbours: k, at least 1 and below N; the paper's is 5.

    Returns:
        Density, the mean number of real balls that a fake point lies in, over k: about 1 for equal distributions, and
        it may be more; and coverage, the share of real balls that hold a fake point.

    Raises:
        ValueError: for other shapes, a value that is not finite, or too few points.

    Source: Naeem et al. 2020, equations 3 and 4; clovaai/generative-evaluation-prdc:prdc/prdc.py.

    >>> density_coverage([[0.0], [1.0], [2.0]], [[1.25], [9.0]], neighbours=1)
    (1.0, 0.6666666666666666)
    """
    real, fake = _pair(real, fake, "density_coverage", least=1, neighbours=neighbours)
    if len(real) <= neighbours:
        raise ValueError(f"density_coverage needs more than {neighbours} real features; got {len(real)}.")
    radii = _radii(real, neighbours)
    inside, nearest = 0, np.full(len(real), np.inf)
    for _, distances in _distances(fake, real):
        inside += int((distances < radii).sum())
        nearest = np.minimum(nearest, distances.min(axis=0))
    return inside / (neighbours * len(fake)), float((nearest < radii).mean())


def _features(features: Any, function: str) -> np.ndarray:
    array = np.asarray(features)
    if array.ndim != 2 or not array.size or array.dtype.kind in "bcOSU":
        raise ValueError(f"{function} needs features [N, D] of numbers; got {list(array.shape)} of {array.dtype}.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{function} needs finite features; got some that are not.")
    return array


def _pair(
    real: Any, fake: Any, function: str, *, least: int, neighbours: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    if neighbours is not None and neighbours < 1:
        raise ValueError(f"{function} needs at least 1 neighbour; got {neighbours}.")
    real, fake = _features(real, function), _features(fake, function)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"{function} needs features of one size; got {real.shape[1]} and {fake.shape[1]}.")
    if min(len(real), len(fake)) < least:
        raise ValueError(f"{function} needs at least {least} features a set; got {len(real)} and {len(fake)}.")
    return real, fake


def _root(covariance: np.ndarray) -> np.ndarray:
    """Returns L `[D, rank]` with L L^T = C; what is zero but for rounding is left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _sum_of_kernel(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the sum of k over all pairs, by blocks of rows."""
    size, total = first.shape[1], 0.0
    for start in range(0, len(first), _BLOCK_ROWS):
        total += float(((first[start : start + _BLOCK_ROWS] @ second.T / size + 1) ** 3).sum())
    return total


def _mean_of_others(rows: np.ndarray) -> float:
    """Returns the mean of k over pairs of different rows."""
    itself = ((np.einsum("nd,nd->n", rows, rows) / rows.shape[1] + 1) ** 3).sum()
    return (_sum_of_kernel(rows, rows) - float(itself)) / (len(rows) * (len(rows) - 1))


def _distances(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields squared distances by blocks: the first row's number, and `[block, len(columns)]`.

    Centred first, since |x|^2 + |y|^2 - 2 x.y cancels where the points lie far from the origin; equal points have
    distance 0 exactly only up to rounding, so a rounding below 0 becomes 0.
    """
    centre = columns.mean(axis=0)
    rows, columns = rows - centre, columns - centre
    row_norms, column_norms = (np.einsum("nd,nd->n", points, points) for points in (rows, columns))
    for start in range(0, len(rows), _BLOCK_ROWS):
        stop = start + _BLOCK_ROWS
        squares = row_norms[start:stop, None] + column_norms - 2 * rows[start:stop] @ columns.T
        yield start, np.maximum(squares, 0)


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the squared distance of each point to its k-th nearest other one."""
    radii = np.empty(len(points))
    for start, distances in _distances(points, points):
        stop = start + len(distances)
        distances[np.arange(len(distances)), np.arange(start, stop)] = -1  # itself, before all others
        radii[start:stop] = np.partition(distances, neighbours, axis=1)[:, neighbours]
    return radii
