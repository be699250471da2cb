"""Distances between two sets of features: on the host, in float64, arrays in and Python numbers out.

jax supports float64 only if the whole program enables it, so these functions run in numpy, outside jit. An evaluation
protocol defines the features, their number and the name of the score.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

AnyArray: TypeAlias = np.ndarray | Array
Float64Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK = 2**22  # values in a block of pairs: 32 MiB; a few blocks are held at once
_EPSILON = float(np.finfo(np.float64).eps)
_TIE = 16  # in units of `_EPSILON`: exact squared distances this close count as equal
_SMALLEST, _LARGEST = 1e-150, 1e150


class Moments(NamedTuple):
    """The statistics of a set of features that the Fréchet distance needs."""

    count: int
    """Number of features: N."""
    mean: Float64Array
    """`[D]`."""
    scatter: Float64Array
    """`[D, D]`: the sum, not the mean, of the outer products of the deviations from `mean`."""

    @property
    def covariance(self) -> Float64Array:
        """The unbiased covariance `[D, D]`: `scatter / (N - 1)`, as in `numpy.cov`."""
        if self.count < 2:
            raise ValueError(f"Moments.covariance needs two features or more; got {self.count}.")
        return self.scatter / (self.count - 1)


def _float64(function: str, name: str, array: AnyArray, axes: str) -> Float64Array:
    """Returns the array in float64 on the host.

    Raises ValueError for other axes, integers, empty arrays and non-finite values.
    """
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
    """Returns both sets in float64. Raises ValueError if they differ in D."""
    real, fake = _float64(function, "real", real, "[N, D]"), _float64(function, "fake", fake, "[M, D]")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{function} needs real [N, D] and fake [M, D] of one embedding; got {real.shape} and {fake.shape}."
        )
    return real, fake


def _check_range(function: str, needs: str, given: Sequence[AnyArray], results: Sequence[AnyArray | float]) -> None:
    """Raises ValueError if a result is not finite, because the arguments were too large."""
    if not all(np.isfinite(result).all() for result in results):
        largest = max(float(np.abs(array).max()) for array in given)
        raise ValueError(f"{function} needs {needs}, since larger values overflow float64; got up to {largest:.3g}.")


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yields consecutive slices of the rows of a `[rows, columns]` matrix that is too large to hold in memory."""
    step = max(1, _BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def moments_of(features: AnyArray) -> Moments:
    """Returns the count, the mean and the scatter matrix of features.

        m = sum_i x_i / N,    S = sum_i (x_i - m) (x_i - m)^T

    Args:
        features: `[N, D]`, floating, finite, N at least 1.

    Returns:
        The moments in float64. The scatter matrix is exactly symmetric.

    Raises:
        ValueError: when `features` has other axes, is not floating, is empty, or has values that are not finite. Also
            when squares overflow, for values above about 1e150.

    Examples:
        >>> import numpy as np
        >>> moments = moments_of(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]))
        >>> moments.count, moments.mean.tolist(), moments.covariance.tolist()
        (3, [2.0, 2.0], [[4.0, 3.0], [3.0, 3.0]])
    """
    host = _float64("moments_of", "features", features, "[N, D]")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = host.mean(axis=0)
        deviations = host - mean
        scatter = deviations.T @ deviations
    _check_range("moments_of", "features of magnitudes up to 1e150", [host], [mean, scatter])
    return Moments(len(host), mean, scatter)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Returns the moments of the union of two sets.

        N = N_1 + N_2,    m = (N_1 m_1 + N_2 m_2) / N,    S = S_1 + S_2 + (N_1 N_2 / N) (m_1 - m_2) (m_1 - m_2)^T

    No square of a mean is subtracted, so features far from zero lose no precision. Up to rounding,
    `functools.reduce(merge_moments, map(moments_of, batches))` does not depend on the batch size.

    Args:
        first: the moments of one set.
        second: the moments of the other set, with the same D.

    Returns:
        The moments of both sets together. Swapping the arguments does not change the result.

    Raises:
        ValueError: when the two differ in D, or the result overflows.

    Source: Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.

    Examples:
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
    with np.errstate(over="ignore", invalid="ignore"):
        difference = first.mean - second.mean
        between = (first.count * second.count / count) * np.outer(difference, difference)
        scatter = first.scatter + second.scatter + between
    _check_range("merge_moments", "features of magnitudes up to 1e150", [first.mean, second.mean], [scatter])
    return Moments(count, mean, scatter)


def _root(name: str, covariance: Float64Array) -> Float64Array:
    """Returns L `[D, R]` such that L L^T is the covariance; R is its rank."""
    with np.errstate(over="ignore"):
        asymmetry, scale = np.abs(covariance - covariance.T).max(), np.abs(covariance).max()
    if asymmetry > 1e-5 * scale:
        raise ValueError(
            f"frechet_distance needs a symmetric {name}; got asymmetries up to {asymmetry:.3g} for values up to "
            f"{scale:.3g}. Is it a factor of the covariance, or raw features?"
        )
    values, vectors = np.linalg.eigh(covariance / 2 + covariance.T / 2)
    largest = np.abs(values).max()
    if values[0] < -1e-4 * largest:
        raise ValueError(
            f"frechet_distance needs a {name} without negative eigenvalues; got {values[0]:.3g} beside {largest:.3g}. "
            f"Was it accumulated in float32?"
        )
    # Smaller eigenvalues are rounding errors, as in `numpy.linalg.matrix_rank`. Their roots would not be small.
    kept = values > len(values) * np.finfo(np.float64).eps * largest
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(
    mean1: AnyArray,
    covariance1: AnyArray,
    mean2: AnyArray,
    covariance2: AnyArray,
) -> float:
    """Returns the squared Fréchet (Wasserstein-2) distance of two Gaussians. For Inception features this is the FID.

        d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

    The FID is the *squared* distance. With C_i = L_i L_i^T, the trace of the root is the sum of the singular values of
    L_1^T L_2. So no value is complex, and no epsilon is added to the diagonal. Singular covariances, as from fewer
    features than dimensions, lose no accuracy. Runs in float64.

    Args:
        mean1: `[D]`, floating, finite.
        covariance1: `[D, D]`, symmetric, without negative eigenvalues. Eigenvalues below `D * 2.2e-16` of the largest
            count as zero.
        mean2: as `mean1`.
        covariance2: as `covariance1`.

    Returns:
        At least 0: a negative value from rounding becomes 0. Up to rounding, it is 0 for equal Gaussians and does not
        change when the two are swapped.

    Raises:
        ValueError: when shapes do not fit, a value is not finite, or a covariance is not symmetric or has a negative
            eigenvalue. Also when the result overflows, for means above about 1e150 or covariances above about 1e300.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), equation 6;
    toshas/torch-fidelity:torch_fidelity/metric_fid.py, which takes the eigenvalues of C_1 C_2.

    Examples:
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
    roots = _root("covariance1", covariance1), _root("covariance2", covariance2)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = mean1 - mean2
        overlap = roots[0].T @ roots[1]
        own = difference @ difference + np.trace(covariance1) + np.trace(covariance2)
    given = mean1, mean2, covariance1, covariance2
    _check_range("frechet_distance", "means up to 1e150 and covariances up to 1e300", given, [own, overlap])
    squared = own - 2.0 * np.linalg.svd(overlap, compute_uv=False).sum()
    return max(0.0, float(squared))


def _cubic_kernel(products: Float64Array, dimensions: int) -> Float64Array:
    """Returns k(x, y) from x^T y. In numpy, `** 3` takes far longer than two products."""
    base = products / dimensions + 1.0
    return base * base * base


def _kernel_sum(left: Float64Array, right: Float64Array) -> float:
    """Returns the sum of k(x, y) over all x of `left` and y of `right`."""
    blocks = (_cubic_kernel(left[rows] @ right.T, left.shape[1]) for rows in _row_blocks(len(left), len(right)))
    return sum(float(block.sum()) for block in blocks)


def _kernel_sum_of_others(features: Float64Array) -> float:
    """Returns the sum of k(x_i, x_j) over all i != j."""
    diagonal = _cubic_kernel(np.square(features).sum(axis=1), features.shape[1])
    return _kernel_sum(features, features) - float(diagonal.sum())


def kernel_distance(real: AnyArray, fake: AnyArray) -> float:
    """Returns the KID: the unbiased estimate of the squared maximum mean discrepancy with a cubic kernel.

        k(x, y) = (x^T y / D + 1)^3
        MMD^2 = sum_{i != j} k(x_i, x_j) / (N (N - 1)) + sum_{i != j} k(y_i, y_j) / (M (M - 1))
                - 2 sum_{i, j} k(x_i, y_j) / (N M)

    The estimate uses all features at once. Other implementations average over random subsets, which estimates the same
    value. Unlike the other distances, the KID changes when both sets are shifted. Runs in float64 and holds no N by M
    matrix.

    Args:
        real: `[N, D]`, floating, finite, N at least 2.
        fake: `[M, D]`, floating, finite, M at least 2; M may differ from N.

    Returns:
        A value around 0 for two samples of one distribution. It may be negative; clipping at 0 would bias the estimate.
        Swapping the arguments changes it only by rounding.

    Raises:
        ValueError: when shapes do not fit, a value is not finite, or a set has fewer than two features. Also when the
            result overflows, which can happen for features beyond 1e49.

    Source: Gretton et al. 2012, equation 3; Bińkowski et al. 2018 (arXiv:1801.01401), section 4;
    toshas/torch-fidelity:torch_fidelity/metric_kid.py.

    Examples:
        >>> import numpy as np
        >>> kernel_distance(np.array([[1.0], [1.0]]), np.array([[0.0], [0.0], [0.0]]))
        7.0
    """
    real, fake = _float64_pair("kernel_distance", real, fake)
    N, M = len(real), len(fake)
    if min(N, M) < 2:
        raise ValueError(f"kernel_distance needs at least two features per set; got {N} real and {M} fake.")
    with np.errstate(over="ignore", invalid="ignore"):
        within_real = _kernel_sum_of_others(real) / (N * (N - 1))
        within_fake = _kernel_sum_of_others(fake) / (M * (M - 1))
        across = _kernel_sum(real, fake) / (N * M)
        distance = within_real + within_fake - 2.0 * across
    _check_range("kernel_distance", "features of magnitudes up to 1e49", [real, fake], [distance])
    return distance


def _exp_mean_divergence(logits: Float64Array) -> float:
    """Returns exp of the mean KL divergence of each row's class distribution from their average."""
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    log_q = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))  # p is 0 where q is 0: any finite log q works
    return float(np.exp((p * (log_p - log_q)).sum(axis=1).mean()))


