"""What figures show, computed once: the figures as files and the page's drawings use the same."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from leaderboard.beside import Other, others
from leaderboard.collect import Board, RowKey, Table
from leaderboard.heat_maps import (
    HeatMap,
    agreement,
    by_head,
    by_matrix,
    has_masks,
    heat_map,
    uneven,
    unit_maps,
    whole,
)
from leaderboard.lines import Baseline, Curve, Line, Quality, curve, dots
from leaderboard.looks import PLAIN, RIVAL, Look, looks_of
from leaderboard.tables import label, values
from leaderboard.targets import at_target
from zoo.records.arrays import Distribution
from zoo.records.result import Result

Chosen = Sequence[tuple[RowKey, Sequence[Result]]]
"""Rows with the results that a figure shows."""


@dataclass(frozen=True)
class Series:
    """The series of one table."""

    board: Board
    table: Table

    @cached_property
    def pruned(self) -> list[RowKey]:
        """The rows that prune, in the order of pages."""
        return [row for row in self.table.rows if row.density < 1]

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Methods that prune, in the order of pages, with their looks."""
        facts = self.table.facts_of
        return looks_of({row.name: facts(row).control for row in self.pruned})

    @cached_property
    def labels(self) -> dict[str, str]:
        """The methods' names for people."""
        return {row.name: label(row, self.table.of_row(row)) for row in reversed(self.pruned)}

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with results."""
        return [task for task in self.table.tasks if self.table.metrics_of(task)]

    @cached_property
    def targets(self) -> list[float]:
        """Target densities in percent, ascending."""
        return sorted({100 * row.density for row in self.pruned})

    @cached_property
    def others(self) -> list[Other]:
        """The other checkpoints beside the table."""
        return others(self.board, self.table)

    def _rivals(self, task: str, metric: str) -> list[Line]:
        groups = ((one, one.table.group(one.row, task).ok) for one in self.others)
        found = (
            (one.name, dots([(one.share, r.metrics.get(metric)) for r in results], metric))
            for one, results in groups
        )
        return [Line(name, RIVAL, own, []) for name, own in found if own]

    @cached_property
    def quality(self) -> list[Quality]:
        """By task, the first metric against remaining weights."""
        return [self._quality(task, self.table.first_metric(task)) for task in self.tasks]

    def _quality(self, task: str, metric: str) -> Quality:
        source = self.board.without_distillation(self.table) or self.table
        lines = {name: Line(name, look, [], []) for name, look in self.looks.items()}
        for row in self.pruned:
            line, there = lines[row.name], at_target(self.table, row, task)
            line.dots.extend(
                dots([(r.kept, r.metrics.get(metric)) for r in there.readings], metric)
            )
            over = [(r.remaining.density, r.metrics.get(metric)) for r in there.over]
            line.over.extend(dots(over, metric))
        baselines = [
            Baseline(row.method, fmean(found))
            for row in source.rows
            if row.density == 1 and (found := values(source.group(row, task).ok, metric))
        ]
        chance = [r.majority.get(metric) for r in source.results if r.trial.task == task]
        known = [value for value in chance if value is not None]
        return Quality(
            task=task,
            metric=metric,
            lines=[
                replace(line, dots=sorted(line.dots, key=lambda dot: dot.x))
                for line in lines.values()
            ],
            baselines=baselines,
            majority=known[0] if known else None,
            targets=self.targets,
            rivals=self._rivals(task, metric),
        )

    @cached_property
    def lowest(self) -> dict[str, Chosen]:
        """By task, the rows at the lowest target with results that have masks."""
        least = min((row.density for row in self.pruned), default=1.0)
        rows = [row for row in self.pruned if row.density == least]
        found: dict[str, Chosen] = {}
        for task in self.table.tasks:
            groups = [(row, at_target(self.table, row, task).runs) for row in rows]
            masked = [(row, [r for r in results if has_masks(r)]) for row, results in groups]
            found[task] = [(row, results) for row, results in masked if results]
        return found

    @property
    def least(self) -> float:
        """The lowest target in percent; 0 without results."""
        found = [100 * row.density for chosen in self.lowest.values() for row, _ in chosen]
        return min(found, default=0.0)

    @cached_property
    def every_curve(self) -> dict[tuple[RowKey, str], Curve]:
        """The training of each row on each task."""
        found = {}
        for row, task, group in self.table.entries():
            look = self.looks.get(row.name, PLAIN)
            metric = self.table.first_metric(task)
            found[row, task] = curve(row.name, look, group.ok, metric)
        return found

    def curves(self, task: str) -> list[Curve]:
        """The training of the rows at the lowest target."""
        return [self.every_curve[row, task] for row, _ in self.lowest[task]]

    @cached_property
    def matrices(self) -> dict[str, list[HeatMap]]:
        """By task, remaining weights by layer and matrix at the lowest target, of rows where they
        differ."""
        return {
            task: [
                heat_map(row.name, grids, list(dict.fromkeys(role for _, role in grids[0])))
                for row, results in chosen
                if any(map(uneven, results)) and (grids := whole([by_matrix(r) for r in results]))
            ]
            for task, chosen in self.lowest.items()
        }

    def attention_heads(self, task: str) -> list[HeatMap]:
        """Remaining weights by layer and attention head (Q, K, V and O together)."""
        maps = []
        for row, results in self.lowest[task]:
            grids = whole([by_head(r) for r in results])
            if grids:
                columns = list(dict.fromkeys(column for _, column in grids[0]))
                maps.append(heat_map(row.name, grids, columns))
        return maps

    def units(self, task: str) -> list[HeatMap]:
        """Units that compact models at the lowest target have left, by method and layer."""
        return unit_maps([(row.name, results) for row, results in self.lowest[task]])

    def distributions(self, *, learned: bool) -> tuple[str, list[tuple[str, Look, Distribution]]]:
        """Of the first task that has any: the task, and name, look and distribution of the rows at
        the lowest target; with `learned`, of those with learned scores."""
        for task, chosen in self.lowest.items():
            having = [(row, r.distribution) for row, rs in chosen for r in rs if r.distribution]
            if having:
                first = {row: d for row, d in reversed(having) if d.scores or not learned}
                rows = [row for row, _ in chosen if row in first]
                return task, [(row.name, self.looks[row.name], first[row]) for row in rows]
        return "", []

    def agreement(self) -> tuple[list[str], list[list[float]]]:
        """Names, and the mean Jaccard index of masks in percent between rows at the lowest target;
        on the diagonal between seeds of one row."""
        masked: dict[RowKey, list[Result]] = {}
        for chosen in self.lowest.values():
            for row, results in chosen:
                masked.setdefault(row, []).extend(r for r in results if r.sketch)
        rows = [row for row in self.pruned if masked.get(row)]
        cells = [[jaccard(masked[a], masked[b], a == b) for b in rows] for a in rows]
        return [row.name for row in rows], cells

    def costs(self) -> list[tuple[str, Look, float, dict[str, float]]]:
        """Name, look, mean of the first metrics, and means of cost by kind, over tasks and seeds;
        of rows at the lowest target with results on all tasks."""
        tasks = [task for task in self.tasks if self.lowest[task]]
        own: dict[RowKey, dict[str, Sequence[Result]]] = {}
        for task in tasks:
            for row, results in self.lowest[task]:
                own.setdefault(row, {})[task] = results
        found = []
        for row in (row for row in self.pruned if row in own):
            metrics = [values(own[row].get(t, ()), self.table.first_metric(t)) for t in tasks]
            if all(metrics):
                metric = fmean([fmean(numbers) for numbers in metrics])
                costs = {k: _mean_cost(own[row].values(), of) for k, of in COSTS.items()}
                found.append((row.name, self.looks[row.name], metric, costs))
        return found


def jaccard(ours: Sequence[Result], theirs: Sequence[Result], same: bool) -> float:
    """The mean Jaccard index in percent, task by task: of equal seeds of two rows, or of different
    seeds of one row; nan without any pair."""
    pairs = [
        (a, b)
        for a in ours
        for b in theirs
        if a.trial.task == b.trial.task
        and (a.trial.seed < b.trial.seed if same else a.trial.seed == b.trial.seed)
    ]
    found = [value for a, b in pairs if (value := agreement(a, b)) is not None]
    return 100 * fmean(found) if found else float("nan")


COSTS: Mapping[str, Callable[[Result], float]] = {
    "seconds": lambda result: result.cost.seconds,
    "peak memory (MiB)": lambda result: result.cost.peak_bytes / 2**20,
    "trainable parameters (millions)": lambda result: result.parameters.trainable / 1e6,
}
"""Kinds of cost by the label of their axis."""


def _mean_cost(by_task: Iterable[Sequence[Result]], of: Callable[[Result], float]) -> float:
    return fmean([fmean([of(result) for result in results]) for results in by_task])
