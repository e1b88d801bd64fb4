"""The tables of methods by remaining weights: summaries over seeds, and the grids that show
them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from leaderboard.collect import Board, RowKey, SeedGroup, Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, amount, percent, quantity, ranged
from leaderboard.statistics import sample_std
from zoo.records.result import Result

OFF_TARGET = 0.5
"""Points of remaining weights by which a run may miss its target."""
NOT_ABOVE_MAJORITY = "▽"
"""Marks a mean that is not above the majority class."""
ROUNDING = 1e-6
"""Points within which a mean counts as equal to the majority class."""


def off_target(result: Result) -> bool:
    """Whether a run missed its target by more than OFF_TARGET points."""
    return abs(100 * (result.remaining.density - result.trial.density)) > OFF_TARGET


def at_target(group: SeedGroup) -> list[Result]:
    """Results that trained to the end and reached their target."""
    return [result for result in group.ok if not off_target(result)]


def values(results: Iterable[Result], metric: str) -> list[float]:
    """The metric of every result that has a value of it."""
    found = [result.metrics.get(metric) for result in results]
    return [value for value in found if value is not None]


@dataclass(frozen=True)
class Summary:
    """One metric of a group over seeds.

    `values`: of the seeds that trained and reached their target; `planned`: how many seeds there
    should be; `diverged`, `failed`, `off_target`, `undefined` count the others; `majority`: the
    metric of the most frequent class, None if there are no classes; `strict`: the mean with every
    diverged or failed seed counted as the majority class, None if there is no such seed.
    """

    values: Sequence[float]
    planned: int
    diverged: int
    failed: int
    off_target: int
    undefined: int
    majority: float | None
    strict: float | None

    @property
    def entry(self) -> Entry:
        """'83.2 ± 0.4 (3/3)'; with fewer seeds, what happened to the others; '-' if no seed ran."""
        counts = {
            "diverged": self.diverged,
            "failed": self.failed,
            "off target": self.off_target,
            "undefined": self.undefined,
        }
        lost = [f"{number} {word}" for word, number in counts.items() if number]
        if not self.values:
            return ", ".join(lost) if lost else NOTHING
        centre = fmean(self.values)
        shown = ", ".join([f"{len(self.values)}/{self.planned}", *lost])
        shown += "" if self.strict is None else f", strict {self.strict:.1f}"
        low = self.majority is not None and centre <= self.majority + ROUNDING
        mark = f" {NOT_ABOVE_MAJORITY}" * low
        return Quantity(centre, f"{spread_text(self.values)} ({shown}){mark}")


def summary(group: SeedGroup, metric: str) -> Summary:
    """Summarise one metric of a group."""
    there = at_target(group)
    shown, diverged = values(there, metric), len(group.results) - len(group.ok)
    chance = [v for r in there if (v := r.majority.get(metric)) is not None]
    lost = diverged + len(group.failures)
    strict = None
    if lost and shown:
        known = [v for r in group.results if (v := r.majority.get(metric)) is not None]
        strict = fmean(shown + [fmean(known) if known else 0.0] * lost)
    return Summary(
        values=shown,
        planned=len(group.seeds),
        diverged=diverged,
        failed=len(group.failures),
        off_target=len(group.ok) - len(there),
        undefined=len(there) - len(shown),
        majority=fmean(chance) if chance else None,
        strict=strict,
    )


def spread_text(numbers: Sequence[float]) -> str:
    """'83.2 ± 0.4', or the only number."""
    spread = sample_std(numbers)
    return f"{fmean(numbers):.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def remaining(results: Sequence[Result]) -> Entry:
    """Measured remaining weights in percent: one number, or a range over tasks and seeds."""
    return ranged([100 * result.remaining.density for result in results], percent)


def difference(group: SeedGroup, dense: SeedGroup, metric: str) -> float | None:
    """The difference of the mean from dense, in points."""
    own, other = values(at_target(group), metric), values(at_target(dense), metric)
    return fmean(own) - fmean(other) if own and other else None


def label(row: RowKey, results: Sequence[Result]) -> str:
    """The method's name for people."""
    name = (results[0].facts.label if results else "") or row.method
    return f"{name} ({row.variant})" if row.variant else name


@dataclass(frozen=True)
class MainTable:
    """The table of methods. `keys` has the row of each line of the grid: None for the majority
    class; the teacher's row comes from the table without distillation."""

    grid: Grid
    keys: Sequence[RowKey | None]


ABOUT = ("Method", "Target %", "Remaining weights % (measured)", "New per task", "Trainable")
"""Columns before the metrics."""


