"""Distances between two sets of features: on the host, in float64, arrays in and plain numbers out.

jax has no float64 unless the whole program asks for it, so these run in numpy, outside jit. What a feature is, how many
there are and what a score is called is the protocol's business, not theirs.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

AnyArray: TypeAlias = np.ndarray | Array
Float64Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK = 2**22  # values of a block of pairs, 32 MiB; what is held at once is a few of these


class Moments(NamedTuple):
    """What a Fréchet distance needs to know of a set of features."""

    count: int
    """How many features there are: N."""
    mean: Float64Array
    """`[D]`."""
    scatter: Float64Array
    """`[D, D]`: the sum, not the mean, of the outer products of the deviations from `mean`."""

    @property
    def covariance(self) -> Float64Array:
        """The unbiased covariance `[D, D]`: `scatter / (N - 1)`, as `numpy.cov` has it."""
        if self.count < 2:
            raise ValueError(f"Moments.covariance needs two features or more; got {self.count}.")
        return self.scatter / (self.count - 1)


def _float64(function: str, name: str, array: AnyArray, axes: str) -> Float64Array:
    """Returns the array in float64 on the host, once it has these axes, is floating, not empty and finite."""
    host = np.asarray(array)
    if host.ndim != axes.count(",") + 1 or host.size == 0 or not jnp.issubdtype(host.dtype, jnp.floating):
        raise ValueError(f"{function} needs {name} {axes}, floating and not empty; got {host.shape} {host.dtype}.")
    host = host.astype(np.float64, copy=False)
    finite = np.isfinite(host)
    if not finite.all():
        place = np.argwhere(~finite)[0].tolist()
        raise ValueError(
            f"{function} needs finite {name}; {host.size - np.count_nonzero(finite)} of {host.size} values are not, "
            f"the first at {place}: usually a network that has diverged."
        )
    return host


def _float64_pair(function: str, real: AnyArray, fake: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Returns both sets in float64, once they share D."""
    real, fake = _float64(function, "real", real, "[N, D]"), _float64(function, "fake", fake, "[M, D]")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{function} needs real [N, D] and fake [M, D] of one embedding; got {real.shape} and {fake.shape}."
        )
    return real, fake


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yields consecutive slices of the rows of a `[rows, columns]` matrix that is too large to be held."""
    step = max(1, _BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def moments_of(features: AnyArray) -> Moments:
    """Returns the count, the mean and the scatter of features.

        m = sum_i x_i / N,    S = sum_i (x_i - m) (x_i - m)^T

    Args:
        features: `[N, D]`, floating, finite, N at least 1.

    Returns:
        The moments, in float64; the scatter is symmetric to the last bit.

    Raises:
        ValueError: when `features` have other axes, are not floating, are empty or not finite.

    >>> import numpy as np
    >>> moments = moments_of(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]))
    >>> moments.count, moments.mean.tolist(), moments.covariance.tolist()
    (3, [2.0, 2.0], [[4.0, 3.0], [3.0, 3.0]])
    """
    host = _float64("moments_of", "features", features, "[N, D]")
    mean = host.mean(axis=0)
    deviations = host - mean
    return Moments(len(host), mean, deviations.T @ deviations)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Returns the moments of the union of two sets, as if their features had been counted at once.

        N = N_1 + N_2,    m = (N_1 m_1 + N_2 m_2) / N,    S = S_1 + S_2 + (N_1 N_2 / N) (m_1 - m_2) (m_1 - m_2)^T

    No square of a mean is ever subtracted, so features far from zero lose nothing:
    `functools.reduce(merge_moments, map(moments_of, batches))` does not depend on the size of the batches beyond
    rounding.

    Args:
        first: the moments of one set.
        second: the moments of the other, with the same D.

    Returns:
        The moments of both; exchanging the arguments changes no bit.

    Raises:
        ValueError: when D differs.

    Source: Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.

    >>> import numpy as np
    >>> merged = merge_moments(moments_of(np.array([[0.0], [2.0]])), moments_of(np.array([[4.0]])))
    >>> merged.count, merged.mean.tolist(), merged.scatter.tolist()
    (3, [2.0], [[8.0]])
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"merge_moments needs moments of one embedding; got D = {first.mean.size} and {second.mean.size}."
        )
    count = first.count + second.count
    mean = (first.count * first.mean + second.count * second.mean) / count
    apart = first.mean - second.mean
    between = (first.count * second.count / count) * np.outer(apart, apart)
    return Moments(count, mean, first.scatter + second.scatter + between)


def _root(name: str, covariance: Float64Array) -> Float64Array:
    """Returns L `[D, R]`, R the rank, with L L^T the covariance."""
    asymmetry, scale = np.abs(covariance - covariance.T).max(), np.abs(covariance).max()
    if asymmetry > 1e-5 * scale:
        raise ValueError(
            f"frechet_distance needs a symmetric {name}; got differences of {asymmetry:.3g} beside values of "
            f"{scale:.3g}: a factor of it or raw features, perhaps."
        )
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    largest = np.abs(values).max()
    if values[0] < -1e-4 * largest:
        raise ValueError(
            f"frechet_distance needs a {name} without negative eigenvalues; got {values[0]:.3g} beside {largest:.3g}, "
            f"as one that was summed up in float32 may have."
        )
    # What is below is rounding, as in `numpy.linalg.matrix_rank`; its root would not be small.
    kept = values > len(values) * np.finfo(np.float64).eps * largest
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(
    mean1: AnyArray,
    covariance1: AnyArray,
    mean2: AnyArray,
    covariance2: AnyArray,
) -> float:
    """Returns the squared Fréchet (Wasserstein-2) distance of two Gaussians; of Inception features it is the FID.

        d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

    It is the *squared* distance that is called FID. With C_i = L_i L_i^T the trace of the root is the sum of the
    singular values of L_1^T L_2. So nothing is complex, nothing is added to the diagonal, and a singular covariance,
    as fewer features than dimensions give, is as exact as any other. Runs in float64.

    Args:
        mean1: `[D]`, floating, finite.
        covariance1: `[D, D]`, symmetric, without negative eigenvalues; those below `D * 2.2e-16` of the largest count
            as zero.
        mean2: as `mean1`.
        covariance2: as `covariance1`.

    Returns:
        At least 0: the little below that rounding may give is cut. 0 for equal Gaussians, and the same when the two
        are exchanged, up to rounding.

    Raises:
        ValueError: when shapes do not fit, a value is not finite or a covariance is none.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), equation 6;
    toshas/torch-fidelity:torch_fidelity/metric_fid.py, which takes the eigenvalues of C_1 C_2.

    >>> import numpy as np
    >>> frechet_distance(np.array([0.0, 0.0]), np.eye(2), np.array([3.0, 4.0]), np.eye(2))
    25.0
    """
    mean1 = _float64("frechet_distance", "mean1", mean1, "[D]")
    mean2 = _float64("frechet_distance", "mean2", mean2, "[D]")
    covariance1 = _float64("frechet_distance", "covariance1", covariance1, "[D, D]")
    covariance2 = _float64("frechet_distance", "covariance2", covariance2, "[D, D]")
    if not mean1.shape * 2 == mean2.shape * 2 == covariance1.shape == covariance2.shape:
        raise ValueError(
            f"frechet_distance needs means [D] and covariances [D, D]; got {mean1.shape} and {covariance1.shape}, "
            f"then {mean2.shape} and {covariance2.shape}."
        )
    apart = mean1 - mean2
    overlap = _root("covariance1", covariance1).T @ _root("covariance2", covariance2)
    trace_of_root = np.linalg.svd(overlap, compute_uv=False).sum()
    return max(0.0, float(apart @ apart + np.trace(covariance1) + np.trace(covariance2) - 2.0 * trace_of_root))


def _cubic_kernel(products: Float64Array, dimensions: int) -> Float64Array:
    """Returns k(x, y) from x^T y; numpy takes far longer for `** 3`."""
    base = products / dimensions + 1.0
    return base * base * base


def _kernel_sum(left: Float64Array, right: Float64Array) -> float:
    """Returns the sum of k(x, y) over all x of `left` and y of `right`."""
    blocks = (_cubic_kernel(left[rows] @ right.T, left.shape[1]) for rows in _row_blocks(len(left), len(right)))
    return sum(float(block.sum()) for block in blocks)


def _kernel_sum_of_others(features: Float64Array) -> float:
    """Returns the sum of k(x_i, x_j) over all i and j that differ."""
    diagonal = _cubic_kernel(np.square(features).sum(axis=1), features.shape[1])
    return _kernel_sum(features, features) - float(diagonal.sum())


def kernel_distance(real: AnyArray, fake: AnyArray) -> float:
    """Returns the unbiased estimate of the squared maximum mean discrepancy with a cubic kernel: the KID.

        k(x, y) = (x^T y / D + 1)^3
        MMD^2 = sum_{i != j} k(x_i, x_j) / (N (N - 1)) + sum_{i != j} k(y_i, y_j) / (M (M - 1))
                - 2 sum_{i, j} k(x_i, y_j) / (N M)

    All features are used at once: no subsets are drawn, whose mean would estimate the same. Unlike the other
    distances it changes when both sets are shifted. Runs in float64 and holds no N by M matrix.

    Args:
        real: `[N, D]`, floating, finite, N at least 2.
        fake: `[M, D]`, the same; M need not be N.

    Returns:
        Around 0 for two samples of one distribution, and then as often below as above; not cut at 0, which would bias
        it. Exchanging the arguments changes nothing beyond rounding.

    Raises:
        ValueError: when shapes do not fit, a value is not finite or a set has fewer than two features.

    Source: Gretton et al. 2012, equation 3; Bińkowski et al. 2018 (arXiv:1801.01401), section 4;
    toshas/torch-fidelity:torch_fidelity/metric_kid.py.

    >>> import numpy as np
    >>> kernel_distance(np.array([[1.0], [1.0]]), np.array([[0.0], [0.0], [0.0]]))
    7.0
    """
    real, fake = _float64_pair("kernel_distance", real, fake)
    N, M = len(real), len(fake)
    if min(N, M) < 2:
        raise ValueError(f"kernel_distance needs two features or more a set; got {N} real and {M} fake.")
    within_real = _kernel_sum_of_others(real) / (N * (N - 1))
    within_fake = _kernel_sum_of_others(fake) / (M * (M - 1))
    across = _kernel_sum(real, fake) / (N * M)
    return within_real + within_fake - 2.0 * across


def _exp_mean_divergence(logits: Float64Array) -> float:
    """Returns the exponential of the mean Kullback-Leibler divergence of the rows' classes from their average."""
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    log_q = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))  # a class that no row has counts nothing
    return float(np.exp((p * (log_p - log_q)).sum(axis=1).mean()))


