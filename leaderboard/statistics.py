"""Intervals and effect sizes over seeds, evaluation examples and tasks. numpy and scipy.

Two uncertainties add up: that of the seeds (how a method varies when it is run again) and that of
the finite evaluation set (how a metric would vary on other examples). docs/statistics.md shows how
often each interval covers the truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import special

CONFIDENCE = 0.95
"""Coverage of every interval."""
POWER = 0.8
CORRELATIONS = ("mcc", "pearson", "spearman")
"""Metrics in [-100, 100]; all others are in [0, 100]."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def within(self, low: float, high: float) -> "Estimate":
        """The interval without what lies outside a metric's range."""
        return Estimate(self.value, max(self.low, low), min(self.high, high))


def sample_std(values: Sequence[float]) -> float | None:
    """The sample standard deviation (ddof = 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = fmean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def interval(values: Sequence[float], examples: Estimate | None = None) -> Estimate | None:
    """The mean over seeds with its t interval; None for fewer than two.

    `examples` is the interval of the same mean over examples, if it is known: both errors add up,
    each side by itself, as squares.
    """
    spread = sample_std(values)
    if spread is None:
        return None
    centre = fmean(values)
    half = t_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    down = up = half
    if examples is not None:
        down = math.hypot(half, examples.value - examples.low)
        up = math.hypot(half, examples.high - examples.value)
    return Estimate(centre, centre - down, centre + up)


def of_examples(correct: np.ndarray) -> Estimate:
    """The mean over seeds of the percentage of correct answers, (seeds, examples), with an interval
    over other examples: Clopper and Pearson's, scaled by how much less the mean over seeds varies
    between examples than one seed does; 1,000 of 1,000 right answers are 99.63 to 100."""
    each = correct.mean(0)
    number, value = len(each), float(each.mean())
    right = value * number
    low = special.betaincinv(right, number - right + 1, (1 - CONFIDENCE) / 2) if right else 0.0
    rest = number - right
    high = special.betaincinv(right + 1, rest, (1 + CONFIDENCE) / 2) if rest else 1.0
    of_one = value * (1 - value)
    share = math.sqrt(float(each.var()) / of_one) if of_one else 1.0
    shrunk = value - (value - low) * share, value + (high - value) * share
    return Estimate(100 * value, 100 * shrunk[0], 100 * shrunk[1])


def welch(ours: Sequence[float], others: Sequence[float]) -> Estimate | None:
    """The difference of two means with Welch's interval (unequal variances); None where either has
    fewer than two values. Without any spread the interval is the difference itself."""
    return difference_over_tasks([ours], [others])


def difference_over_tasks(
    ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> Estimate | None:
    """The difference of two means over the same tasks, each a mean over seeds, with an interval:
    the variances of all tasks' means add up, with Welch and Satterthwaite's degrees of freedom.
    None without tasks, or where a task has fewer than two values of either."""
    found = _error(ours, others)
    if found is None:
        return None
    value, error, freedom = found
    half = t_quantile(freedom) * error if error else 0.0
    return Estimate(value, value - half, value + half)


def smallest_difference(
    ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> float | None:
    """The smallest difference that the interval of `difference_over_tasks` would tell from 0 with
    80 % power, given these spreads and numbers of seeds."""
    found = _error(ours, others)
    if found is None:
        return None
    _, error, freedom = found
    return (t_quantile(freedom) + float(special.stdtrit(freedom, POWER))) * error if error else 0.0


def _error(
    ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> tuple[float, float, float] | None:
    """The difference of the means over tasks, its standard error and degrees of freedom."""
    pairs = list(zip(ours, others, strict=True))
    if not pairs or any(len(values) < 2 for pair in pairs for values in pair):
        return None
    value = fmean(fmean(a) - fmean(b) for a, b in pairs)
    parts = [(float(np.var(v, ddof=1)) / len(v), len(v) - 1) for pair in pairs for v in pair]
    total, freedom = pooled(parts)
    return value, math.sqrt(total) / len(pairs), freedom


def pooled(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The sum of variances, given with their degrees of freedom, and its degrees of freedom by
    Welch and Satterthwaite; infinite without any variance."""
    total = math.fsum(part for part, _ in parts)
    below = math.fsum(part**2 / free for part, free in parts)
    return total, total**2 / below if below else math.inf


def mean_over_tasks(values: Sequence[Sequence[float]]) -> Estimate | None:
    """The mean over tasks of the means over seeds, with its interval; None as in
    `difference_over_tasks`."""
    return difference_over_tasks(values, [(0.0, 0.0)] * len(values))


def t_quantile(freedom: float) -> float:
    """Where the two-sided interval of Student's t ends."""
    if math.isinf(freedom):
        return float(special.ndtri((1 + CONFIDENCE) / 2))
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def is_collapsed(value: float, constant: float, examples: int, *, proportion: bool) -> bool:
    """Whether a metric in percent is not above that of the best constant answer, `constant`, beyond
    what this number of examples gives by chance (one-sided, 5 %): by the binomial distribution for
    a proportion of correct answers, else with the standard error 100 / sqrt(examples) of a
    correlation."""
    if not proportion:
        return value <= constant + float(special.ndtri(CONFIDENCE)) * 100 / math.sqrt(examples)
    right = round(value / 100 * examples)
    return bool(special.bdtrc(right - 1, examples, constant / 100) > 1 - CONFIDENCE)


def mcnemar_p(ours: np.ndarray, others: np.ndarray) -> float:
    """Two-sided exact p of two models on the same examples, each a row of booleans (McNemar): says
    nothing about other seeds."""
    won, lost = int((ours & ~others).sum()), int((~ours & others).sum())
    return min(1.0, 2 * float(special.bdtr(min(won, lost), won + lost, 0.5)))
