"""The statistics of tables, each against an enumeration, a published example, a closed form or another library."""

import doctest
import itertools
import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("statsmodels", reason="statsmodels is not installed (pip install 'sagan-jax[tables]')")

from statsmodels.duration.survfunc import SurvfuncRight

from comparisons import (
    factorial,
    families,
    intervals,
    lost_discriminator,
    power,
    ranking,
    survival,
    tables,
)
from sagan_jax.evaluation import permutation

pytestmark = pytest.mark.one_jax
MODULES = [factorial, families, intervals, lost_discriminator, permutation, power, ranking, survival, tables]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_doctests_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed


def exact_p(one, other):
    """The share of groupings whose difference of means is at least as large. Fractions avoid all rounding."""
    values = [Fraction(repr(value)) for value in [*one, *other]]

    def difference(chosen):
        first = [values[index] for index in chosen]
        rest = [value for index, value in enumerate(values) if index not in chosen]
        return abs(sum(first) / len(first) - sum(rest) / len(rest))

    groupings = list(itertools.combinations(range(len(values)), len(one)))
    measured = difference(range(len(one)))
    return sum(difference(chosen) >= measured for chosen in groupings) / len(groupings)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0.1, 0.2, 0.3], [0.3, 0.1, 0.2]),  # a difference of 0, and many ties
        ([0.1, 0.7], [0.3, 0.3, 0.2, 0.6]),  # groups of two sizes
        ([0.3, 0.6, 0.9, 1.2], [0.1, 0.2, 0.4, 0.5, 0.3]),
        ([2**40 + eighths / 8 for eighths in (1, 2, 6)], [2**40 + eighths / 8 for eighths in (1, 4, 6, 3)]),
        ([0.5, 0.5, 0.5], [0.5, 0.5]),
        ([0.38, 0.31, 0.44, 0.52], [0.61, 0.35, 0.72, 0.6]),
        ([0.1, 0.7, 0.3], [0.3, 0.1, 0.7]),  # the two sums of the same values, in other orders, differ in float64
        ([0.1998, 0.2004, 0.2, 0.2012, 0.1994], [0.2002, 0.2, 0.1996, 0.2006, 0.2]),  # shares of 5,000
        ([1000.1, 1000.7, 1000.4], [1000.2, 1000.3, 1000.8, 1000.3]),
    ],
)
def test_permutation_p_is_that_of_every_grouping_counted_in_fractions(one, other):
    assert permutation.permutation_p(one, other) == pytest.approx(exact_p(one, other), rel=1e-12)


def test_permutation_p_of_shares_of_5000_images_counts_every_tie():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = (rng.integers(990, 1010, size=5) / 5000 for _ in range(2))
        assert permutation.permutation_p(one, other) == pytest.approx(exact_p(one.tolist(), other.tolist()), rel=1e-9)


def test_permutation_p_of_shares_is_fishers_exact_test():
    for ones in range(1, 6):
        one, other = [1.0] * ones + [0.0] * (5 - ones), [1.0, 0.0, 0.0, 0.0, 0.0]
        fisher = stats.fisher_exact([[ones, 5 - ones], [1, 4]]).pvalue
        assert permutation.permutation_p(one, other) == pytest.approx(fisher, rel=1e-9)


def test_fisher_tea_experiment_has_its_published_p():
    assert permutation.smallest_p(4, 4) == pytest.approx(2 / 70)  # Fisher 1935, on both sides
    assert permutation.permutation_p([1, 1, 1, 1], [0, 0, 0, 0]) == pytest.approx(2 / 70)


@pytest.mark.parametrize(("one", "other"), [(2, 2), (3, 2), (4, 4), (2, 5)])
def test_smallest_p_is_that_of_groups_that_do_not_overlap(one, other):
    values = [2.0**exponent for exponent in range(one + other)]
    groupings = (set(chosen) for chosen in itertools.combinations(values, one))
    least = min(exact_p(chosen, [value for value in values if value not in chosen]) for chosen in groupings)
    assert permutation.smallest_p(one, other) == pytest.approx(least)


def test_permutation_test_rejects_no_more_often_than_it_says():
    rng = np.random.default_rng(1)
    p_values = [permutation.permutation_p(*np.split(rng.exponential(size=8), 2)) for _ in range(300)]
    assert 0.01 < np.mean(np.array(p_values) <= 4 / 70) < 0.1  # 0.057 expected, standard deviation 0.013


@pytest.mark.parametrize(("one", "other"), [([2.0], [1.0, 3.0]), ([1.0] * 13, [1.0] * 13)])
def test_groups_that_cannot_be_counted_are_refused(one, other):
    with pytest.raises(ValueError, match=r"needs two runs in each group|counts at most"):
        permutation.permutation_p(one, other)


