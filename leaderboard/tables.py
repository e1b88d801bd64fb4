"""The tables of methods by remaining weights: summaries over seeds, and the grids that show
them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from leaderboard.collect import Board, RowKey, Table
from leaderboard.formats import (
    NOTHING,
    Entry,
    Grid,
    Quantity,
    amount,
    percent,
    quantity,
    ranged,
    target,
)
from leaderboard.statistics import interval, sample_std
from leaderboard.targets import How, at_target, collapses
from zoo.records.result import Result

NOT_ABOVE_CONSTANT = "▽"
"""Marks a mean whose interval reaches down to the best constant answer."""
MIXED = "‡"
"""Marks a mean over runs on different devices, library versions or commits."""
INTERPOLATED, BELOW = "~", "≤"
"""Mark remaining weights: some seeds are read between two runs, or at a run that kept fewer."""


def values(results: Iterable[Result], metric: str) -> list[float]:
    """The metric of every result that has a value of it."""
    found = [result.metrics.get(metric) for result in results]
    return [value for value in found if value is not None]


@dataclass(frozen=True)
class Summary:
    """One metric of a row on a task, over seeds.

    `values`: of the seeds that can be read at the target; `kept`: their mean remaining weights in
    percent, None without values, and `how` they were read; `planned`: how many seeds there should
    be; `diverged`, `failed`, `over` (kept more than the target), `undefined` count the others;
    `collapsed`: seeds at the level of a constant answer, whose metric is `constant`, None if there
    is none; `strict`: the mean with every diverged seed counted as `constant`, None without one;
    `mixed`: whether the runs are from different devices, library versions or commits.
    """

    values: Sequence[float]
    kept: float | None
    how: Collection[How]
    planned: int
    diverged: int
    failed: int
    over: int
    undefined: int
    collapsed: int
    constant: float | None
    strict: float | None
    mixed: bool = False

    @property
    def entry(self) -> Entry:
        """'83.2 ± 0.4 (3/3 at 9.98 %)'; with fewer seeds, what happened to the others; with
        collapsed ones, how many trained, median and range; '-' if no seed ran."""
        counts = {
            "diverged": self.diverged,
            "failed": self.failed,
            "over": self.over,
            "undefined": self.undefined,
        }
        lost = [f"{number} {word}" for word, number in counts.items() if number]
        if not self.values:
            return ", ".join(lost) if lost else NOTHING
        centre, number = fmean(self.values), len(self.values)
        shown = [f"{number}/{self.planned} at {self.at}", *lost]
        if self.collapsed == number:
            shown.append("none trained")
        elif self.collapsed:
            low, high = min(self.values), max(self.values)
            shown.append(f"{number - self.collapsed} of {number} trained")
            shown.append(f"median {median(self.values):.1f}, {low:.1f} to {high:.1f}")
        shown += [] if self.strict is None else [f"strict {self.strict:.1f}"]
        found = interval(self.values)
        low = found.low if found else centre
        marked = self.constant is not None and low <= self.constant
        mark = f" {NOT_ABOVE_CONSTANT}" * marked + f" {MIXED}" * self.mixed
        text = spread_text(self.values)
        whole = f"{text} ({'; '.join(shown)}){mark}"
        return Quantity(centre, whole, self._short(text) + mark, self._parts)

    @property
    def _parts(self) -> list[tuple[str, float]]:
        """The other numbers of the entry by name, for CSV."""
        counts = {"n": len(self.values), "planned": self.planned, "collapsed": self.collapsed}
        return [*spread(self.values).parts, *counts.items(), ("kept %", self.kept or 0.0)]

    def _short(self, text: str) -> str:
        """'83.2 ± 0.4', with the numbers of seeds where some are missing or collapsed."""
        number = len(self.values)
        if self.collapsed:
            return f"{text} ({number - self.collapsed} of {number} trained)"
        return text + f" ({number}/{self.planned})" * (number < self.planned)

    @property
    def at(self) -> str:
        """The mean remaining weights: '9.98 %', '~10.00 %' if interpolated."""
        mark = INTERPOLATED * (How.BETWEEN in self.how) + BELOW * (How.BELOW in self.how)
        return f"{mark}{percent(self.kept or 0.0)} %"


def summary(table: Table, row: RowKey, task: str, metric: str) -> Summary:
    """Summarise one metric of a row on a task."""
    group, there = table.group(row, task), at_target(table, row, task)
    shown, diverged = there.values(metric), len(group.results) - len(group.ok)
    having = [r for r in there.readings if r.metrics.get(metric) is not None]
    known = [v for r in group.results if (v := r.majority.get(metric)) is not None]
    constant = fmean(known) if known else None
    strict = None
    if diverged and shown:
        strict = fmean(shown + [constant or 0.0] * diverged)
    return Summary(
        values=shown,
        kept=100 * fmean([r.kept for r in having]) if having else None,
        how={reading.how for reading in having},
        planned=len(group.seeds),
        diverged=diverged,
        failed=len(group.failures),
        over=len(there.over),
        undefined=len(there.readings) - len(shown),
        collapsed=sum(collapses(having, table.first_metric(task))),
        constant=constant,
        strict=strict,
        mixed=len({_where(run) for reading in having for run in reading.runs}) > 1,
    )


def _where(run: Result) -> tuple[str, ...]:
    """Device, versions and commit that a run's numbers depend on."""
    about = run.environment
    versions = [about.packages.get(name, "") for name in ("torch", "transformers")]
    return (about.device, about.git, *versions)


