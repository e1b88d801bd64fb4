"""The primary test against scipy and against brute force; its corrections by hand."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from leaderboard.ranks import against, doubled_ranks, holm, rank_p, smallest_p, top_group, wins


def brute(ours, theirs) -> float:
    """Two-sided p over all splits of all tasks, written down a second way."""
    tables = []
    for a, b in zip(ours, theirs, strict=True):
        ranks = stats.rankdata([*a, *b]) / (len(a) + len(b) + 1)
        sums = [sum(ranks[list(s)]) for s in combinations(range(len(ranks)), len(a))]
        tables.append((sum(ranks[: len(a)]), sums, np.mean(sums)))
    observed = sum(seen - centre for seen, _, centre in tables)
    every = [
        sum(s - centre for s, (_, _, centre) in zip(split, tables, strict=True))
        for split in product(*(sums for _, sums, _ in tables))
    ]
    return float(np.mean(np.abs(every) >= abs(observed) - 1e-6))


@pytest.mark.parametrize(("m", "n"), [(3, 3), (5, 5), (4, 7), (2, 5), (10, 10)])
def test_on_one_task_it_is_mann_whitneys_test(m, n):
    rng = np.random.default_rng(m + n)
    a, b = rng.normal(0.8, 1, m), rng.normal(0, 1, n)
    expected = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert rank_p([a.tolist()], [b.tolist()]) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_over_tasks_with_ties_and_unequal_numbers_it_is_what_all_splits_give(seed):
    rng = np.random.default_rng(seed)
    sizes = [(3, 4), (4, 2), (3, 3)]
    ours = [rng.integers(0, 6, m).astype(float).tolist() for m, _ in sizes]
    theirs = [rng.integers(0, 5, n).astype(float).tolist() for _, n in sizes]
    assert rank_p(ours, theirs) == pytest.approx(brute(ours, theirs), abs=1e-9)


def test_what_has_no_values_says_nothing():
    assert rank_p([], []) == 1.0
    assert rank_p([[]], [[1.0, 2.0]]) == 1.0
    one = [[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]
    assert rank_p([*one[0], []], [*one[1], [1.0]]) == rank_p(*one) == pytest.approx(0.1)
    assert rank_p([[1.0] * 5], [[1.0] * 5]) == 1.0


def test_the_smallest_p_by_counting_splits():
    assert smallest_p([(3, 3)]) == pytest.approx(2 / 20)
    assert smallest_p([(5, 5)]) == pytest.approx(2 / 252)
    assert smallest_p([(3, 3)] * 3) == pytest.approx(2 / 20**3)


def test_one_collapsed_seed_counts_as_one_low_rank():
    good, bad = [99.1, 99.2, 99.3, 99.4, 20.0], [99.1, 99.2, 99.3, 99.4, 90.0]
    rival = [[95.0, 96.0, 97.0, 98.0, 98.5]]
    assert rank_p([good], rival) == rank_p([bad], rival)


def test_doubled_ranks_against_scipy():
    values = [3.0, 1.0, 3.0, 2.0, 3.0, 1.0]
    assert doubled_ranks(values) == [int(2 * r) for r in stats.rankdata(values)]


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 -> 0.06 kept monotone, 0.5 x 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_wins_by_hand():
    """Task one: 3 of 4 pairs and a tie; task two: none of 2."""
    assert wins([[2.0, 3.0], [1.0]], [[1.0, 2.0], [2.0, 3.0]]) == pytest.approx((3.5 / 4 + 0) / 2)
    assert wins([[]], [[1.0]]) == 0.5


def board(**means: float) -> dict[str, list[list[float]]]:
    """Methods on three tasks with five seeds each, a point apart."""
    rng = np.random.default_rng(0)
    return {n: (mean + rng.normal(0, 1, (3, 5))).tolist() for n, mean in means.items()}


def test_a_family_is_compared_with_its_reference():
    p = against("magnitude", board(magnitude=70.0, movement=80.0, same=70.0))
    assert set(p) == {"movement", "same"}
    assert p["movement"] < 0.001 and p["same"] > 0.05


def test_the_top_group_holds_what_is_not_told_apart():
    assert top_group(board(a=80.0, b=80.2, c=60.0)) == ["a", "b"]
    assert top_group({"a": [[1.0]]}) == top_group({}) == []
    few = {"a": [[1.0, 2.0]], "b": [[3.0, 4.0]]}
    assert top_group(few) == []  # two against two can show nothing