def test_collapsed_runs_are_worst_whichever_way_scores_go():
    better = [3.0, 2.0, 1.0]
    for sign, lower in ((1, False), (-1, True)):
        one, other = [sign * value for value in better], [None, None, sign * 2.5]
        ranks = permutation.worst_ranks([*one, *other], lower_is_better=lower)
        assert ranks == [6, 4, 3, 1.5, 1.5, 5]
        found = permutation.difference_p(one, other, lower_is_better=lower)
        assert found == pytest.approx(exact_p(ranks[:3], ranks[3:]))
    assert permutation.difference_p([1.0, 5.0], [2.0, 9.0], lower_is_better=True) == pytest.approx(
        exact_p([1, 5], [2, 9])
    )


def test_holm_keeps_the_order_of_the_tests():
    # By hand: 0.001 x 4; 0.012 x 3; 0.04 x 2; the p of 1 comes last.
    assert families.holm([0.012, 1.0, 0.001, 0.04]) == pytest.approx([0.036, 1.0, 0.004, 0.08])
    assert families.holm([]) == []


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombe(count, total, low, high):
    assert intervals.wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_interval_is_that_of_all_resamples():
    values, other = [1.0, 2.0, 4.0, 8.0, 16.0], [3.0, 5.0, 6.0]
    of_one = np.array(list(itertools.product(values, repeat=5))).mean(axis=1)
    assert intervals.bootstrap(values) == pytest.approx(np.quantile(of_one, [0.025, 0.975]), abs=0.21)
    of_other = np.array(list(itertools.product(other, repeat=3))).mean(axis=1)
    differences = np.subtract.outer(of_one, of_other).ravel()
    assert intervals.bootstrap(values, other) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.25)
    assert intervals.bootstrap([1.0]) is None
    assert intervals.bootstrap(values) == intervals.bootstrap(values)


RANKED = [
    ([0.1, 0.7, 0.2], [0.3, 0.3], [0.2, 0.6]),  # many ties, and rows of two sizes
    ([None, 0.4, 0.9], [0.5, 0.6], [None, 0.1]),
]


@pytest.mark.parametrize("rows", RANKED, ids=["values", "a collapsed run"])
@pytest.mark.parametrize("lower_is_better", [False, True])
def test_shares_of_ranks_are_those_of_every_draw_counted_in_fractions(rows, lower_is_better):
    values = [[None if value is None else Fraction(repr(value)) for value in row] for row in rows]
    if any(None in row for row in values):
        joined = [value for row in values for value in row]

        def worse(one, other):
            return other is not None and (one is None or (one > other if lower_is_better else one < other))

        def rank(value):  # how many are worse, and half of those that tie: the higher the better
            ties = sum(other == value for other in joined)
            return Fraction(2 * sum(worse(other, value) for other in joined) + ties - 1, 2)

        values = [[rank(value) for value in row] for row in values]
    elif lower_is_better:
        values = [[-value for value in row] for row in values]
    counts = np.zeros((len(rows), 2 * len(rows) - 1))
    draws = list(itertools.product(*(list(itertools.product(row, repeat=len(row))) for row in values)))
    for draw in draws:
        means = [sum(row) / len(row) for row in draw]
        for number, mean in enumerate(means):
            others = means[:number] + means[number + 1 :]
            counts[number, sum(2 * (other > mean) + (other == mean) for other in others)] += 1
    found = ranking.rank_shares(rows, lower_is_better=lower_is_better)
    assert np.stack(found) == pytest.approx(counts / len(draws), abs=1e-12)


def test_interval_of_a_rank_holds_at_least_95_percent_of_the_draws():
    assert ranking.rank_interval(np.array([0.02, 0.0, 0.96, 0.02, 0.0])) == (pytest.approx(1.99), 2.0, 2.0)
    assert ranking.rank_interval(np.array([0.03, 0.0, 0.93, 0.0, 0.04]))[1:] == (1.0, 3.0)


def test_rows_of_many_runs_have_the_ranks_of_draws_at_random():
    ten = [[float(run) for run in range(10)]] * 2
    assert np.stack(ranking.rank_shares(ten, lower_is_better=True)).sum(axis=1) == pytest.approx([1, 1])
    # Means of many runs are about normal: of 40 values of variance 1 and of 30 of variance 4, 0.5 apart.
    rows = [[3.5, 1.5] * 20, [5.0, 1.0] * 15]
    higher = NormalDist().cdf(0.5 / (1 / 40 + 4 / 30) ** 0.5)
    (first, ties, second), other = ranking.rank_shares(rows, lower_is_better=True)
    assert first + ties / 2 == pytest.approx(higher, abs=0.01)
    assert first + ties + second == pytest.approx(1)
    assert other == pytest.approx([second, ties, first])
    again = ranking.rank_shares(rows, lower_is_better=True)
    assert np.array_equal(again, [[first, ties, second], other])
    # Two equal rows of 11 runs are drawn independently.
    of_11 = [float(run**2) for run in range(11)]
    first, ties, second = ranking.rank_shares([of_11, of_11], lower_is_better=True)[0]
    assert first == pytest.approx(second, abs=0.01)
    assert 0 < ties < 0.05


