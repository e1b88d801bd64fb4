"""What results say about single examples, in the form that statistics over examples need."""

from collections.abc import Sequence

import numpy as np

from leaderboard.crossed import METRICS
from leaderboard.tables import values
from leaderboard.targets import bits_of
from zoo.records.arrays import Answers
from zoo.records.packed import unpack_bits, unpack_classes, unpack_values
from zoo.records.result import Result

NO_BITS = np.zeros((0, 0), bool)


def bits(results: Sequence[Result], metric: str) -> np.ndarray:
    """Whether each example of the first evaluation set was answered correctly, (seeds, examples);
    empty unless the metric is the fraction of correct answers (accuracy, exact match)."""
    rows = [found for result in results if (found := bits_of(result)) is not None]
    shown = values(results, metric)
    if len(rows) != len(shown) or not rows or len({len(row) for row in rows}) > 1:
        return NO_BITS
    found = np.stack(rows)
    return found if np.allclose(100 * found.mean(1), shown, atol=1e-6, rtol=0) else NO_BITS


def answers_of(results: Sequence[Result], metric: str) -> tuple[list[np.ndarray], str]:
    """What `crossed` needs to compute a metric on other examples: for each result the answers, and
    the way that they give the metric. No answers where results do not have them."""
    right = bits(results, metric)
    if right.size:
        return list(right), "mean"
    found = [_answers(r, metric) for r in results]
    known = [answers for answers in found if answers is not None]
    by = "mean" if known and known[0].ndim == 1 else metric
    return (known, by) if len(known) == len(found) and by in METRICS else ([], "mean")


def _answers(result: Result, metric: str) -> np.ndarray | None:
    """Answers and truths of the first split, (2, N), or the F1 of each answer, (N,)."""
    split = next(iter(sorted(result.answers)), "")
    answers = result.answers.get(split)
    if answers is None:
        return None
    found = _unpacked(result, answers, split, metric)
    return found if found is not None and np.isfinite(found).all() else None


def _unpacked(result: Result, answers: Answers, split: str, metric: str) -> np.ndarray | None:
    if answers.kind == "overlap" and metric == "f1":
        return unpack_values(answers.said)
    if answers.kind == "values" and metric in ("pearson", "spearman"):
        return np.stack([unpack_values(answers.said), unpack_values(answers.truth)])
    if answers.kind == "classes" and metric in ("f1", "mcc") and split in result.correct:
        said, right = unpack_classes(answers.said), unpack_bits(result.correct[split])
        if said.max(initial=0) <= 1:  # two classes: the wrong one is the other
            return np.stack([said, np.where(right, said, 1 - said)]).astype(np.float64)
    return None