def spread(numbers: Sequence[float]) -> Quantity:
    """A mean, with its standard deviation as a part."""
    deviation = sample_std(numbers)
    parts = () if deviation is None else (("std", deviation),)
    return Quantity(fmean(numbers), spread_text(numbers), parts=parts)


def spread_text(numbers: Sequence[float]) -> str:
    """'83.2 ± 0.4', or the only number."""
    spread = sample_std(numbers)
    return f"{fmean(numbers):.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def remaining(results: Sequence[Result]) -> Entry:
    """Measured remaining weights in percent: one number, or a range over tasks and seeds."""
    return ranged([100 * result.remaining.density for result in results], percent)


def label(row: RowKey, results: Sequence[Result]) -> str:
    """The method's name for people."""
    name = (results[0].facts.label if results else "") or row.method
    return f"{name} ({row.variant})" if row.variant else name


@dataclass(frozen=True)
class MainTable:
    """The table of methods. By line of the grid, `keys` has the row of this table, and `sources`
    the table and row that it is from: the teacher may come from the table without distillation, and
    the constant answer from none."""

    grid: Grid
    keys: Sequence[RowKey | None]
    sources: Sequence[tuple[Table, RowKey] | None]


ABOUT = ("Method", "Target %", "Remaining weights % (measured)")
"""Columns before the metrics."""
SIZES = ("New per task", "Trainable")
"""Columns behind them."""


def main_table(board: Board, table: Table, top: Collection[RowKey]) -> MainTable:
    """The table of methods; the names of the rows in `top` are stressed."""
    plain = board.without_distillation(table)
    source, tasks = plain or table, table.tasks
    columns = [(task, metric) for task in tasks for metric in table.metrics_of(task)]
    header = [*ABOUT, *(f"{task} {metric}" for task, metric in columns)]
    header += [f"Δ dense ({', '.join(tasks)})", *SIZES]
    sources = [(table, row) for row in table.rows]
    if plain is not None and plain.teacher in plain.rows:
        sources.insert(0, (plain, plain.teacher))
    rows = [_row(where, source, row, tasks, columns) for where, row in sources]
    keys = [None, *(row if where is table else None for where, row in sources)]
    bold = {(i, 0) for i, row in enumerate(keys) if row in top}
    grid = Grid(header, [_majority(source, columns), *rows], frozenset(bold))
    return MainTable(grid, keys, [None, *sources])


