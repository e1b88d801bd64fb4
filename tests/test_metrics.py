"""Metrics against scikit-learn, scipy and the official SQuAD script's definition."""

import re
import string
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from tasks import metrics


@pytest.mark.parametrize("seed", range(20))
def test_metrics_of_classes_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    p, r = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    assert metrics.accuracy(p, r) == pytest.approx(sklearn.accuracy_score(r, p))
    assert metrics.f1(p, r) == pytest.approx(sklearn.f1_score(r, p))
    assert metrics.matthews(p, r) == pytest.approx(sklearn.matthews_corrcoef(r, p))


def test_matthews_of_a_constant_is_zero():
    p, r = np.ones(10, int), np.array([0, 1] * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.matthews(p, r) == sklearn.matthews_corrcoef(r, p) == 0


@pytest.mark.parametrize("seed", range(10))
def test_correlations_equal_scipy(seed):
    rng = np.random.default_rng(seed)
    p, r = rng.integers(0, 9, 40).astype(float), rng.normal(size=40)
    assert metrics.pearson(p, r) == pytest.approx(stats.pearsonr(p, r).statistic)
    assert metrics.spearman(p, r) == pytest.approx(stats.spearmanr(p, r).statistic)


def test_an_undefined_metric_is_none():
    assert metrics.pearson(np.ones(5), np.arange(5.0)) is None
    assert metrics.compute("pearson", np.ones(5), np.arange(5.0)) is None
    assert metrics.f1(np.zeros(5), np.zeros(5)) is None


def official_f1(prediction: str, truth: str) -> float:
    """The definition of the official script, by another route: precision and recall."""

    def tokens(text: str) -> list[str]:
        lowered = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", lowered).split()

    p, t = tokens(prediction), tokens(truth)
    same = sum((Counter(p) & Counter(t)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(p), same / len(t)
    return 2 * precision * recall / (precision + recall)


ANSWERS = [
    "The Norman kings",
    "norman Kings!",
    "kings",
    "Duke of  Normandy",
    "a an the",
    "",
    "10th c.",
]


@pytest.mark.parametrize("prediction", ANSWERS)
@pytest.mark.parametrize("truth", ANSWERS)
def test_answers_are_compared_as_the_official_script_does(prediction, truth):
    assert metrics.answer_f1(prediction, [truth]) == pytest.approx(official_f1(prediction, truth))


def test_exact_match_takes_the_best_answer():
    assert metrics.answer_exact("the Norman  kings.", ["x", "norman kings"]) == 1.0
    assert metrics.exact_match(["a cat", "dog"], [["cat"], ["cats", "cat"]]) == 0.5
    assert metrics.span_f1(["big cat"], [["dog", "cat"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", [*metrics.NUMBERS, *metrics.TEXTS])
def test_evaluate_modules_give_the_same_numbers(name):
    rng = np.random.default_rng(0)
    if name in metrics.TEXTS:
        predictions, references = ["a cat", "old dog"], [["cat"], ["dog", "dogs"]]
    elif name in ("pearson", "spearman"):
        predictions, references = rng.normal(size=9), rng.normal(size=9)
    else:
        predictions, references = rng.integers(0, 2, 30), rng.integers(0, 2, 30)
    plain = (metrics.NUMBERS | metrics.TEXTS)[name](predictions, references)
    module = metrics.module(name)
    assert module.compute(predictions=predictions, references=references)[name] == pytest.approx(
        plain
    )
    assert metrics.compute(name, predictions, references) == pytest.approx(100 * plain)


def test_without_evaluate_the_functions_are_called(monkeypatch):
    def missing(name):
        raise ImportError

    monkeypatch.setattr(metrics, "module", missing)
    assert metrics.compute("acc", np.array([1, 0]), np.array([1, 1])) == 50.0
