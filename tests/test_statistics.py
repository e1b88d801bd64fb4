"""Intervals against scipy, hand-made sums and brute force."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from leaderboard.statistics import (
    Estimate,
    difference_over_tasks,
    interval,
    is_collapsed,
    mcnemar_p,
    mean_over_tasks,
    of_examples,
    sample_std,
    smallest_difference,
    welch,
)

A = [83.1, 84.7, 82.05, 90.0, 85.2]
B = [80.0, 83.9, 81.0, 82.2, 79.5]


def ends(found: Estimate | None) -> tuple[float, float]:
    """The interval."""
    assert found is not None
    return found.low, found.high


def test_the_sample_std_against_the_standard_library():
    assert sample_std(A) == pytest.approx(statistics.stdev(A))
    assert sample_std([1.0]) is None


def test_the_interval_of_a_mean_against_scipy():
    expected = stats.t.interval(0.95, 4, statistics.mean(A), stats.sem(A))
    assert ends(interval(A)) == pytest.approx(expected)
    assert interval([1.0]) is None


def test_errors_of_seeds_and_examples_add_up_as_squares():
    """99.6 to 100 from 1,000 right answers, and no spread of the seeds: no zero width."""
    found = interval([100.0, 100.0], of_examples(np.ones((2, 1000), bool)))
    assert found is not None and found.high == 100.0
    assert found.low == pytest.approx(100 * stats.binomtest(1000, 1000).proportion_ci().low)
    plain, both = interval(A), interval(A, Estimate(85.0, 82.0, 89.0))
    assert plain is not None and both is not None
    assert both.high - both.value == pytest.approx(math.hypot(plain.high - plain.value, 4.0))
    assert both.value - both.low == pytest.approx(math.hypot(plain.value - plain.low, 3.0))


def test_the_interval_over_examples_against_scipy():
    """Of one seed Clopper and Pearson's; of several seeds it shrinks, but not to nothing."""
    rng = np.random.default_rng(0)
    one = rng.random((1, 500)) < 0.8
    expected = stats.binomtest(int(one.sum()), 500).proportion_ci()
    assert ends(of_examples(one)) == pytest.approx((100 * expected.low, 100 * expected.high))
    five = rng.random((5, 500)) < 0.8  # independent of each other: a fifth of the variance
    low, high = ends(of_examples(five))
    whole = stats.binomtest(round(500 * five.mean()), 500).proportion_ci()
    shrunk = (high - low) / (100 * (whole.high - whole.low))
    assert shrunk == pytest.approx(1 / math.sqrt(5), abs=0.1)
    same = np.repeat(one, 5, axis=0)  # five equal seeds: nothing shrinks
    assert ends(of_examples(same)) == pytest.approx(ends(of_examples(one)))


def test_welch_against_scipy():
    expected = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    assert ends(welch(A, B)) == pytest.approx((expected.low, expected.high))
    assert welch([1.0], B) is None
    assert ends(welch([2.0, 2.0], [1.0, 1.0])) == (1.0, 1.0)


def test_a_difference_over_tasks_by_hand():
    """The mean of two differences; variances of four means, Satterthwaite's degrees of freedom."""
    C, D = [10.0, 12.0, 11.0], [9.0, 13.0]
    found = difference_over_tasks([A, C], [B, D])
    value = (statistics.mean(A) - statistics.mean(B) + 11.0 - 11.0) / 2
    parts = [(statistics.variance(v) / len(v), len(v) - 1) for v in (A, B, C, D)]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / free for part, free in parts)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total) / 2
    assert ends(found) == pytest.approx((value - half, value + half))
    assert difference_over_tasks([A, [1.0]], [B, D]) is None
    assert difference_over_tasks([], []) is None


def test_a_mean_over_tasks_by_hand():
    found = mean_over_tasks([A, B])
    assert found is not None
    assert found.value == pytest.approx((statistics.mean(A) + statistics.mean(B)) / 2)
    assert ends(mean_over_tasks([A])) == pytest.approx(ends(interval(A)))


def test_the_smallest_difference_has_the_power_that_it_says():
    """Against the noncentral t distribution: 80 % within two points."""
    found = smallest_difference([A], [B])
    assert found is not None
    error = math.sqrt(statistics.variance(A) / 5 + statistics.variance(B) / 5)
    parts = [statistics.variance(v) / 5 for v in (A, B)]
    freedom = sum(parts) ** 2 / sum(part**2 / 4 for part in parts)
    edge, shift = stats.t.ppf(0.975, freedom), found / error
    assert 1 - stats.nct.cdf(edge, freedom, shift) == pytest.approx(0.8, abs=0.02)


def test_an_interval_stays_in_a_metrics_range():
    assert Estimate(99.0, 90.0, 116.4).within(0.0, 100.0) == Estimate(99.0, 90.0, 100.0)


@pytest.mark.parametrize("value", [50.0, 51.0, 52.5, 52.6, 52.7, 53.0, 60.0, 47.7])
def test_a_collapsed_seed_against_scipy(value):
    """Not above the constant answer by the one-sided binomial test."""
    p = stats.binomtest(round(10 * value), 1000, 0.5, alternative="greater").pvalue
    assert is_collapsed(value, 50.0, 1000, proportion=True) == (p > 0.05)


def test_a_collapsed_correlation():
    assert is_collapsed(0.0, 0.0, 1043, proportion=False)
    assert is_collapsed(5.0, 0.0, 1043, proportion=False)  # 1.645 / sqrt(1043) is 5.09 %
    assert not is_collapsed(5.2, 0.0, 1043, proportion=False)


def test_mcnemar_against_the_binomial_test():
    rng = np.random.default_rng(1)
    a, b = rng.random(200) < 0.8, rng.random(200) < 0.7
    won, lost = int((a & ~b).sum()), int((~a & b).sum())
    assert mcnemar_p(a, b) == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert mcnemar_p(a, a) == 1.0