def inception_score(logits: AnyArray, splits: int = 10) -> tuple[float, float]:
    """Returns the mean and the standard deviation of the Inception score over consecutive splits.

        p_i = softmax(logits_i),    q = mean_i p_i,    IS = exp(mean_i sum_k p_ik (log p_ik - log q_k))

    Split s holds the rows from floor(s N / splits) to floor((s + 1) N / splits), in the order given. Rows are not
    shuffled; rows sorted by class give too low a score. The command line of torch-fidelity first permutes the rows by
    `numpy.random.RandomState(2020).permutation(N)`; the caller may do the same. Small splits score lower than large
    ones, so compare scores only at the same N and `splits`. Runs in float64.

    Args:
        logits: `[N, K]`, floating, finite.
        splits: number of splits, from 1 to N.

    Returns:
        The mean, from 1 to K, and the standard deviation (divided by the number of splits; 0 for one split).

    Raises:
        ValueError: when `logits` has other axes, is not floating or not finite, or `splits` is out of range. Also when
            the logits of a row differ by more than the float64 maximum, 1.8e308.

    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4; toshas/torch-fidelity:torch_fidelity/metric_isc.py.

    Examples:
        >>> import numpy as np
        >>> inception_score(np.zeros((6, 3)), splits=2)
        (1.0, 0.0)
    """
    host = _float64("inception_score", "logits", logits, "[N, K]")
    with np.errstate(over="ignore"):
        spread = np.ptp(host, axis=1)
    _check_range("inception_score", "logits of magnitudes up to 8e307", [host], [spread])
    N = len(host)
    if not 1 <= splits <= N:
        raise ValueError(f"inception_score needs splits from 1 to the {N} rows of logits; got {splits}.")
    edges = [s * N // splits for s in range(splits + 1)]
    scores = [_exp_mean_divergence(host[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


class _Points(NamedTuple):
    """Features, and for each feature the index of its first duplicate: duplicates share their distances."""

    features: Float64Array
    """`[N, D]`."""
    originals: np.ndarray
    """`[N]`, integers."""


def _points(function: str, name: str, features: Float64Array) -> _Points:
    """Returns the features with their duplicates. Raises ValueError if squares of values overflow or underflow."""
    largest = np.abs(features).max()
    if largest and not _SMALLEST <= largest <= _LARGEST:
        raise ValueError(
            f"{function} needs {name} whose largest magnitude is 0 or from {_SMALLEST:g} to {_LARGEST:g}, since "
            f"squared distances leave the range of float64 beyond; got {largest:.3g}."
        )
    first: dict[bytes, int] = {}
    return _Points(features, np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(features)]))


def _squared_distances(left: Float64Array, right: Float64Array) -> Iterator[tuple[slice, Float64Array, Float64Array]]:
    """Yields blocks of rows of `left`, their squared distances to all of `right`, and the error bound of each distance.

    The squared distance |x|^2 + |y|^2 - 2 x y uses a matrix product. The mean of `right` is the origin, which keeps the
    rounding error small. Where the error bound leaves a comparison open, the callers use `_exact_squares`.
    """
    origin = right.mean(axis=0)
    right = right - origin
    right_squares = np.square(right).sum(axis=1)
    # The errors of the product, the sums and the shift of the origin, plus the width of a tie.
    error = (2 * left.shape[1] + 4 + 2 * _TIE) * _EPSILON
    for rows in _row_blocks(len(left), len(right)):
        block = left[rows] - origin
        scale = np.square(block).sum(axis=1)[:, np.newaxis] + right_squares
        yield rows, scale - 2.0 * (block @ right.T), error * scale


def _exact_squares(left: _Points, right: _Points, i: np.ndarray, j: np.ndarray) -> Float64Array:
    """Returns the squared distances of the pairs `left[i]` and `right[j]`, `[P]`, from their differences.

    They are exact where the differences and their squares are exact, as for integers and duplicates. Duplicate pairs
    are computed once.
    """
    pairs = left.originals[i] * len(right.features) + right.originals[j]
    pairs, places = np.unique(pairs, return_inverse=True)
    squares = np.empty(len(pairs))
    for rows in _row_blocks(len(pairs), left.features.shape[1]):
        i, j = np.divmod(pairs[rows], len(right.features))
        squares[rows] = np.square(left.features[i] - right.features[j]).sum(axis=1)
    return squares[places]


def _squared_radii(points: _Points, neighbours: int) -> Float64Array:
    """Returns the squared distance `[N]` of each feature to its k-th nearest other feature, from differences."""
    radii = np.empty(len(points.features))
    for rows, squared, error in _squared_distances(points.features, points.features):
        # A feature is not its own neighbour.
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        # The radius is at most this. A feature that is certainly farther away is not among the k nearest.
        highest = squared + error
        highest.partition(neighbours - 1, axis=1)
        squared -= error
        row, column = np.nonzero(squared <= highest[:, neighbours - 1, np.newaxis])
        exact = _exact_squares(points, points, row + rows.start, column)
        ascending = exact[np.lexsort((exact, row))]
        radii[rows] = ascending[np.searchsorted(row, np.arange(len(squared))) + neighbours - 1]
    return radii


def _inside(
    points: tuple[_Points, _Points],
    rows: slice,
    block: Sequence[Float64Array],
    radii: Float64Array,
    *,
    with_ties: bool,
) -> np.ndarray:
    """Returns which pairs of a block are closer than the radius, bool.

    Args:
        points: the left and the right set.
        rows: the rows of the left set in the block.
        block: the squared distances and their error bounds.
        radii: squared radii, computed from differences; `[rows, 1]` or `[1, columns]`.
        with_ties: whether a distance equal to the radius counts as inside. Distances within a few float64 roundings
            count as equal.
    """
    squared, error = block
    inside = squared < radii
    row, column = np.nonzero(np.abs(squared - radii) <= error)
    exact = _exact_squares(*points, row + rows.start, column)
    limits = np.broadcast_to(radii, squared.shape)[row, column]
    tie = _TIE * _EPSILON
    inside[row, column] = exact <= limits * (1 + tie) if with_ties else exact < limits * (1 - tie)
    return inside


def _check_neighbours(function: str, neighbours: int, features: int) -> None:
    """Raises ValueError unless `neighbours` is at least 1 and less than `features`, the size of a set."""
    if not 1 <= neighbours < features:
        raise ValueError(
            f"{function} needs neighbours of at least 1 and more features than that in a set; "
            f"got {neighbours} and a set of {features}."
        )


def precision_recall(real: AnyArray, fake: AnyArray, neighbours: int) -> tuple[float, float]:
    """Returns the fraction of generated features near a real one, and of real features near a generated one.

        precision = mean_j [some i has |x_i - y_j| <= r_i],    recall = mean_i [some j has |x_i - y_j| <= s_j]

    x are real and y are generated features. r_i is the distance of x_i to its k-th nearest *other* x, and s_j that of
    y_j to its k-th nearest *other* y. A point at the radius counts as inside. Distances that may be equal are
    recomputed from the differences of the features. They count as equal up to a few float64 roundings. So ties between
    duplicates, or between features on a lattice, follow the definition. Runs in float64 and holds no N by M matrix.

    Args:
        real: `[N, D]`, floating, finite.
        fake: `[M, D]`, floating, finite; M may differ from N.
        neighbours: k, at least 1 and less than N and M; 3 in the paper.

    Returns:
        Precision and recall, from 0 to 1. Both are 1 for equal sets. Swapping the sets swaps the two.

    Raises:
        ValueError: when shapes do not fit, a value is not finite, or `neighbours` is out of range. Also when the
            largest magnitude of a set is neither 0 nor from 1e-150 to 1e150.

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2;
    toshas/torch-fidelity:torch_fidelity/metric_prc.py.

    Examples:
        >>> import numpy as np
        >>> precision_recall(np.array([[0.0], [1.0], [2.0]]), np.array([[2.5], [9.0]]), neighbours=1)
        (0.5, 1.0)
    """
    real, fake = _float64_pair("precision_recall", real, fake)
    _check_neighbours("precision_recall", neighbours, min(len(real), len(fake)))
    points = _points("precision_recall", "real", real), _points("precision_recall", "fake", fake)
    real_radii, fake_radii = (_squared_radii(one, neighbours) for one in points)
    precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows, *block in _squared_distances(real, fake):
        precise |= _inside(points, rows, block, real_radii[rows, np.newaxis], with_ties=True).any(axis=0)
        recalled[rows] = _inside(points, rows, block, fake_radii[np.newaxis], with_ties=True).any(axis=1)
    return float(precise.mean()), float(recalled.mean())


def density_coverage(real: AnyArray, fake: AnyArray, neighbours: int) -> tuple[float, float]:
    """Returns the density of generated features around real ones, and the fraction of real ones near a generated one.

        density = sum_ij [|x_i - y_j| < r_i] / (k M),    coverage = mean_i [some j has |x_i - y_j| < r_i]

    r_i is the distance of the real x_i to its k-th nearest *other* real one. Unlike in `precision_recall`, a point at
    the radius counts as outside, as in the authors' code. So a real feature with k or more duplicates is never covered.
    Equal distances are detected as in `precision_recall`. Runs in float64 and holds no N by M matrix.

    Args:
        real: `[N, D]`, floating, finite.
        fake: `[M, D]`, floating, finite; M may differ from N.
        neighbours: k, at least 1 and less than N; 5 in the paper.

    Returns:
        The density, from 0 to N / k, and the coverage, from 0 to 1. Both are 1 for a set compared with itself if no two
        of its distances are equal.

    Raises:
        ValueError: when shapes do not fit, a value is not finite, or `neighbours` is out of range. Also when the
            largest magnitude of a set is neither 0 nor from 1e-150 to 1e150.

    Source: Naeem et al. 2020 (arXiv:2002.09797);
    clovaai/generative-evaluation-prdc:prdc/prdc.py.

    Examples:
        >>> import numpy as np
        >>> density_coverage(np.array([[0.0], [1.0], [4.0], [9.0]]), np.array([[0.5], [0.75]]), neighbours=1)
        (2.0, 0.5)
    """
    real, fake = _float64_pair("density_coverage", real, fake)
    _check_neighbours("density_coverage", neighbours, len(real))
    points = _points("density_coverage", "real", real), _points("density_coverage", "fake", fake)
    radii = _squared_radii(points[0], neighbours)
    inside, covered = 0, np.zeros(len(real), bool)
    for rows, *block in _squared_distances(real, fake):
        near = _inside(points, rows, block, radii[rows, np.newaxis], with_ties=False)
        inside += int(np.count_nonzero(near))
        covered[rows] = near.any(axis=1)
    return inside / (neighbours * len(fake)), float(covered.mean())
