"""Statistics against scipy, hand-made sums, simulation and published figures."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from leaderboard.statistics import (
    across_tasks,
    evaluation_error,
    holm,
    interquartile_mean,
    interval,
    paired_examples,
    permutation_p,
    sample_std,
    seeds_needed,
    welch,
    welch_of,
)

A = [83.1, 84.7, 82.05, 90.0, 85.2]
B = [80.0, 83.9, 81.0, 82.2, 79.5]


def test_the_sample_std_against_the_standard_library():
    assert sample_std(A) == pytest.approx(statistics.stdev(A))
    assert sample_std([1.0]) is None


def test_the_interval_of_a_mean_against_scipy():
    got = interval(A)
    low, high = stats.t.interval(0.95, 4, statistics.mean(A), stats.sem(A))
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))
    assert interval([1.0]) is None


def test_welch_against_scipy():
    got = welch(A, B)
    expected = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert got.value == pytest.approx(statistics.mean(A) - statistics.mean(B))
    assert welch([1.0], B) is None
    certain = welch([2.0, 2.0], [1.0, 1.0])
    assert certain.low > 0


def test_permutations_against_scipy():
    expected = stats.permutation_test(
        (A, B), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf, vectorized=False
    )
    assert permutation_p(A, B) == pytest.approx(expected.pvalue)
    assert permutation_p([1, 2, 3, 4, 5], [11, 12, 13, 14, 15]) == pytest.approx(2 / 252)
    assert permutation_p([1, 2, 3], [11, 12, 13]) == pytest.approx(0.1)
    assert permutation_p([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert permutation_p([1.0] * 20, [2.0] * 20) is None


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 -> 0.06 kept monotone, 0.5 x 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_seeds_needed_for_the_papers_own_spreads():
    """Spread and difference of SMP's tables: RTE +1.2 at 1.59, MRPC 0.7 at 1.21."""
    assert seeds_needed(1.2, 1.59) == 29
    assert seeds_needed(-0.7, 1.21) == 48
    assert seeds_needed(0.0, 1.0) is None and seeds_needed(1e-9, 1.0) is None
    assert seeds_needed(1.0, 0.0) == 2


def test_the_error_of_a_finite_evaluation_set_is_binomial():
    """RTE: 277 examples at 72 %: 2.69 points."""
    correct = np.zeros((1, 277), bool)
    correct[0, : round(0.72 * 277)] = True
    p = correct.mean()
    assert evaluation_error(correct) == pytest.approx(100 * math.sqrt(p * (1 - p) / 276))
    assert evaluation_error(correct) == pytest.approx(2.69, abs=0.02)


def test_paired_examples_of_one_seed_are_mcnemars_test():
    ours, others = np.zeros((1, 100), bool), np.zeros((1, 100), bool)
    ours[0, :30], others[0, :18] = True, True
    others[0, 95:] = True  # ours wins 12 examples, loses 5
    got = paired_examples(ours, others)
    assert got.difference.value == pytest.approx(7.0)
    by_hand = sum(math.comb(17, k) for k in (*range(6), *range(12, 18))) / 2**17
    assert got.p == pytest.approx(by_hand)
    assert paired_examples(ours, ours).p == 1.0


def test_the_interval_over_examples_is_what_the_bootstrap_tends_to():
    rng = np.random.default_rng(1)
    ours, others = rng.random((3, 500)) < 0.8, rng.random((3, 500)) < 0.7
    got = paired_examples(ours, others).difference
    each = ours.mean(0) - others.mean(0)
    drawn = 100 * each[rng.integers(0, 500, (4000, 500))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert got.low == pytest.approx(low, abs=0.25) and got.high == pytest.approx(high, abs=0.25)


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean(np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]])) == [3.5]


def test_across_tasks_by_hand():
    ours, theirs = {"a": [3.0, 5.0], "b": [10.0, 10.0]}, {"a": [4.0, 4.0], "b": [10.0, 9.0]}
    got = across_tasks(ours, theirs)
    assert got.mean.value == pytest.approx(7.0)
    assert got.interquartile.value == pytest.approx((5 + 10) / 2)
    assert got.improvement.value == pytest.approx((0.5 + 0.75) / 2)
    assert got.mean.low <= 7.0 <= got.mean.high
    assert across_tasks(ours, theirs) == got


def test_the_stratified_bootstrap_covers_nearly_as_often_as_it_says():
    """Five seeds on eight tasks, drawn 300 times. Percentile intervals of small samples are a
    little short."""
    rng = np.random.default_rng(7)
    truth = {str(task): 70 + 3 * task for task in range(8)}
    hits = 0
    for _ in range(300):
        drawn = {task: (centre + rng.normal(0, 1.5, 5)).tolist() for task, centre in truth.items()}
        estimate = across_tasks(drawn, resamples=500).mean
        hits += estimate.low <= statistics.fmean(list(truth.values())) <= estimate.high
    assert 0.86 <= hits / 300 <= 0.98


@pytest.mark.parametrize("size", [3, 5])
def test_welch_covers_as_often_as_it_says(size):
    rng = np.random.default_rng(size)
    hits = 0
    for _ in range(1500):
        estimate = welch(rng.normal(1.0, 1.0, size).tolist(), rng.normal(0.0, 3.0, size).tolist())
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.93 <= hits / 1500 <= 0.98


def test_welch_from_means_and_spreads_equals_welch_from_values():
    a, b = statistics.stdev(A), statistics.stdev(B)
    assert welch_of(statistics.fmean(A), a, 5, statistics.fmean(B), b, 5) == welch(A, B)
