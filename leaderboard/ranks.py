"""The primary test: is a method shifted in rank against another, over all tasks together? numpy.

Within each task the values of both methods are ranked together, ties sharing their mean rank. The
statistic adds up the rank sums of one method, each divided by the number of its task's values plus
1 (van Elteren 1960). Under the null hypothesis every split of a task's ranks into two groups of
these sizes is equally likely, independently by task, so p is exact, ties and unequal numbers of
seeds included. A collapsed seed counts as one low rank, however low its value is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean

import numpy as np

ALPHA = 0.05
"""Family-wise error of every verdict."""
GRID = 1e-4
"""Resolution of the statistic; ties within it count as equal."""

Values = Sequence[Sequence[float]]
"""The values of a method, by task and seed."""


def rank_p(ours: Values, theirs: Values) -> float:
    """Exact two-sided p of the blocked rank test; the same tasks in the same order.

    Tasks where either has no value say nothing. 1 without any task.
    """
    observed, sizes = 0.0, []
    for a, b in zip(ours, theirs, strict=True):
        if a and b:
            ranks = doubled_ranks([*a, *b])
            observed += sum(ranks[: len(a)]) / (len(ranks) + 1)
            sizes.append((tuple(sorted(ranks)), len(a)))
    if not sizes:
        return 1.0
    sums, chances = _null(tuple(sizes))
    centre = sum(size * sum(ranks) / len(ranks) / (len(ranks) + 1) for ranks, size in sizes)
    far = np.abs(sums - centre) >= abs(observed - centre) - 2 * GRID
    return min(1.0, float(chances[far].sum()))


def shift(ours: Values, theirs: Values) -> float:
    """Which way the test's statistic lies from what equal methods give: positive if ours is higher
    in ranks. Tasks count by what their numbers of seeds can say, unlike in `wins`."""
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a and b:
            ranks = doubled_ranks([*a, *b])
            total += (sum(ranks[: len(a)]) - len(a) * sum(ranks) / len(ranks)) / (len(ranks) + 1)
    return total


def wins(ours: Values, theirs: Values) -> float:
    """The probability that a seed of ours is above a seed of theirs on the same task, ties counting
    half, averaged over the tasks that both have: what the rank test tests against 1/2."""
    each = [
        fmean((x > y) + 0.5 * (x == y) for x in a for y in b)
        for a, b in zip(ours, theirs, strict=True)
        if a and b
    ]
    return fmean(each) if each else 0.5


def smallest_p(numbers: Iterable[tuple[int, int]]) -> float:
    """The smallest p that the test can give, with these numbers of seeds (ours, theirs) by task:
    .1 for 3 against 3 on one task, .0079 for 5 against 5, .00025 for 3 against 3 on three.

    Without ties one split has all of ours on top everywhere, and one all of theirs.
    """
    return min(1.0, 2 / math.prod(math.comb(ours + theirs, ours) for ours, theirs in numbers))


def doubled_ranks(values: Sequence[float] | np.ndarray) -> list[int]:
    """Twice the rank of each value, from 2; ties have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return [int(rank) for rank in (2 * last - counts + 1)[inverse]]


@lru_cache(maxsize=256)
def _null(blocks: tuple[tuple[tuple[int, ...], int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """The statistic under the null hypothesis: its values and their probabilities."""
    sums: np.ndarray = np.zeros(1)
    chances: np.ndarray = np.ones(1)
    for ranks, size in blocks:
        ways = _splits(ranks, size)
        possible = np.flatnonzero(ways)
        joined = sums[:, None] + (possible / (len(ranks) + 1))[None, :]
        weights = chances[:, None] * (ways[possible] / ways.sum())[None, :]
        steps, inverse = np.unique(np.rint(joined.ravel() / GRID), return_inverse=True)
        sums, chances = steps * GRID, np.bincount(inverse.ravel(), weights.ravel())
    return sums, chances


@lru_cache(maxsize=1024)
def _splits(ranks: tuple[int, ...], size: int) -> np.ndarray:
    """By sum, the number of ways to choose so many of the doubled ranks."""
    ways = np.zeros((size + 1, sum(ranks) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    chosen: np.ndarray = ways[size]
    return chosen


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the k-th smallest of m times m - k + 1, made
    monotone and at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def against(reference: str, values: Mapping[str, Values]) -> dict[str, float]:
    """Holm's adjusted p of each method against the reference, which has none."""
    names = [name for name in values if name != reference]
    found = [rank_p(values[name], values[reference]) for name in names]
    return dict(zip(names, holm(found), strict=True))


def top_group(values: Mapping[str, Values]) -> list[str]:
    """The methods that are not shown worse than the one with the highest mean over tasks, in the
    order given; empty where nothing could be shown.

    A method is shown worse if the shift is downwards and its p of the rank test against the best,
    times the number of all pairs of methods, is at most 5 %: which one is best is known only
    afterwards, so that any pair might have been compared. A method with so few seeds that no p
    could be that small is in no group.
    """
    means = {name: fmean(fmean(v) for v in found) for name, found in values.items() if all(found)}
    if len(means) < 2:
        return []
    best = max(means, key=lambda name: means[name])
    pairs = len(means) * (len(means) - 1) / 2
    others = [
        name
        for name in means
        if name != best and pairs * smallest_p(_sizes(values[name], values[best])) <= ALPHA
    ]

    def worse(name: str) -> bool:
        p = pairs * rank_p(values[name], values[best])
        return p <= ALPHA and shift(values[name], values[best]) < 0

    group = {best, *(name for name in others if not worse(name))} if others else set()
    return [name for name in means if name in group]


def _sizes(ours: Values, theirs: Values) -> list[tuple[int, int]]:
    return [(len(a), len(b)) for a, b in zip(ours, theirs, strict=True)]
