"""The metrics as plain functions, and as `evaluate` modules around them that need no hub.

Functions take predictions and labels and return fractions, None where a metric is undefined.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float | None]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """The fraction of equal entries."""
    return float(np.mean(predictions == labels)) if len(labels) else None


def f1(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """F1 of class 1, 2 TP / (2 TP + FP + FN); undefined if nothing is or is predicted class 1."""
    hits = int(np.sum((predictions == 1) & (labels == 1)))
    total = int(np.sum(predictions == 1) + np.sum(labels == 1))
    return 2 * hits / total if total else None


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """Matthews correlation of two classes; 0 if either side is constant, as in scikit-learn."""
    p, r = (predictions == 1).astype(float), (labels == 1).astype(float)
    spread = float(np.std(p) * np.std(r))
    return float(np.mean((p - p.mean()) * (r - r.mean()))) / spread if spread else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """Pearson's correlation; undefined if either side is constant or not finite."""
    p, r = np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float)
    p, r = p - p.mean(), r - r.mean()
    scale = float(np.sqrt((p @ p) * (r @ r)))
    return float(p @ r) / scale if scale > 0 and np.isfinite(scale) else None


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """Pearson's correlation of the ranks; ties have their mean rank."""
    return pearson(_ranks(predictions), _ranks(labels))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


@lru_cache(maxsize=100_000)
def normalise_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (the official SQuAD v1.1 script)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def answer_exact(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals one of the answers after normalising, else 0."""
    return max(float(normalise_answer(prediction) == normalise_answer(a)) for a in answers)


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """The largest F1 of word overlap with one of the answers, after normalising."""
    return max(
        _overlap(normalise_answer(prediction).split(), normalise_answer(a).split()) for a in answers
    )


def _overlap(prediction: list[str], answer: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * common / (len(prediction) + len(answer)) if common else 0.0


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Mean of `answer_exact` over questions (SQuAD's EM)."""
    return _mean(answer_exact, predictions, references)


def span_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Mean of `answer_f1` over questions (SQuAD's F1)."""
    return _mean(answer_f1, predictions, references)


def _mean(measure: Callable[..., float], predictions: Any, references: Any) -> float | None:
    values = [measure(p, r) for p, r in zip(predictions, references, strict=True)]
    return float(np.mean(values)) if values else None


NUMBERS: dict[str, Callable[..., float | None]] = {
    "acc": accuracy,
    "f1": f1,
    "mcc": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
TEXTS: dict[str, Callable[..., float | None]] = {"em": exact_match, "span_f1": span_f1}


@lru_cache
def module(name: str) -> Any:
    """The metric as an `evaluate.EvaluationModule`; raises ImportError without evaluate."""
    import datasets
    import evaluate

    if name in TEXTS:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
    else:
        kind = datasets.Value("int64" if name in ("acc", "f1", "mcc") else "float64")
        features = datasets.Features({"predictions": kind, "references": kind})
    function = (NUMBERS | TEXTS)[name]

    class Module(evaluate.Metric):  # type: ignore[misc]
        def _build_data_dir(self) -> str:
            """No cache folder: everything is kept in memory, and the home may be read-only."""
            return ""

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description=function.__doc__, citation="", features=features, inputs_description=""
            )

        def _compute(self, *, predictions: Any, references: Any) -> dict[str, float | None]:
            if name in NUMBERS:
                predictions, references = np.asarray(predictions), np.asarray(references)
            return {name: function(predictions, references)}

    return Module(keep_in_memory=True)


def compute(name: str, predictions: Any, references: Any) -> float | None:
    """A metric in percent, through its `evaluate` module, or directly if evaluate is not
    installed."""
    try:
        value = module(name).compute(predictions=predictions, references=references)[name]
    except ImportError:
        value = (NUMBERS | TEXTS)[name](predictions, references)
    return None if value is None or not np.isfinite(value) else 100 * value
