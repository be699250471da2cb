import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from sagan_jax.functional import (
    Moments,
    density_coverage,
    distances,
    frechet_distance,
    inception_score,
    kernel_distance,
    merge_moments,
    moments_of,
    precision_recall,
)

D = 3


def two_sets(seed=0, real=23, fake=17, dimensions=D):
    """Returns overlapping real and fake features of different number, spread and place."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((real, dimensions)), 0.8 * rng.standard_normal((fake, dimensions)) + 0.3


def frechet_of(real, fake):
    first, second = moments_of(real), moments_of(fake)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


def random_covariance(rng, dimensions):
    root = rng.standard_normal((dimensions, dimensions + 2))
    return root @ root.T


def rotated_and_shifted(features):
    rotation = scipy.stats.ortho_group.rvs(features.shape[1], random_state=5)
    return features @ rotation + 100.0 * np.arange(1.0, features.shape[1] + 1)


# The same as the released evaluations


@pytest.fixture(scope="module")
def metrics(golden):
    with np.load(golden / "metrics.npz") as archive:
        return dict(archive)


def test_frechet_distance_is_torch_fidelitys(metrics):
    score = frechet_of(metrics["features_real"], metrics["features_fake"])
    np.testing.assert_allclose(score, metrics["frechet_inception_distance"], rtol=1e-10, atol=0)


def test_kernel_distance_is_torch_fidelitys(metrics):
    k = int(metrics["k"])
    score = kernel_distance(metrics["features_real"][:k], metrics["features_fake"][:k])
    np.testing.assert_allclose(score, metrics["kid_degree3_unbiased_first_k"], rtol=1e-10, atol=0)


@pytest.mark.parametrize(("splits", "suffix"), [(10, ""), (1, "_1split")])
def test_inception_score_is_torch_fidelitys(metrics, splits, suffix):
    expected = [metrics[f"inception_score_{name}{suffix}"] for name in ("mean", "std")]
    np.testing.assert_allclose(inception_score(metrics["logits_fake"], splits), expected, rtol=1e-10, atol=1e-14)


def test_precision_and_recall_are_torch_fidelitys(metrics):
    scores = precision_recall(metrics["features_real"], metrics["features_fake"], 3)
    # torch-fidelity takes the mean in float32.
    np.testing.assert_allclose(scores, [metrics["precision"], metrics["recall"]], rtol=1e-7, atol=0)


@pytest.mark.parametrize("neighbours", [3, 5])
def test_precision_recall_density_and_coverage_are_studiogans(metrics, neighbours):
    sets = metrics["features_real"], metrics["features_fake"]
    scores = precision_recall(*sets, neighbours) + density_coverage(*sets, neighbours)
    names = ("precision", "recall", "density", "coverage")
    np.testing.assert_allclose(scores, [metrics[f"{name}_k{neighbours}"] for name in names], rtol=1e-12, atol=0)


# Moments


def test_moments_are_the_mean_and_covariance_of_scalar_loops():
    features = two_sets()[0].tolist()
    N = len(features)
    mean = [math.fsum(row[a] for row in features) / N for a in range(D)]
    covariance = [
        [math.fsum((row[a] - mean[a]) * (row[b] - mean[b]) for row in features) / (N - 1) for b in range(D)]
        for a in range(D)
    ]
    moments = moments_of(np.array(features))
    assert moments.count == N
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-13, atol=0)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-13, atol=0)


@pytest.mark.parametrize("batch", [1, 5, 64, 499, 500])
def test_moments_of_a_stream_do_not_depend_on_the_batch_size(batch):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((500, 7)) + 50.0  # a raw sum of squares would lose three digits here
    stream = functools.reduce(merge_moments, (moments_of(features[i : i + batch]) for i in range(0, 500, batch)))
    assert stream.count == 500
    np.testing.assert_allclose(stream.mean, features.mean(axis=0), rtol=1e-12, atol=0)
    np.testing.assert_allclose(stream.covariance, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-12)


def test_merge_moments_far_from_zero_loses_nothing():
    features = np.random.default_rng(2).standard_normal((40, D))
    merged = merge_moments(moments_of(features[:11] + 2.0**20), moments_of(features[11:] + 2.0**20))
    np.testing.assert_allclose(merged.covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-8)


def test_merge_moments_is_symmetric_to_the_last_bit():
    first, second = map(moments_of, two_sets())
    for one, other in zip(merge_moments(first, second), merge_moments(second, first), strict=True):
        np.testing.assert_array_equal(one, other)


def test_covariance_is_symmetric_to_the_last_bit():
    covariance = merge_moments(*map(moments_of, two_sets(dimensions=29))).covariance
    np.testing.assert_array_equal(covariance, covariance.T)


# Fréchet distance


def test_frechet_distance_is_the_formula_with_scipys_matrix_root():
    rng = np.random.default_rng(3)
    mean1, mean2 = rng.standard_normal((2, 6))
    covariance1, covariance2 = random_covariance(rng, 6), random_covariance(rng, 6)
    root = scipy.linalg.sqrtm(covariance1 @ covariance2)
    expected = sum((mean1 - mean2) ** 2) + np.trace(covariance1 + covariance2 - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(mean1, covariance1, mean2, covariance2), expected, rtol=1e-11)


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift():
    covariance = random_covariance(np.random.default_rng(4), 4)
    score = frechet_distance(np.zeros(4), covariance, np.array([1.0, -2.0, 3.0, 0.5]), covariance)
    np.testing.assert_allclose(score, 14.25, rtol=1e-12)


def test_frechet_distance_of_scaled_isotropic_gaussians_is_the_squared_difference_of_their_deviations():
    score = frechet_distance(np.zeros(5), 1.5**2 * np.eye(5), np.zeros(5), 4.0**2 * np.eye(5))
    np.testing.assert_allclose(score, 5 * (1.5 - 4.0) ** 2, rtol=1e-12)


def test_frechet_distance_on_a_line_is_what_pencil_gives():
    assert frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[25.0]])) == 4.0 + 9.0


def test_frechet_distance_is_symmetric():
    real, fake = two_sets()
    np.testing.assert_allclose(frechet_of(real, fake), frechet_of(fake, real), rtol=1e-13)


@pytest.mark.parametrize("count", [4, 23, 300])
def test_frechet_distance_of_equal_sets_is_zero_and_not_below(count):
    features, _ = two_sets(real=count, dimensions=19)
    assert 0.0 <= frechet_of(features, features) < 1e-12


def test_frechet_distance_does_not_change_when_both_sets_turn_and_move():
    real, fake = two_sets()
    moved = frechet_of(rotated_and_shifted(real), rotated_and_shifted(fake))
    np.testing.assert_allclose(moved, frechet_of(real, fake), rtol=1e-10)


def test_frechet_distance_of_fewer_features_than_dimensions_is_the_closed_form():
    rng = np.random.default_rng(6)
    real, fake = rng.standard_normal((6, 40)), rng.standard_normal((9, 40)) + 0.5
    # With centred features X [N, D] and Y [M, D], tr((C_1 C_2)^(1/2)) is the nuclear norm of X Y^T, scaled.
    X, Y = real - real.mean(axis=0), fake - fake.mean(axis=0)
    root = scipy.linalg.svdvals(X @ Y.T).sum() / math.sqrt(5 * 8)
    difference = real.mean(axis=0) - fake.mean(axis=0)
    expected = difference @ difference + (X**2).sum() / 5 + (Y**2).sum() / 8 - 2 * root
    np.testing.assert_allclose(frechet_of(real, fake), expected, rtol=1e-13)


def test_frechet_distance_of_flat_gaussians_at_an_angle_is_what_pencil_gives():
    # Each lives on a line; the lines meet at 60 degrees, so the root has trace 2 * 3 * cos 60.
    one, other = 2.0 * np.array([1.0, 0.0, 0.0]), 3.0 * np.array([0.5, math.sqrt(0.75), 0.0])
    score = frechet_distance(np.zeros(3), np.outer(one, one), np.zeros(3), np.outer(other, other))
    np.testing.assert_allclose(score, 4.0 + 9.0 - 2 * 3.0, rtol=1e-13)


def test_frechet_distance_of_points_is_their_squared_distance():
    assert frechet_distance(np.array([0.0, 1.0]), np.zeros((2, 2)), np.array([2.0, 2.0]), np.zeros((2, 2))) == 5.0


# Kernel distance


def kernel_distance_by_loops(real, fake):
    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1.0) ** 3

    def within(features):
        pairs = [kernel(x, y) for i, x in enumerate(features) for j, y in enumerate(features) if i != j]
        return math.fsum(pairs) / len(pairs)

    return within(real) + within(fake) - 2 * math.fsum(kernel(x, y) for x in real for y in fake) / len(real) / len(fake)


def test_kernel_distance_is_the_average_of_double_loops():
    real, fake = two_sets()
    np.testing.assert_allclose(kernel_distance(real, fake), kernel_distance_by_loops(real, fake), rtol=1e-11)


def test_kernel_distance_is_symmetric():
    real, fake = two_sets()
    np.testing.assert_allclose(kernel_distance(real, fake), kernel_distance(fake, real), rtol=1e-11)


def test_kernel_distance_does_not_change_when_both_sets_turn():
    real, fake = two_sets()
    rotation = scipy.stats.ortho_group.rvs(D, random_state=7)
    np.testing.assert_allclose(
        kernel_distance(real @ rotation, fake @ rotation), kernel_distance(real, fake), rtol=1e-11
    )


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(8)
    scores = [kernel_distance(rng.standard_normal((6, 2)), rng.standard_normal((4, 2))) for _ in range(2000)]
    # The biased estimate would be 13.5 (1 / 6 + 1 / 4) = 5.6 above zero, seventy standard errors.
    assert abs(np.mean(scores)) < 4 * np.std(scores) / math.sqrt(2000)
    assert min(scores) < 0


# Inception score


def inception_score_by_loops(logits, splits):
    scores, N = [], len(logits)
    for split in range(splits):
        rows = [
            [math.exp(value) / math.fsum(map(math.exp, row)) for value in row]
            for row in logits[split * N // splits : (split + 1) * N // splits]
        ]
        average = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
        divergence = [math.fsum(p * math.log(p / q) for p, q in zip(row, average, strict=True)) for row in rows]
        scores.append(math.exp(math.fsum(divergence) / len(rows)))
    mean = math.fsum(scores) / splits
    return mean, math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / splits)


@pytest.mark.parametrize("splits", [1, 2, 7, 10, 23])
def test_inception_score_is_what_scalar_loops_give(splits):
    logits = 3.0 * np.random.default_rng(9).standard_normal((23, 5))
    expected = inception_score_by_loops(logits.tolist(), splits)
    np.testing.assert_allclose(inception_score(logits, splits), expected, rtol=1e-12, atol=1e-14)


def test_inception_score_has_ten_splits_unless_told():
    logits = 3.0 * np.random.default_rng(10).standard_normal((37, 5))
    assert inception_score(logits) == inception_score(logits, 10)


def test_inception_score_of_sure_and_even_answers_is_the_number_of_classes():
    sure = 1e4 * np.tile(np.eye(7), (6, 1))
    np.testing.assert_allclose(inception_score(sure, 3), (7.0, 0.0), rtol=1e-12, atol=1e-12)


def test_inception_score_of_sure_answers_that_miss_classes_is_the_number_of_classes_met():
    sure = 1e4 * np.tile(np.eye(7)[:3], (4, 1))
    np.testing.assert_allclose(inception_score(sure, 2), (3.0, 0.0), rtol=1e-12, atol=1e-12)


def test_inception_score_of_answers_that_do_not_depend_on_the_image_is_one():
    same = np.tile(np.random.default_rng(11).standard_normal(7), (30, 1))
    np.testing.assert_allclose(inception_score(same, 4), (1.0, 0.0), rtol=1e-14, atol=1e-14)


def test_inception_score_of_sorted_images_is_low():
    sure = 1e4 * np.repeat(np.eye(5), 4, axis=0)
    np.testing.assert_allclose(inception_score(sure, 5), (1.0, 0.0), rtol=1e-12, atol=1e-12)


def test_inception_score_does_not_change_with_a_constant_for_each_image():
    rng = np.random.default_rng(12)
    logits, constant = rng.standard_normal((20, 5)), 1e3 * rng.standard_normal((20, 1))
    np.testing.assert_allclose(inception_score(logits + constant, 4), inception_score(logits, 4), rtol=1e-10)


# Precision, recall, density, coverage


def neighbour_scores_by_loops(real, fake, neighbours):
    """Returns precision, recall, density and coverage as the papers define them; ties as their authors count them."""

    def radius(i, features):
        return sorted(math.dist(features[i], other) for j, other in enumerate(features) if j != i)[neighbours - 1]

    r, s = [radius(i, real) for i in range(len(real))], [radius(j, fake) for j in range(len(fake))]
    near = [[math.dist(x, y) for y in fake] for x in real]
    N, M = range(len(real)), range(len(fake))
    return (
        sum(any(near[i][j] <= r[i] for i in N) for j in M) / len(fake),
        sum(any(near[i][j] <= s[j] for j in M) for i in N) / len(real),
        sum(near[i][j] < r[i] for i in N for j in M) / (neighbours * len(fake)),
        sum(any(near[i][j] < r[i] for j in M) for i in N) / len(real),
    )


def neighbour_scores(real, fake, neighbours):
    return precision_recall(real, fake, neighbours) + density_coverage(real, fake, neighbours)


def spread_sets(real=23, fake=17):
    """Returns sets whose scores are neither 0 nor 1, and differ from those of the next k."""
    rng = np.random.default_rng(13)
    return rng.standard_normal((real, 5)), 0.7 * rng.standard_normal((fake, 5)) + 0.6


@pytest.mark.parametrize("neighbours", [1, 2, 3, 5, 16])
def test_neighbour_scores_are_what_scalar_loops_give(neighbours):
    real, fake = spread_sets()
    expected = neighbour_scores_by_loops(real.tolist(), fake.tolist(), neighbours)
    np.testing.assert_allclose(neighbour_scores(real, fake, neighbours), expected, rtol=1e-14)


def test_neighbour_scores_of_many_equal_distances_and_copies_are_what_scalar_loops_give():
    # On a lattice nearly every comparison is a tie, and two thirds of the fake features are one copied.
    rng = np.random.default_rng(14)
    real, fake = rng.integers(0, 4, (31, 2)) * 1.0, np.full((19, 2), 2.0)
    fake[:6] = rng.integers(0, 4, (6, 2))
    expected = neighbour_scores_by_loops(real.tolist(), fake.tolist(), 3)
    for shift in (0.0, 1e3, 1.0 / 3.0):
        np.testing.assert_allclose(neighbour_scores(real + shift, fake + shift, 3), expected, rtol=1e-14)


@pytest.mark.parametrize("neighbours", [1, 4])
def test_neighbour_scores_of_equal_sets_are_one(neighbours):
    features = np.random.default_rng(15).standard_normal((50, 33))
    assert neighbour_scores(features, features.copy(), neighbours) == (1.0, 1.0, 1.0, 1.0)


def test_neighbour_scores_of_sets_far_apart_are_zero():
    real, fake = two_sets()
    assert neighbour_scores(real, fake + 1e3, 3) == (0.0, 0.0, 0.0, 0.0)


def test_neighbour_scores_do_not_change_when_both_sets_turn_and_move():
    real, fake = spread_sets()
    moved = neighbour_scores(rotated_and_shifted(real), rotated_and_shifted(fake), 3)
    assert moved == neighbour_scores(real, fake, 3)


def test_neighbour_scores_of_features_far_from_zero_are_those_near_it():
    real, fake = (np.round(features * 2.0**20) / 2.0**20 for features in spread_sets())
    assert neighbour_scores(real + 2.0**26, fake + 2.0**26, 3) == neighbour_scores(real, fake, 3)


def test_precision_and_recall_exchange_when_the_sets_do():
    real, fake = spread_sets()
    precision, recall = precision_recall(real, fake, 3)
    assert precision != recall
    assert precision_recall(fake, real, 3) == (recall, precision)


def test_point_at_the_radius_is_inside_for_precision_and_outside_for_density():
    real, fake = np.array([[0.0, 0.0], [0.1, 0.2]]), np.array([[-0.1, -0.2], [7.0, 7.0]])
    assert precision_recall(real, fake, 1)[0] == 0.5
    assert density_coverage(real, fake, 1) == (0.0, 0.0)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("dimensions", [1, 2, 512])
def test_copies_and_equal_distances_are_counted_as_the_definition_says(dimensions, offset):
    """Differences and squares of integers are exact, so the loops find every tie."""
    rng = np.random.default_rng(dimensions)
    for _ in range(20):
        N, M = rng.integers(6, 19, 2)
        real, fake = rng.integers(0, 4, (N, dimensions)) * 1.0, rng.integers(0, 4, (M, dimensions)) * 1.0
        real[rng.integers(0, N, N // 2)] = real[0]
        fake[rng.integers(0, M, M // 2)] = real[rng.integers(0, N, M // 2)]
        neighbours = int(rng.integers(1, min(N, M)))
        expected = neighbour_scores_by_loops((real + offset).tolist(), (fake + offset).tolist(), neighbours)
        np.testing.assert_allclose(neighbour_scores(real + offset, fake + offset, neighbours), expected, rtol=1e-14)


def test_density_of_copies_is_what_pencil_gives():
    real, fake = np.array([[0.0], [0.0], [0.0], [0.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    assert density_coverage(real, fake, 1) == (2 / 3, 1 / 5)


def test_many_copies_take_one_distance():
    real = np.random.default_rng(16).standard_normal((7, 3))
    points = distances._points("f", "fake", np.tile(real[:1], (2000, 1)))
    assert points.originals.tolist() == [0] * 2000
    scores = neighbour_scores(real, points.features, 2)
    np.testing.assert_allclose(scores, neighbour_scores(real, points.features[:5], 2), rtol=1e-12)


def test_one_collapsed_feature_near_the_real_ones_is_precise_and_recalls_only_its_own_place():
    real = np.array([[0.0, 1.0], [0.3, 1.0], [0.0, 1.7], [5.0, 5.0]])
    fake = np.tile(real[1], (6, 1))
    assert precision_recall(real, fake, 2) == (1.0, 0.25)


def test_precision_falls_only_by_the_share_of_outliers():
    real, fake = two_sets()
    fake[:4] += 1e3
    assert precision_recall(real, fake, 15)[0] == 13 / 17


# Blocks, dtypes, bad input


@pytest.mark.parametrize("block", [1, 40, 100])
def test_blocks_of_rows_change_no_distance(block, monkeypatch):
    real, fake = spread_sets()
    whole = kernel_distance(real, fake), neighbour_scores(real, fake, 3)
    monkeypatch.setattr(distances, "_BLOCK", block)
    np.testing.assert_allclose(kernel_distance(real, fake), whole[0], rtol=1e-12)
    assert neighbour_scores(real, fake, 3) == whole[1]


def test_no_block_holds_more_than_its_share_of_the_pairs():
    blocks = list(distances._row_blocks(10_000, 3_000))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(10_000))
    assert max(block.stop - block.start for block in blocks) * 3_000 <= distances._BLOCK


DISTANCES = [
    frechet_of,
    kernel_distance,
    lambda real, fake: precision_recall(real, fake, 3),
    lambda real, fake: density_coverage(real, fake, 3),
    lambda real, fake: inception_score(np.concatenate([real, fake]), 4),
]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, jnp.bfloat16])
def test_distance_runs_in_float64_whatever_it_is_given(distance, dtype):
    real, fake = (features.astype(dtype) for features in two_sets())
    assert distance(real, fake) == distance(real.astype(np.float64), fake.astype(np.float64))


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_of_jax_arrays_is_that_of_numpy_arrays_in_python_floats(distance):
    real, fake = (features.astype(np.float32) for features in two_sets())
    score = distance(jnp.asarray(real), jnp.asarray(fake))
    assert score == distance(real, fake)
    assert {type(value) for value in (score if isinstance(score, tuple) else (score,))} == {float}


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_leaves_its_arguments_as_they_were(distance):
    real, fake = two_sets()
    for features in (real, fake):
        features.setflags(write=False)
    distance(real, fake)


REAL, FAKE = two_sets()
WITH_NAN = np.where(np.arange(17)[:, None] == 4, np.nan, FAKE)
BAD = [
    (lambda: moments_of(REAL[0]), r"moments_of needs features \[N, D\], floating and not empty; got \(3,\) float64"),
    (lambda: moments_of(REAL[:0]), r"moments_of needs features .* not empty; got \(0, 3\)"),
    (lambda: moments_of(REAL.astype(int)), r"moments_of needs features .* floating .* got \(23, 3\) int64"),
    (lambda: moments_of(WITH_NAN), r"moments_of needs finite features; 3 of 51 values .* first at \[4, 0\]: usually"),
    (lambda: moments_of(REAL[:1]).covariance, "covariance needs two features or more; got 1"),
    (lambda: merge_moments(moments_of(REAL), moments_of(REAL[:, :2])), "one embedding; got D = 3 and 2"),
    (lambda: frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2)), r"frechet_distance needs .*\(2, 2\)"),
    (lambda: frechet_distance(np.zeros(3), REAL, np.zeros(3), np.eye(3)), r"frechet_distance needs .*\(23, 3\)"),
    (
        lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.inf)),
        "finite covariance2; 4 of",
    ),
    (lambda: frechet_distance(np.full(2, np.nan), np.eye(2), np.zeros(2), np.eye(2)), "finite mean1; 2 of 2"),
    (lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.tri(2)), "symmetric covariance2"),
    (
        lambda: frechet_distance(np.zeros(2), np.diag([1.0, -0.1]), np.zeros(2), np.eye(2)),
        "covariance1 without negative",
    ),
    (
        lambda: kernel_distance(REAL, FAKE[:, :2]),
        r"kernel_distance needs .* one embedding; got \(23, 3\) and \(17, 2\)",
    ),
    (
        lambda: kernel_distance(REAL, FAKE[:1]),
        "kernel_distance needs at least two features per set; got 23 real and 1 fake",
    ),
    (lambda: kernel_distance(REAL, WITH_NAN), "kernel_distance needs finite fake"),
    (lambda: inception_score(REAL[:, 0]), r"inception_score needs logits \[N, K\]"),
    (lambda: inception_score(REAL, 24), "inception_score needs splits from 1 to the 23 rows of logits; got 24"),
    (lambda: inception_score(REAL, 0), "inception_score needs splits from 1 to the 23 rows of logits; got 0"),
    (lambda: inception_score(WITH_NAN), "inception_score needs finite logits"),
    (lambda: precision_recall(REAL, FAKE, 17), "precision_recall needs neighbours .* got 17 and a set of 17"),
    (lambda: precision_recall(REAL, FAKE, 0), "precision_recall needs neighbours of at least 1 .* got 0"),
    (lambda: precision_recall(REAL, WITH_NAN, 3), "precision_recall needs finite fake"),
    (lambda: precision_recall(REAL[:, :2], FAKE, 3), r"precision_recall needs .* got \(23, 2\) and \(17, 3\)"),
    (lambda: density_coverage(REAL, FAKE, 23), "density_coverage needs neighbours .* got 23 and a set of 23"),
    (lambda: density_coverage(WITH_NAN, REAL, 3), "density_coverage needs finite real"),
    (lambda: density_coverage(REAL, FAKE[0], 3), r"density_coverage needs fake \[M, D\]"),
    (lambda: precision_recall(1e160 * REAL, FAKE, 3), r"precision_recall needs real .* from 1e-150 to 1e\+150, .* got"),
    (
        lambda: precision_recall(REAL, 1e-170 * FAKE, 3),
        r"precision_recall needs fake .* from 1e-150 to 1e\+150, .* got",
    ),
    (lambda: density_coverage(1e160 * REAL, FAKE, 3), r"density_coverage needs real .* from 1e-150 to 1e\+150, .* got"),
    (lambda: kernel_distance(1e150 * REAL, 1e150 * FAKE), "kernel_distance needs features .* up to 1e49, since larger"),
    (lambda: inception_score(np.array([[1e308, -1e308]]), 1), "inception_score needs logits .* up to 8e307, since"),
    (lambda: moments_of(1e160 * REAL), "moments_of needs features of magnitudes up to 1e150, since larger"),
    (
        lambda: merge_moments(moments_of(np.full((1, 1), 1e160)), moments_of(np.zeros((1, 1)))),
        "merge_moments needs features of magnitudes up to 1e150",
    ),
    (
        lambda: frechet_distance(np.full(2, 1e160), np.eye(2), np.zeros(2), np.eye(2)),
        "frechet_distance needs means up to 1e150 and covariances up to 1e300, since",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_answered_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_density_needs_no_neighbours_among_the_generated_features():
    assert density_coverage(REAL, REAL[:1].copy(), 1) == (1.0, 1 / 23)


def test_float32_covariance_may_be_as_rough_as_float32_is():
    moments = moments_of(REAL[:3])  # of rank two, so that its least eigenvalue is rounding of either sign
    rough = moments.covariance.astype(np.float32)
    assert 0.0 <= frechet_distance(moments.mean, rough, moments.mean, moments.covariance) < 1e-5


def test_moments_are_a_tuple_to_be_stored_and_read_back():
    moments = moments_of(REAL)
    assert Moments(*moments).covariance.tolist() == moments.covariance.tolist()