Columns = Sequence[tuple[str, str]]
"""(task, metric) of each column."""


def _row(
    table: Table, source: Table, row: RowKey, tasks: Sequence[str], columns: Columns
) -> list[Entry]:
    ran = table.of_row(row)
    readings = [reading for task in tasks for reading in at_target(table, row, task).readings]
    there = [reading.runs[0] for reading in readings]  # of two, the one that kept less
    differences: dict[str, float | None] = {}
    for task in tasks:
        metric = table.first_metric(task)
        own = at_target(table, row, task).values(metric)
        dense = at_target(source, source.teacher, task).values(metric) if source.teacher else []
        differences[task] = fmean(own) - fmean(dense) if own and dense else None
    return [
        label(row, ran),
        target(row.density),
        ranged([100 * reading.kept for reading in readings], percent),
        *(summary(table, row, task, metric).entry for task, metric in columns),
        "" if row == source.teacher else _joined(differences),
        ranged([result.parameters.new for result in there], amount),
        ranged([result.parameters.trainable for result in there], amount),
    ]


def _joined(differences: Mapping[str, float | None]) -> Entry:
    """Differences of the tasks, by name, in one entry, sorted by their mean."""
    text = " / ".join(str(quantity(value, "+.1f")) for value in differences.values())
    known = [(task, value) for task, value in differences.items() if value is not None]
    if not known:
        return text
    return Quantity(fmean(value for _, value in known), text, parts=known)


def _majority(table: Table, columns: Columns) -> list[Entry]:
    """The metrics of the most frequent class, where there are classes."""
    found: dict[tuple[str, str], float] = {}
    for result in table.results:
        for metric, value in result.majority.items():
            if value is not None:
                found[(result.trial.task, metric)] = value
    shown = [quantity(found.get(column), ".1f") for column in columns]
    return ["constant answer", *([""] * (len(ABOUT) - 1)), *shown, "", *([""] * len(SIZES))]


def over_grid(table: Table) -> Grid:
    """Each run that kept more than its target allows and that no lower run brings down."""
    rows: list[list[Entry]] = []
    for row, task, _ in table.entries():
        for result in at_target(table, row, task).over:
            seed = Quantity(result.trial.seed, str(result.trial.seed))
            start: list[Entry] = [label(row, [result]), target(row.density), task, seed]
            rows.append([*start, remaining([result]), _every_metric(table, task, result)])
    header = ["Method", "Target %", "Task", "Seed", "Remaining weights % (measured)", "Metrics"]
    return Grid(header, rows)


def _every_metric(table: Table, task: str, result: Result) -> Entry:
    """'acc 91.2, f1 88.0'."""
    found = [(m, v) for m in table.metrics_of(task) if (v := result.metrics.get(m)) is not None]
    text = ", ".join(f"{metric} {value:.1f}" for metric, value in found)
    return Quantity(found[0][1], text, parts=found) if found else NOTHING


def selection_grid(table: Table) -> Grid:
    """The last step beside the evaluation with the best first metric at the final density."""
    rows: list[list[Entry]] = []
    for row, task, _ in table.entries():
        for metric in table.metrics_of(task):
            both = [
                r
                for r in at_target(table, row, task).runs
                if r.best.metrics.get(metric) is not None and r.metrics.get(metric) is not None
            ]
            if both:
                best = [v for r in both if (v := r.best.metrics[metric]) is not None]
                counts = [r.best.candidates for r in both]
                last = spread(values(both, metric))
                start: list[Entry] = [label(row, both), target(row.density), f"{task} {metric}"]
                chosen = ranged(counts, lambda n: f"{n:.0f}")
                planned = len(table.group(row, task).seeds)
                counted = Quantity(len(both), f"{len(both)} of {planned}", parts=[("of", planned)])
                rows.append([*start, counted, last, spread(best), chosen])
    header = ["Method", "Target %", "Metric", "Runs at target", "Last step"]
    return Grid([*header, "At the best first metric", "Chosen from"], rows)
