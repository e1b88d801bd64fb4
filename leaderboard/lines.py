"""Lines of figures: dots over remaining weights, and curves over steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from leaderboard.compare import least_of
from leaderboard.looks import PLAIN, Look
from leaderboard.statistics import sample_std
from zoo.records.result import Point, Result


@dataclass(frozen=True)
class Dot:
    """A mean over seeds: measured remaining weights in percent, the metric, and one standard
    deviation on both sides of it, within the metric's range."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A method's dots on one task, by remaining weights, at its targets, and those of runs over a
    target, which no line joins to the others."""

    name: str
    look: Look
    dots: list[Dot]
    over: list[Dot]


@dataclass(frozen=True)
class Baseline:
    """A horizontal line: a method that keeps every weight, or the constant answer."""

    name: str
    y: float


@dataclass(frozen=True)
class Quality:
    """One task's first metric against measured remaining weights; `rivals` are other checkpoints,
    a dot each at their prunable weights over those of the table's model."""

    task: str
    metric: str
    lines: Sequence[Line]
    baselines: Sequence[Baseline]
    majority: float | None
    targets: Sequence[float]
    rivals: Sequence[Line] = ()


@dataclass(frozen=True)
class Curve:
    """A method's first metric and remaining weights during training, means over seeds; `remaining`
    in [0, 1]."""

    name: str = ""
    look: Look = PLAIN
    steps: Sequence[int] = ()
    metric: Sequence[float] = ()
    remaining: Sequence[float] = ()


NO_CURVE = Curve()
"""The training of a row without evaluations."""


def dots(found: Iterable[tuple[float, float | None]], metric: str) -> list[Dot]:
    """The mean of what was kept, in [0, 1], and of the metric, as one dot; none without values."""
    known = [(kept, value) for kept, value in found if value is not None]
    kept = fmean([kept for kept, _ in known]) if known else 0.0
    if not kept:  # the axis is logarithmic
        return []
    numbers = [value for _, value in known]
    y, spread = fmean(numbers), sample_std(numbers) or 0.0
    low, high = max(y - spread, least_of(metric)), min(y + spread, 100.0)
    return [Dot(100 * kept, y, low, high)]


def curve(name: str, look: Look, results: Sequence[Result], metric: str) -> Curve:
    """Means over seeds at each evaluation that has the metric."""
    points: dict[int, list[Point]] = {}
    for result in results:
        for point in result.curve:
            if point.metrics.get(metric) is not None:
                points.setdefault(point.step, []).append(point)
    steps = sorted(points)
    shown = [fmean([v for p in points[s] if (v := p.metrics[metric]) is not None]) for s in steps]
    kept = [fmean([p.remaining for p in points[step]]) for step in steps]
    return Curve(name, look, steps, shown, kept)
