"""What the strip chart shows: every seed of every method, task by task and over all tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from leaderboard.collect import RowKey, Table
from leaderboard.lines import Baseline
from leaderboard.looks import COLOURS, MARKS, Look
from leaderboard.series import Series
from leaderboard.tables import values
from leaderboard.targets import at_target


@dataclass(frozen=True)
class Strip:
    """A method in a panel: by target in percent, the metric of each seed that can be read there,
    and of each run over it."""

    name: str
    seeds: Mapping[float, Sequence[float]]
    over: Mapping[float, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """One task's first metric, or the mean over tasks, seed by seed: methods sorted by their mean
    at the lowest target; the best constant answer, and methods that keep every weight."""

    title: str
    strips: Sequence[Strip]
    constant: float | None
    baselines: Sequence[Baseline]


def targets_of(panels: Sequence[Panel]) -> list[float]:
    """The targets of all panels in percent, descending."""
    return sorted({t for p in panels for s in p.strips for t in s.seeds}, reverse=True)


def target_look(number: int) -> Look:
    """The look of a target's seeds: marks differ in black and white."""
    return Look(number % len(COLOURS), MARKS[number % len(MARKS)])


def range_of(panel: Panel) -> tuple[float, float]:
    """Round numbers around everything that a panel shows, at most 100."""
    parts = [found for s in panel.strips for found in (*s.seeds.values(), *s.over.values())]
    seen = [value for found in parts for value in found]
    seen += [baseline.y for baseline in panel.baselines]
    seen += [] if panel.constant is None else [panel.constant]
    low = 10 * (min(seen, default=0.0) // 10)
    high = min(100.0, 10 * (max(seen, default=100.0) // 10 + 1))
    return low, max(high, low + 10)


Rows = Mapping[float, RowKey]
"""A method's rows, by target in percent."""


def panels_of(series: Series) -> list[Panel]:
    """A panel per task, and with several tasks one of their mean."""
    methods: dict[str, dict[float, RowKey]] = {}
    for row in series.pruned:
        methods.setdefault(row.name, {})[100 * row.density] = row
    means = {name: _mean(series, name, rows) for name, rows in methods.items()}
    order = sorted(methods, key=lambda name: _place(means[name].seeds), reverse=True)
    panels = [
        Panel(
            title=f"{one.task}: {one.metric}",
            strips=[_strip(series.table, one.task, one.metric, n, methods[n]) for n in order],
            constant=one.majority,
            baselines=one.baselines,
        )
        for one in series.quality
    ]
    if len(panels) > 1:
        panels.append(Panel("mean of the tasks", [means[name] for name in order], None, ()))
    return panels


def _strip(table: Table, task: str, metric: str, name: str, rows: Rows) -> Strip:
    read = {target: at_target(table, row, task) for target, row in rows.items()}
    return Strip(
        name,
        {target: there.values(metric) for target, there in read.items()},
        {target: values(there.over, metric) for target, there in read.items()},
    )


def _mean(series: Series, name: str, rows: Rows) -> Strip:
    """The mean over tasks of every seed that can be read on all of them."""
    seeds = {}
    for target, row in rows.items():
        by_task = []
        for one in series.quality:
            readings = at_target(series.table, row, one.task).readings
            own = {r.seed: v for r in readings if (v := r.metrics.get(one.metric)) is not None}
            by_task.append(own)
        common = sorted(set.intersection(*map(set, by_task))) if by_task else []
        seeds[target] = [fmean(own[seed] for own in by_task) for seed in common]
    return Strip(name, seeds, {})


def _place(seeds: Mapping[float, Sequence[float]]) -> float:
    """The mean at the lowest target that has any."""
    shown = [found for _, found in sorted(seeds.items()) if found]
    return fmean(shown[0]) if shown else -math.inf
