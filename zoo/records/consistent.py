"""What the parts of one result say about each other. A result that contradicts itself is refused:
nobody knows which part is right."""

import math
from collections.abc import Callable, Mapping

from zoo.records.arrays import right_of
from zoo.records.result import Result

ROUNDING = 1e-6
"""Fractions and percentages that differ by no more are equal."""


def check_consistent(result: Result) -> None:
    """Raise ValueError, with the field and both numbers, if two parts of a result contradict each
    other by more than rounding."""
    for check in CHECKS:
        check(result)


def _remaining(result: Result) -> None:
    """Every count of weights agrees with those of the matrices."""
    matrices = result.remaining.matrices.values()
    kept, total = sum(m.kept for m in matrices), sum(m.total for m in matrices)
    if not total:
        raise ValueError("remaining.matrices has no matrix")
    counted = f"remaining.matrices keep {kept} of {total}, which is"
    _agree("remaining.density", result.remaining.density, counted, kept / total)
    if result.distribution is not None:
        counted = "that of remaining.matrices is"
        _agree("the sum of distribution.kept", sum(result.distribution.kept), counted, kept)
        _agree("the sum of distribution.all", sum(result.distribution.all), counted, total)


def _parameters(result: Result) -> None:
    """New parameters and bytes are what their definitions say."""
    p = result.parameters
    parts = "values, other and mask_bits make"
    _agree("parameters.new", p.new, parts, p.values + p.other + math.ceil(p.mask_bits / 32))
    size = 4 * (p.values + p.other) + math.ceil(p.mask_bits / 8)
    _agree("parameters.artifact_bytes", p.artifact_bytes, parts, size)


def _steps(result: Result) -> None:
    """No more steps were taken than planned, and no more planned than the recipe has."""
    steps = result.steps
    if not 0 <= steps.taken <= steps.planned <= steps.recipe:
        said = f"{steps.taken} taken, {steps.planned} planned, {steps.recipe} of the recipe"
        raise ValueError(f"steps must rise from taken to recipe, got {said}")


def _examples(result: Result) -> None:
    """The share of right answers is the metric that is said to be it, and every example has an
    answer."""
    for split, text in result.correct.items():
        number, right = right_of(text, f"correct.{split}")
        name = result.shares.get(split, "")
        metric = result.metrics.get(name)
        if number and metric is not None:
            counted = f"correct.{split} has {right} right of {number}, which is"
            _agree(f"metrics.{name}", metric, counted, 100 * right / number)
        answers = result.answers.get(split)
        if answers is not None and answers.number is not None:
            _agree(
                f"the number of answers.{split}",
                answers.number,
                f"that of correct.{split} is",
                number,
            )


def _curve(result: Result) -> None:
    """Evaluations come one after another; the last is the result of a trial that trained to its
    end, and the best is among them."""
    steps = [point.step for point in result.curve]
    if steps != sorted(set(steps)):
        raise ValueError("the steps of curve must rise")
    if result.ok and result.curve:
        last = result.curve[-1]
        _agree("steps.taken", result.steps.taken, "curve ends at", last.step)
        _agree("remaining.density", result.remaining.density, "curve ends at", last.remaining)
        _same_metrics("metrics", result.metrics, "curve ends at", last.metrics)
    best = result.best
    if best.step is not None and result.curve:
        found = [point.metrics for point in result.curve if point.step == best.step]
        if not found:
            raise ValueError(f"best.step is {best.step}, but curve has no evaluation there")
        _same_metrics("best.metrics", best.metrics, f"curve at step {best.step} has", found[0])


Metrics = Mapping[str, float | None]


def _same_metrics(what: str, own: Metrics, where: str, others: Metrics) -> None:
    for name in dict.fromkeys((*own, *others)):
        _agree(f"{what}.{name}", own.get(name), where, others.get(name))


def _agree(what: str, value: float | None, source: str, counted: float | None) -> None:
    """Raise ValueError unless two numbers are equal, or both are undefined."""
    if value is None or counted is None:
        equal = value is counted
    else:
        equal = abs(value - counted) <= ROUNDING
    if not equal:
        numbers = ["none" if one is None else f"{one:.10g}" for one in (value, counted)]
        raise ValueError(f"{what} is {numbers[0]}, but {source} {numbers[1]}")


CHECKS: tuple[Callable[[Result], None], ...] = (_remaining, _parameters, _steps, _examples, _curve)
