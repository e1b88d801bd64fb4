"""The crossed bootstrap: metrics under weights against repeated examples, intervals by hand."""

import numpy as np
import pytest

from leaderboard.crossed import DRAWS, METRICS, crossed, weights
from tasks.metrics import f1, matthews, pearson, spearman


def drawn(answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Answers and truths with every example as often as it was drawn."""
    return np.repeat(answers, counts, axis=1)


@pytest.mark.parametrize(("name", "metric"), [("f1", f1), ("mcc", matthews), ("pearson", pearson)])
def test_a_metric_under_weights_is_the_metric_of_the_drawn_examples(name, metric):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    said = np.where(rng.random(60) < 0.8, truth, 1 - truth)
    answers = np.stack([said, truth]).astype(float)
    if name == "pearson":
        answers = np.stack([truth + rng.normal(0, 1, 60), truth])
    counts = np.rint(weights(60)[:5].astype(float) * 60).astype(int)
    got = METRICS[name](answers, counts / 60)
    expected = [100 * metric(*drawn(answers, c)) for c in counts]
    assert got == pytest.approx(expected, abs=1e-6)


def test_ranks_are_those_of_all_examples():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 5, (2, 40)).astype(float)
    whole = METRICS["spearman"](answers, np.full((1, 40), 1 / 40))[0]
    assert whole == pytest.approx(100 * spearman(*answers))


def test_the_draws_are_bootstrap_samples():
    found = weights(50)
    assert found.shape == (DRAWS, 50) and found.sum(1) == pytest.approx(np.ones(DRAWS), abs=1e-5)
    assert np.var(50 * found, axis=0).mean() == pytest.approx(1 - 1 / 50, abs=0.05)


def test_seeds_and_examples_both_widen_the_interval():
    """Against a bootstrap written down directly, and against each source of variance alone."""
    rng = np.random.default_rng(2)
    hard = rng.random(400)
    ours = [(hard < level) for level in (0.9, 0.8, 0.85, 0.7)]
    theirs = [(hard < level) ^ (rng.random(400) < 0.1) for level in (0.75, 0.7, 0.72, 0.74)]
    found = crossed(ours, theirs)
    a, b = np.stack(ours).astype(float), np.stack(theirs).astype(float)
    direct = []
    for _ in range(4000):
        rows, one, other = (rng.integers(0, n, n) for n in (400, 4, 4))
        direct.append(100 * (a[one][:, rows].mean() - b[other][:, rows].mean()))
    low, high = np.quantile(direct, [0.025, 0.975])
    assert found.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.6)
    alone = 1.96 * 100 * (a.mean(0) - b.mean(0)).std() / 20
    assert found.high - found.low > 2 * alone


def test_other_examples_cannot_be_compared():
    assert crossed([np.ones(10)], [np.ones(11)]) is None
    assert crossed([], [np.ones(10)]) is None