def main_table(board: Board, table: Table, best: Collection[tuple[RowKey, str, str]]) -> MainTable:
    """The table of methods; `best` are the (row, task, metric) to stress."""
    plain = board.without_distillation(table)
    source, tasks = plain or table, table.tasks
    columns = [(task, metric) for task in tasks for metric in table.metrics_of(task)]
    header = [*ABOUT, *(f"{task} {metric}" for task, metric in columns)]
    header += [f"Δ dense ({', '.join(tasks)})"]
    lines: list[tuple[RowKey | None, list[Entry]]] = [(None, _majority(source, columns))]
    if plain is not None and plain.teacher in plain.rows:
        lines.append((None, _row(plain, source, plain.teacher, tasks, columns)))
    lines += [(row, _row(table, source, row, tasks, columns)) for row in table.rows]
    bold = {
        (i, len(ABOUT) + j)
        for i, (row, _) in enumerate(lines)
        for j, column in enumerate(columns)
        if row is not None and (row, *column) in best
    }
    grid = Grid(header, [entries for _, entries in lines], frozenset(bold))
    return MainTable(grid, [row for row, _ in lines])


Columns = Sequence[tuple[str, str]]
"""(task, metric) of each column."""


def _row(
    table: Table, source: Table, row: RowKey, tasks: Sequence[str], columns: Columns
) -> list[Entry]:
    ran = table.of_row(row)
    there = [result for result in ran if result.ok and not off_target(result)]
    teacher = source.teacher
    differences: list[float | None] = []
    for task in tasks:
        first = next(iter(table.metrics_of(task)), "")
        dense = source.group(teacher, task) if teacher else SeedGroup()
        differences.append(difference(table.group(row, task), dense, first))
    return [
        label(row, ran),
        Quantity(100 * row.density, f"{100 * row.density:g}"),
        remaining(there),
        ranged([result.parameters.new for result in there], amount),
        ranged([result.parameters.trainable for result in there], amount),
        *(summary(table.group(row, task), metric).entry for task, metric in columns),
        "" if row == teacher else _joined(differences),
    ]


def _joined(differences: Sequence[float | None]) -> Entry:
    """Differences of several tasks in one entry, sorted by the first."""
    text = " / ".join(str(quantity(value, "+.1f")) for value in differences)
    first = next((value for value in differences if value is not None), None)
    return text if first is None else Quantity(first, text)


def _majority(table: Table, columns: Columns) -> list[Entry]:
    """The metrics of the most frequent class, where there are classes."""
    found: dict[tuple[str, str], float] = {}
    for result in table.results:
        for metric, value in result.majority.items():
            if value is not None:
                found[(result.trial.task, metric)] = value
    shown = [quantity(found.get(column), ".1f") for column in columns]
    return ["majority class", *([""] * (len(ABOUT) - 1)), *shown, ""]


def off_target_grid(table: Table) -> Grid:
    """Each run that missed its target, at its measured remaining weights."""
    rows: list[list[Entry]] = []
    for row, task, group in table.entries():
        for result in filter(off_target, group.ok):
            shown = [
                f"{metric} {value:.1f}"
                for metric in table.metrics_of(task)
                if (value := result.metrics.get(metric)) is not None
            ]
            target, seed = f"{100 * row.density:g}", str(result.trial.seed)
            measured = remaining([result])
            rows.append([label(row, [result]), target, task, seed, measured, ", ".join(shown)])
    header = ["Method", "Target %", "Task", "Seed", "Remaining weights % (measured)", "Metrics"]
    return Grid(header, rows)


def selection_grid(table: Table) -> Grid:
    """The last step beside the evaluation with the best first metric at the final density."""
    rows: list[list[Entry]] = []
    for row, task, group in table.entries():
        for metric in table.metrics_of(task):
            both = [
                r
                for r in at_target(group)
                if r.best.metrics.get(metric) is not None and r.metrics.get(metric) is not None
            ]
            if both:
                best = [v for r in both if (v := r.best.metrics[metric]) is not None]
                counts = [r.best.candidates for r in both]
                last = spread_text(values(both, metric))
                target, name = f"{100 * row.density:g}", label(row, both)
                chosen = ranged(counts, lambda n: f"{n:.0f}")
                rows.append([name, target, f"{task} {metric}", last, spread_text(best), chosen])
    best_of = "At the best first metric"
    return Grid(["Method", "Target %", "Metric", "Last step", best_of, "Chosen from"], rows)


def cost_grid(table: Table) -> Grid:
    """Seconds and memory per trial, means over seeds; two runs differ, so the table is apart."""
    rows: list[list[Entry]] = []
    for row, task, group in table.entries():
        if group.ok:
            seconds = [r.cost.seconds for r in group.ok]
            steps = [1000 * r.cost.step_seconds for r in group.ok if r.cost.step_seconds]
            peak = max(r.cost.peak_bytes for r in group.ok) / 2**20
            devices = sorted({r.environment.device for r in group.ok})
            numbers = [
                quantity(fmean(seconds), ".1f"),
                quantity(fmean(steps) if steps else None, ".1f"),
                quantity(peak, ".0f"),
            ]
            name, target = label(row, group.ok), f"{100 * row.density:g}"
            rows.append([name, target, task, *numbers, ", ".join(devices)])
    header = ["Method", "Target %", "Task", "Seconds", "ms per step", "Peak MiB", "Device"]
    return Grid(header, rows)
