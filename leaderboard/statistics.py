"""Statistics over seeds, over evaluation examples and over tasks. numpy and scipy.

Two uncertainties are kept apart: that of the seeds (how a method varies when it is run again) and
that of the finite evaluation set (how the metric would vary on other examples).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy import special

CONFIDENCE = 0.95
"""Coverage of every interval."""
POWER = 0.8
MOST_SPLITS = 20_000
"""Splits of a permutation test that are all looked at; 7 against 7 seeds are 3,432."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


def sample_std(values: Sequence[float]) -> float | None:
    """The sample standard deviation (ddof = 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = fmean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def interval(values: Sequence[float]) -> Estimate | None:
    """The mean over seeds with its t interval; None for fewer than two."""
    spread = sample_std(values)
    if spread is None:
        return None
    number = len(values)
    half = _t_quantile(number - 1) * spread / math.sqrt(number)
    return Estimate(fmean(values), fmean(values) - half, fmean(values) + half)


def welch(ours: Sequence[float], others: Sequence[float]) -> Estimate | None:
    """The difference of two means with Welch's interval (unequal variances); None where either has
    fewer than two values. Without any spread the interval is the difference itself."""
    a, b = sample_std(ours), sample_std(others)
    if a is None or b is None:
        return None
    return welch_of(fmean(ours), a, len(ours), fmean(others), b, len(others))


def welch_of(m1: float, s1: float, n1: int, m2: float, s2: float, n2: int) -> Estimate:
    """Welch's interval from means, sample standard deviations and numbers."""
    v1, v2 = s1**2 / n1, s2**2 / n2
    difference, error = m1 - m2, math.sqrt(v1 + v2)
    if error == 0:
        return Estimate(difference, difference, difference)
    freedom = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))
    half = _t_quantile(freedom) * error
    return Estimate(difference, difference - half, difference + half)


def permutation_p(ours: Sequence[float], others: Sequence[float]) -> float | None:
    """Exact two-sided p of the difference of means under exchange of labels, over all splits; None
    where there are too many. 5 against 5 cannot go below 0.0079, 3 against 3 not below 0.1."""
    together, size = [*ours, *others], len(ours)
    if not ours or not others or math.comb(len(together), size) > MOST_SPLITS:
        return None
    values = np.asarray(together, dtype=np.float64)
    chosen = np.fromiter(
        (i for split in combinations(range(len(values)), size) for i in split), np.intp
    ).reshape(-1, size)
    sums = values[chosen].sum(1)
    differences = np.abs(sums / size - (values.sum() - sums) / (len(values) - size))
    observed = abs(fmean(ours) - fmean(others))
    return float((differences >= observed * (1 - 1e-9) - 1e-12).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the k-th smallest of m times m - k + 1, made
    monotone and at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def seeds_needed(difference: float, spread: float) -> int | None:
    """Seeds per arm for which a two-sided t test at 5 % finds the difference with 80 % power, both
    arms with the sample standard deviation `spread`; None if it is over 10,000."""
    if difference == 0:
        return None
    if spread == 0:
        return 2
    effect = abs(difference) / spread
    guess = 2 * ((special.ndtri((1 + CONFIDENCE) / 2) + special.ndtri(POWER)) / effect) ** 2
    if guess > 10_000:
        return None
    number = max(2, int(guess) - 3)
    while _power(effect, number) < POWER:
        number += 1
    return number


def _power(effect: float, number: int) -> float:
    """Power of the two-sided t test with `number` per arm."""
    freedom, shift = 2 * number - 2, effect * math.sqrt(number / 2)
    edge = _t_quantile(freedom)
    inside = special.nctdtr(freedom, shift, edge) - special.nctdtr(freedom, shift, -edge)
    return 1.0 - float(inside)


def _t_quantile(freedom: float) -> float:
    """Where the two-sided interval of Student's t ends."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def evaluation_error(correct: np.ndarray) -> float:
    """Standard error in points of an accuracy due to the finite evaluation set; `correct` (seeds,
    examples) as booleans, averaged over seeds first."""
    each = correct.mean(0)
    return 100 * float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else math.nan


@dataclass(frozen=True)
class Paired:
    """A difference in points over the same examples, its interval and p."""

    difference: Estimate
    p: float


def paired_examples(ours: np.ndarray, others: np.ndarray) -> Paired:
    """The difference of accuracies over the same examples and seeds, (seeds, examples) booleans.

    One seed: McNemar's exact test over the examples on which the two disagree. Several: each
    example's difference is averaged over seeds and the mean tested against its standard error over
    examples, to which the bootstrap over examples tends. Says nothing about other seeds.
    """
    each = ours.astype(np.float64).mean(0) - others.astype(np.float64).mean(0)
    value = float(each.mean())
    error = float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else 0.0
    half = float(special.ndtri((1 + CONFIDENCE) / 2)) * error
    estimate = Estimate(100 * value, 100 * (value - half), 100 * (value + half))
    if len(ours) == 1:
        won, lost = int((each > 0).sum()), int((each < 0).sum())
        p = min(1.0, 2 * float(special.bdtr(min(won, lost), won + lost, 0.5)))
    else:
        p = float(2 * special.ndtr(-abs(value) / error)) if error else float(value == 0)
    return Paired(estimate, p)


@dataclass(frozen=True)
class Across:
    """Aggregates of a method's metrics over several tasks: mean, interquartile mean, and the
    probability of beating the reference on a task, each with the interval of the stratified
    bootstrap."""

    mean: Estimate
    interquartile: Estimate
    improvement: Estimate | None


def across_tasks(
    ours: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]] | None = None,
    *,
    resamples: int = 2000,
) -> Across:
    """Aggregates over tasks with the stratified bootstrap: seeds are drawn anew within each task
    (Agarwal et al. 2021). The probability of improvement is the mean over tasks of P(ours > theirs)
    over pairs of seeds, ties counting half. Draws are the same every time."""
    rng = np.random.default_rng(0)
    tasks = sorted(ours)
    drawn = [_resampled(ours[task], resamples, rng) for task in tasks]
    means = np.stack([one.mean(1) for one in drawn]).mean(0)
    quartiles = interquartile_mean(np.concatenate(drawn, axis=1))
    improvement = None
    if reference is not None:
        theirs = [_resampled(reference[task], resamples, rng) for task in tasks]
        wins = [_wins(a, b) for a, b in zip(drawn, theirs, strict=True)]
        own = [
            _wins(np.asarray([ours[t]], float), np.asarray([reference[t]], float)) for t in tasks
        ]
        improvement = _percentiles(float(np.mean(own)), np.stack(wins).mean(0))
    everything = np.concatenate([np.asarray(ours[task], float) for task in tasks])[None]
    return Across(
        _percentiles(fmean([fmean(list(ours[task])) for task in tasks]), means),
        _percentiles(float(interquartile_mean(everything)[0]), quartiles),
        improvement,
    )


def interquartile_mean(rows: np.ndarray) -> np.ndarray:
    """The mean of the middle half of each row (a quarter trimmed at each end)."""
    cut = rows.shape[1] // 4
    middle: np.ndarray = np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(1)
    return middle


def _resampled(values: Sequence[float], times: int, rng: np.random.Generator) -> np.ndarray:
    """(times, seeds): the values drawn with replacement."""
    found = np.asarray(values, dtype=np.float64)
    return found[rng.integers(0, len(found), (times, len(found)))]


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """P(ours > theirs) over pairs of columns, per row; ties count half."""
    a, b = ours[:, :, None], theirs[:, None, :]
    return ((a > b) + 0.5 * (a == b)).mean((1, 2))


def _percentiles(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