def test_row_without_runs_is_not_ranked():
    with pytest.raises(ValueError, match="at least 1 run"):
        ranking.rank_shares([[1.0], []], lower_is_better=True)


def test_effect_of_many_runs_is_cohens():
    assert power.smallest_effect(64, 64, 0.05) == pytest.approx(0.5, abs=0.002)  # Cohen 1988, table 2.4.1


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other", "level"), [(5, 5, 0.0125), (4, 6, 0.02), (5, 5, 0.05)])
def test_smallest_effect_is_found_in_four_of_five_simulated_experiments(one, other, level):
    rng, shift = np.random.default_rng(7), power.smallest_effect(one, other, level)
    groups = ((rng.normal(size=one), rng.normal(shift, size=other)) for _ in range(1000))
    found = [permutation.permutation_p(*pair) <= level for pair in groups]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)  # standard deviation 0.013, and as much in `shift`


def test_level_that_few_runs_attain_is_a_whole_number_of_groupings():
    assert power.attained_level(4, 4, 0.05) == pytest.approx(2 / 70)
    assert power.attained_level(5, 5, 0.05) == pytest.approx(12 / 252)
    assert power.attained_level(5, 5, 2 / 252) == pytest.approx(2 / 252)
    assert power.smallest_effect(5, 5, 0.005) is None
    assert power.smallest_effect(4, 4, 0.05) == power.smallest_effect(4, 4, 2 / 70)


def test_smallest_count_is_that_of_fisher():
    for runs, level in ((8, 0.05), (8, 0.0125), (5, 0.05), (5, 0.0125)):
        p_values = {
            count: stats.fisher_exact([[count, runs - count], [0, runs]]).pvalue for count in range(1, runs + 1)
        }
        assert power.smallest_count(runs, runs, level) == min(count for count in p_values if p_values[count] <= level)


# Remission under 6-mercaptopurine in weeks, Freireich et al. 1963; + for those that were still in it.
WEEKS = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"


def test_survival_is_the_published_one_of_freireich():
    weeks = WEEKS.split()
    lasted, ended = [int(week.strip("+")) for week in weeks], [not week.endswith("+") for week in weeks]
    steps = [5, 6, 7, 10, 13, 16, 22, 23]
    shares = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    deviations = [0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346]
    found = survival.kaplan_meier(lasted, ended, steps)
    assert found[0] == pytest.approx((1, *stats.binomtest(21, 21).proportion_ci(method="wilson")))
    assert [share for share, _, _ in found[1:]] == pytest.approx(shares, abs=6e-4)
    for (share, low, high), deviation in zip(found[1:], deviations, strict=True):
        # The interval of log(-log S), from the published deviation of S.
        reach = 1.959964 * deviation / (share * abs(math.log(share)))
        assert (low, high) == pytest.approx((share ** math.exp(reach), share ** math.exp(-reach)), abs=1e-3)
    other = SurvfuncRight(lasted, ended)
    assert [share for share, _, _ in found[1:]] == pytest.approx(other.surv_prob.tolist())


def test_survival_of_runs_that_all_collapse_or_none_has_wilsons_interval():
    none = survival.kaplan_meier([9, 9, 9], [False] * 3, [9])
    assert none == [pytest.approx((1.0, *intervals.wilson(3, 3)))]
    everyone = survival.kaplan_meier([2, 3, 4], [True] * 3, [1, 4, 9])
    assert everyone[0][0] == 1
    assert everyone[1] == everyone[2] == pytest.approx((0.0, *intervals.wilson(0, 3)))
    with pytest.raises(ValueError, match="needs a run"):
        survival.kaplan_meier([], [], [1])


@pytest.mark.parametrize(
    ("values", "step"),
    [([0.5, 0.4, 0.3], None), ([0.5, 0.05, 0.02], 20), ([0.05, 0.5, 0.5], None), ([0.0, 0.0, 0.0], 10), ([], None)],
)
def test_collapse_begins_where_the_curve_stays_below_the_limit(values, step):
    assert survival.collapse_step(list(zip((10, 20, 30), values, strict=False)), 0.1) == step
    assert survival.collapse_step([(10, 0.1)], 0.1) is None


