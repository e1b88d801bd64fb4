"""Differences over other seeds and other examples at once: the crossed bootstrap. numpy.

Seeds are drawn anew for each method and examples once for both, so that the two sources of variance
add up and what both methods find hard cancels out. The metric itself is computed anew on every
draw: it is given by sums over examples, so that a draw is a weighting of the examples.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from leaderboard.ranks import doubled_ranks
from leaderboard.statistics import CONFIDENCE, Estimate

DRAWS = 1000
Answers = np.ndarray
"""What one seed answered, by example: (N,) values of which the metric is the mean, or (2, N) pairs
of answer and truth."""


@lru_cache(maxsize=8)
def weights(examples: int) -> np.ndarray:
    """(DRAWS, N): how often each example is drawn, over N; the same at every call."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(examples, np.full(examples, 1 / examples), DRAWS)
    return (drawn / examples).astype(np.float32)


def crossed(
    ours: Sequence[Answers], theirs: Sequence[Answers], metric: str = "mean"
) -> Estimate | None:
    """The difference of the means over seeds, in the metric's percent, with the interval of the
    crossed bootstrap; None without seeds, or for other numbers of examples.

    The metric is one of METRICS. With few seeds the interval is too narrow: docs/statistics.md.
    """
    lengths = {answers.shape[-1] for answers in (*ours, *theirs)}
    if not ours or not theirs or len(lengths) != 1:
        return None
    draws = weights(lengths.pop())
    rng = np.random.default_rng(1)
    drawn = _seeds(ours, metric, draws, rng) - _seeds(theirs, metric, draws, rng)
    value = _plain(ours, metric) - _plain(theirs, metric)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))


def _seeds(
    found: Sequence[Answers], metric: str, draws: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(DRAWS,): the mean over drawn seeds of the metric on the drawn examples."""
    each = np.stack([METRICS[metric](answers, draws) for answers in found])
    chosen = rng.integers(0, len(found), (len(found), DRAWS))
    mean: np.ndarray = np.take_along_axis(each, chosen, 0).mean(0)
    return mean


def _plain(found: Sequence[Answers], metric: str) -> float:
    """The mean over seeds of the metric on all examples."""
    once = np.full((1, found[0].shape[-1]), 1 / found[0].shape[-1])
    return float(np.mean([METRICS[metric](answers, once)[0] for answers in found]))


def _mean(answers: Answers, draws: np.ndarray) -> np.ndarray:
    return 100 * (draws @ answers.astype(draws.dtype))


def _f1(answers: Answers, draws: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) of class 1; 0 where it is not defined."""
    said, truth = answers == 1
    hits = draws @ (said & truth).astype(draws.dtype)
    total = draws @ (said.astype(draws.dtype) + truth)
    return 100 * np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def _correlation(answers: Answers, draws: np.ndarray) -> np.ndarray:
    """Pearson's correlation, for two classes Matthews'; 0 where one side is constant."""
    x, y = (side - side.mean() for side in answers.astype(np.float64))
    mx, my, xx, yy, xy = (draws @ column for column in (x, y, x * x, y * y, x * y))
    scale = np.sqrt(np.maximum((xx - mx * mx) * (yy - my * my), 0))
    whole = math.sqrt(float(x @ x) * float(y @ y)) / len(x)
    defined = scale > 1e-9 * whole
    return 100 * np.divide(xy - mx * my, scale, out=np.zeros_like(scale), where=defined)


def _ranked(answers: Answers, draws: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks among all examples, which a draw does not change."""
    return _correlation(np.array([doubled_ranks(side) for side in answers]), draws)


METRICS: dict[str, Callable[[Answers, np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "f1": _f1,
    "mcc": _correlation,
    "pearson": _correlation,
    "spearman": _ranked,
}
"""(answers, weights of the examples) -> the metric in percent, by name."""