def inception_score(logits: AnyArray, splits: int = 10) -> tuple[float, float]:
    """Returns the mean and the standard deviation of the Inception score over consecutive splits.

        p_i = softmax(logits_i),    q = mean_i p_i,    IS = exp(mean_i sum_k p_ik (log p_ik - log q_k))

    Split s holds the rows from floor(s N / splits) up to floor((s + 1) N / splits), in the order given. Nothing is
    shuffled: rows sorted by class score too low, and torch-fidelity as a command first takes the rows in the order
    `numpy.random.RandomState(2020).permutation(N)`, which the caller may do as well. A small split scores lower than
    a large one, so scores compare only at the same N and `splits`. Runs in float64.

    Args:
        logits: `[N, K]`, floating, finite.
        splits: from 1 to N.

    Returns:
        The mean, from 1 to K, and the standard deviation without correction for the number of splits: 0 for one.

    Raises:
        ValueError: when `logits` have other axes, are not floating or not finite, or a split would be empty.

    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4; toshas/torch-fidelity:torch_fidelity/metric_isc.py.

    >>> import numpy as np
    >>> inception_score(np.zeros((6, 3)), splits=2)
    (1.0, 0.0)
    """
    host = _float64("inception_score", "logits", logits, "[N, K]")
    N = len(host)
    if not 1 <= splits <= N:
        raise ValueError(f"inception_score needs splits from 1 to the {N} rows of logits; got {splits}.")
    edges = [s * N // splits for s in range(splits + 1)]
    scores = [_exp_mean_divergence(host[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _squared_distances(left: Float64Array, right: Float64Array) -> Iterator[tuple[slice, Float64Array, Float64Array]]:
    """Yields some rows of `left`, their squared distances to all of `right`, and what rounding may have done to each.

    As |x|^2 + |y|^2 - 2 x y, a matrix product, with the mean of `right` as the origin, since that cancels least.
    """
    origin = right.mean(axis=0)
    right = right - origin
    right_squares = np.square(right).sum(axis=1)
    rounding = left.shape[1] * np.finfo(np.float64).eps
    for rows in _row_blocks(len(left), len(right)):
        block = left[rows] - origin
        scale = np.square(block).sum(axis=1)[:, np.newaxis] + right_squares
        yield rows, scale - 2.0 * (block @ right.T), rounding * scale


def _squared_radii(features: Float64Array, neighbours: int) -> Float64Array:
    """Returns the squared distance `[N]` of each feature to its k-th nearest other one."""
    radii = np.empty(len(features))
    for rows, squared, _ in _squared_distances(features, features):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf  # none is its own neighbour
        radii[rows] = np.partition(squared, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii


def _check_neighbours(function: str, neighbours: int, features: int) -> None:
    """Raises unless each of so many features has so many others."""
    if not 1 <= neighbours < features:
        raise ValueError(
            f"{function} needs neighbours of at least 1 and sets of more features than that; "
            f"got {neighbours} and a set of {features}."
        )


def precision_recall(real: AnyArray, fake: AnyArray, neighbours: int) -> tuple[float, float]:
    """Returns the share of generated features near a real one, and of real features near a generated one.

        precision = mean_j [some i has |x_i - y_j| <= r_i],    recall = mean_i [some j has |x_i - y_j| <= s_j]

    x are real and y generated features; r_i is the distance of x_i to its k-th nearest *other* x, s_j that of y_j to
    its k-th nearest other y. A point at the radius counts as inside, and so does one that float64 cannot tell from
    it. Runs in float64 and holds no N by M matrix.

    Args:
        real: `[N, D]`, floating, finite.
        fake: `[M, D]`, the same; M need not be N.
        neighbours: k, at least 1 and less than N and M; 3 in the paper.

    Returns:
        Precision and recall, from 0 to 1, both 1 for equal sets; exchanging the sets exchanges the two.

    Raises:
        ValueError: when shapes do not fit, a value is not finite or `neighbours` is out of range.

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2;
    toshas/torch-fidelity:torch_fidelity/metric_prc.py.

    >>> import numpy as np
    >>> precision_recall(np.array([[0.0], [1.0], [2.0]]), np.array([[2.5], [9.0]]), neighbours=1)
    (0.5, 1.0)
    """
    real, fake = _float64_pair("precision_recall", real, fake)
    _check_neighbours("precision_recall", neighbours, min(len(real), len(fake)))
    real_radii, fake_radii = _squared_radii(real, neighbours), _squared_radii(fake, neighbours)
    precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows, squared, rounding in _squared_distances(real, fake):
        least = squared - rounding
        precise |= (least <= real_radii[rows, np.newaxis]).any(axis=0)
        recalled[rows] = (least <= fake_radii).any(axis=1)
    return float(precise.mean()), float(recalled.mean())


def density_coverage(real: AnyArray, fake: AnyArray, neighbours: int) -> tuple[float, float]:
    """Returns how densely generated features lie among the real ones, and the share of real ones that have one near.

        density = sum_ij [|x_i - y_j| < r_i] / (k M),    coverage = mean_i [some j has |x_i - y_j| < r_i]

    r_i is the distance of the real x_i to its k-th nearest *other* real one. Unlike in `precision_recall` a point at
    the radius, or one that float64 cannot tell from it, counts as outside, as in the authors' code; so a real feature
    with k or more copies of itself is never covered. Runs in float64 and holds no N by M matrix.

    Args:
        real: `[N, D]`, floating, finite.
        fake: `[M, D]`, the same; M need not be N.
        neighbours: k, at least 1 and less than N; 5 in the paper.

    Returns:
        The density, from 0 up to N / k, and the coverage, from 0 to 1; both 1 for a set against itself when no two
        distances in it are equal.

    Raises:
        ValueError: when shapes do not fit, a value is not finite or `neighbours` is out of range.

    Source: Naeem et al. 2020 (arXiv:2002.09797);
    clovaai/generative-evaluation-prdc:prdc/prdc.py.

    >>> import numpy as np
    >>> density_coverage(np.array([[0.0], [1.0], [4.0], [9.0]]), np.array([[0.5], [0.75]]), neighbours=1)
    (2.0, 0.5)
    """
    real, fake = _float64_pair("density_coverage", real, fake)
    _check_neighbours("density_coverage", neighbours, len(real))
    radii = _squared_radii(real, neighbours)
    inside, covered = 0, np.zeros(len(real), bool)
    for rows, squared, rounding in _squared_distances(real, fake):
        near = squared + rounding < radii[rows, np.newaxis]
        inside += int(np.count_nonzero(near))
        covered[rows] = near.any(axis=1)
    return inside / (neighbours * len(fake)), float(covered.mean())
