"""The crossed bootstrap: metrics under weights against repeated examples, intervals by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from leaderboard.answers import answers_of
from leaderboard.crossed import DRAWS, METRICS, crossed, weights
from tasks.metrics import f1, matthews, pearson, spearman
from tests.helpers import a_result
from zoo.engine.measure import answers
from zoo.records.arrays import Answers
from zoo.records.packed import pack_bits, pack_classes, pack_values, unpack_classes
from zoo.registry import tasks


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


def logits_of(task, encoded, rng) -> np.ndarray:
    """Answers of a mediocre model."""
    if task.labels:
        right = np.eye(len(task.labels))[encoded.labels]
        return (right + rng.normal(0, 0.8, right.shape)).astype(np.float32)
    return (encoded.labels + rng.normal(0, 1.0, len(encoded.labels)))[:, None].astype(np.float32)


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb", "sst2", "mnli"])
def test_the_stored_answers_give_the_metric(name):
    """From a task's own evaluation to a result, and back to every metric that it has."""
    task, rng = tasks[name].make(), np.random.default_rng(0)
    classes = len(task.labels)
    labels = rng.integers(0, classes, 300) if classes else rng.random(300) * 5
    encoded = SimpleNamespace(labels=labels)
    split = task.evaluation[0]
    found = task.evaluate(split, logits_of(task, encoded, rng), encoded)
    correct = {} if found.correct is None else {split: pack_bits(found.correct)}
    packed = answers(task, {split: found}, {split: encoded})
    result = a_result(metrics=found.metrics, correct=correct, answers=packed)
    for metric, value in found.metrics.items():
        (one,), by = answers_of([result], metric)
        whole = np.full((1, 300), 1 / 300)
        close = 0.02 if name == "stsb" else 1e-9  # values are stored with three digits
        assert METRICS[by](one, whole)[0] == pytest.approx(value, abs=close), metric


def test_overlaps_of_texts_give_their_mean():
    overlap = np.random.default_rng(0).random(200)
    stored = {"validation": Answers("overlap", pack_values(overlap))}
    result = a_result(metrics={"em": 3.0, "f1": 100 * overlap.mean()}, answers=stored, correct={})
    (one,), by = answers_of([result], "f1")
    assert by == "mean" and 100 * one.mean() == pytest.approx(100 * overlap.mean(), abs=0.01)
    assert answers_of([result], "em") == ([], "mean")


@pytest.mark.parametrize("number", [1, 2, 3, 200])
def test_classes_come_back(number):
    classes = np.random.default_rng(1).integers(0, number, 77)
    assert np.array_equal(unpack_classes(pack_classes(classes)), classes)


def test_a_correlation_has_its_own_interval():
    """Accuracy would say half as much: the metric itself is computed anew."""
    rng = np.random.default_rng(3)
    truth = (rng.random(1043) < 0.7).astype(float)
    makers = ((0.75, "ours"), (0.6, "theirs"))
    made = {
        n: [np.stack([np.where(rng.random(1043) < p, truth, 1 - truth), truth]) for _ in range(5)]
        for p, n in makers
    }
    found = crossed(made["ours"], made["theirs"], "mcc")
    plain = crossed([a[0] == a[1] for a in made["ours"]], [a[0] == a[1] for a in made["theirs"]])
    assert found.high - found.low > 1.5 * (plain.high - plain.low)
