"""Evaluate a run: its metrics now, the best that it had, and those of a constant answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.engine.build import Run
from zoo.engine.frozen import predict
from zoo.errors import TrialError, unknown
from zoo.inputs.batches import Encoded
from zoo.inputs.task import Evaluation, Task
from zoo.records.result import Best, Metrics, Point


def _checked(task: Task, metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics as plain numbers. Raises TrialError for one that is not among the task's, or that
    is neither a percentage, from -100 to 100, nor None."""
    found: dict[str, float | None] = {}
    for name, value in metrics.items():
        if name not in task.metrics:
            raise TrialError(unknown(f"metric of task {task.name}", name, task.metrics))
        if value is None:
            found[name] = None
        elif isinstance(value, float | int | np.number) and abs(value) < 100.001:  # rounding
            found[name] = float(value)
        else:
            raise TrialError(
                f"task {task.name}: {name} must be a percentage, from -100 to 100, or None where it"
                f" is undefined; got {value!r:.40}"
            )
    return found


def evaluate(
    run: Run, level: float | None
) -> tuple[dict[str, float | None], dict[str, Evaluation]]:
    """Metrics by name, and evaluations by split, with the current masks, which were made at
    `level`.

    Raises TrialError if the masks keep more weights than the method may, and for a metric that is
    not among the task's.
    """
    run.masked.check_budget(level)
    with run.masked.evaluating():
        return metrics_of(run.task, run.network, run.data.evaluation)


def metrics_of(
    task: Task, network: Any, splits: Mapping[str, Encoded]
) -> tuple[dict[str, float | None], dict[str, Evaluation]]:
    """Metrics by name, and evaluations by split, of a network as it is. Raises TrialError for a
    metric that is not among the task's."""
    metrics: dict[str, float | None] = {}
    by_split: dict[str, Evaluation] = {}
    for split, data in splits.items():
        found = task.evaluate(split, predict(network, data)["logits"], data)
        metrics |= _checked(task, found.metrics)
        by_split[split] = found
    return metrics, by_split


def shares(found: Mapping[str, Evaluation]) -> dict[str, str]:
    """By split the first metric that is the percentage of right answers, where one is."""
    named: dict[str, str] = {}
    for split, one in found.items():
        if one.correct is not None and len(one.correct):
            right = 100 * float(np.mean(one.correct))
            equal = [n for n, v in one.metrics.items() if v is not None and abs(v - right) < 1e-6]
            if equal:
                named[split] = equal[0]
    return named


def best_of(names: Sequence[str], curve: Sequence[Point]) -> Best:
    """The best evaluation by the first of these metrics among those with the last one's level and
    density."""
    last = curve[-1] if curve else None
    final = [
        p
        for p in curve
        if last and p.level == last.level and abs(p.remaining - last.remaining) < 0.01
    ]
    defined = {p.step: (value, p) for p in final if (value := p.metrics.get(names[0])) is not None}
    if not defined:
        return Best(0, None, dict.fromkeys(names))
    _, best = max(defined.values(), key=lambda pair: pair[0])
    return Best(len(defined), best.step, {name: best.metrics.get(name) for name in names})


def best_constant(task: Task, splits: Mapping[str, Encoded]) -> Metrics:
    """Each metric of the constant answer that is best by it: always the same class. {} without
    classes."""
    found: dict[str, float | None] = {}
    for number in range(len(task.labels)):
        answer = np.eye(len(task.labels), dtype=np.float32)[number]
        for split, data in splits.items():
            same = np.tile(answer, (len(data), 1))
            for name, value in task.evaluate(split, same, data).metrics.items():
                before = found.get(name)
                if value is not None and (before is None or value > before):
                    found[name] = value
    return found