# Pilot plant of Box, Hunter and Hunter (1978), section 10.2: yield by temperature, concentration and catalyst, twice.
PILOT = [(59, 61), (74, 70), (50, 58), (69, 67), (50, 54), (81, 85), (46, 44), (79, 81)]
PLANT = {levels[::-1]: list(runs) for levels, runs in zip(itertools.product((-1, 1), repeat=3), PILOT, strict=True)}


def test_effects_are_those_of_the_published_pilot_plant():
    published = {(0,): 23, (1,): -5, (2,): 1.5, (0, 1): 1.5, (0, 2): 10, (1, 2): 0, (0, 1, 2): 0.5}
    assert {factors: factorial.effect(PLANT, factors) for factors in published} == pytest.approx(published)
    assert factorial.standard_error(PLANT) == pytest.approx(math.sqrt(2))  # 1.4 in the book
    assert factorial.alias(PLANT, [0, 1]) is None


@pytest.mark.parametrize("sign", [-1, 1])
def test_effect_of_half_a_design_is_that_of_the_whole_and_its_alias(sign):
    half = {levels: runs for levels, runs in PLANT.items() if math.prod(levels) == sign}
    for pair in itertools.combinations(range(3), 2):
        found, (third,) = factorial.alias(half, pair)
        assert found == sign
        assert {*pair, third} == {0, 1, 2}
        both = factorial.effect(PLANT, pair) + sign * factorial.effect(PLANT, [third])
        assert factorial.effect(half, pair) == pytest.approx(both)
        assert factorial.effect(half, pair) == pytest.approx(sign * factorial.effect(half, [third]))


def test_p_of_a_main_effect_is_that_of_every_grouping_within_the_other_factor():
    cells = {(-1, -1): [1.0, 4.0], (1, -1): [3.0, 6.0, 5.0], (-1, 1): [10.0, 13.0], (1, 1): [12.0, 19.0]}

    def groupings(other):
        low, high = cells[-1, other], cells[1, other]
        values = [Fraction(value) for value in (*high, *low)]
        for chosen in itertools.combinations(range(len(values)), len(high)):
            first = [values[index] for index in chosen]
            yield sum(first) / len(high) - (sum(values) - sum(first)) / len(low)

    measured = abs(sum(next(iter(groupings(other))) for other in (-1, 1)))
    sums = [abs(one + two) for one, two in itertools.product(groupings(-1), groupings(1))]
    assert len(sums) == 10 * 6
    assert factorial.main_effect_p(cells, 0) == pytest.approx(sum(found >= measured for found in sums) / len(sums))
    # The other factor moves each run by 9. This is not spread within the first factor.
    moved = {levels: [value + 9 * (levels[1] > 0) for value in values] for levels, values in cells.items()}
    assert factorial.main_effect_p(moved, 0) == factorial.main_effect_p(cells, 0)


def test_drawn_groupings_come_near_the_counted_ones(monkeypatch):
    counted = factorial.main_effect_p(PLANT, 1)
    monkeypatch.setattr(factorial, "MOST_SUMS", 100)
    drawn = factorial.main_effect_p(PLANT, 1)
    assert 0.001 < counted < 0.5
    assert drawn != counted
    assert drawn == pytest.approx(counted, abs=0.006)


def test_p_of_half_a_design_finds_what_is_there_and_is_blind_to_the_other_factors():
    rng = np.random.default_rng(4)
    levels = [of for of in itertools.product((-1, 1), repeat=3) if math.prod(of) == 1]
    half = {of: (rng.normal(size=4) + 3 * of[0]).tolist() for of in levels}
    moved = {of: [value + 50 * of[1] for value in values] for of, values in half.items()}
    assert factorial.main_effect_p(half, 0) < 0.001
    assert factorial.main_effect_p(moved, 0) == pytest.approx(factorial.main_effect_p(half, 0), abs=1e-3)
    assert factorial.main_effect_p(half, 2) > 0.05


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({(-1,): [1.0]}, "needs all 2 combinations"),
        ({(-1, -1): [1.0], (1, 1): [1.0]}, "needs all 4"),
        ({of: [1.0] for of in itertools.product((-1, 1), repeat=3) if of[0] > 0}, "product of all levels is the same"),
        ({(0,): [1.0], (1,): [2.0]}, "level of -1 or 1"),
        ({(-1,): [1.0], (1,): []}, "needs a run at each"),
    ],
)
def test_design_that_is_neither_whole_nor_half_is_refused(cells, words):
    with pytest.raises(ValueError, match=words):
        factorial.half_sign(cells)
