"""Tables: rows of methods by remaining weights, cells of mean and spread over seeds."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from leaderboard.collect import Board, Cell, RowKey, Table, reference
from leaderboard.formats import Grid
from leaderboard.statistics import mean, sample_std
from zoo.trial import Result

ORDER = (
    *("dense", "scratch", "head_only", "random", "magnitude", "magnitude_global", "l0"),
    *("movement", "movement_global", "soft_movement"),
    *("cap_lite", "smp_l", "smp_l_new_head", "smp_l_no_penalty", "smp_s", "smp_s_shuffled"),
    *("smp_g", "smp_t"),
)
"""Known methods in the papers' order; others follow by name."""


def in_order(rows: Sequence[RowKey]) -> list[RowKey]:
    """Most remaining weights first, then known methods, then others by name."""

    def place(row: RowKey) -> tuple[float, int, str, str]:
        known = ORDER.index(row.method) if row.method in ORDER else len(ORDER)
        return -row.density, known, row.method, row.variant

    return sorted(rows, key=place)


OFF_TARGET = 0.5
"""Points of remaining weights that a run may miss its target by and still stand under it."""
NOT_ABOVE_MAJORITY = "▽"
ROUNDING = 1e-6
"""Points within which a mean is the majority class's score."""


def off_target(result: Result) -> bool:
    """Whether a run kept so much more or less than its target that it stands apart."""
    return abs(100 * (result.remaining["density"] - result.trial.density)) > OFF_TARGET


def at_target(cell: Cell) -> list[Result]:
    """Results that trained to the end and kept what they were to keep."""
    return [result for result in cell.ok if not off_target(result)]


def values(results: Iterable[Result], metric: str) -> list[float]:
    """The metric of every result that has it."""
    found = [result.metrics.get(metric) for result in results]
    return [value for value in found if value is not None]


def cell_text(cell: Cell, metric: str) -> str:
    """'83.2 ± 0.4 (3/3)'; with fewer seeds what became of the others; '-' if nothing was run."""
    there = at_target(cell)
    shown = values(there, metric)
    lost = [
        f"{n} {word}"
        for n, word in (
            (len(cell.results) - len(cell.ok), "diverged"),
            (len(cell.failures), "failed"),
            (len(cell.ok) - len(there), "off target"),
            (len(there) - len(shown), "undefined"),
        )
        if n
    ]
    if not shown:
        return ", ".join(lost) if lost else "-"
    counts = ", ".join([f"{len(shown)}/{len(cell.seeds)}", *lost])
    chance = [v for r in there if (v := r.majority.get(metric)) is not None]
    flag = chance and mean(shown) <= mean(chance) + ROUNDING
    strict = strict_score(cell, metric)
    counts += "" if strict is None else f", strict {strict:.1f}"
    return f"{spread_text(shown)} ({counts})" + f" {NOT_ABOVE_MAJORITY}" * bool(flag)


def strict_score(cell: Cell, metric: str) -> float | None:
    """The mean with every seed that failed or diverged counted as the majority class's score, 0
    where there are no classes; None if none did, or none did not."""
    shown = values(at_target(cell), metric)
    lost = len(cell.results) - len(cell.ok) + len(cell.failures)
    if not lost or not shown:
        return None
    chance = [v for r in cell.results if (v := r.majority.get(metric)) is not None]
    return mean(shown + [mean(chance) if chance else 0.0] * lost)


def spread_text(numbers: Sequence[float]) -> str:
    """'83.2 ± 0.4', or the one number there is."""
    spread = sample_std(numbers)
    return f"{mean(numbers):.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def remaining_text(results: Sequence[Result]) -> str:
    """Measured remaining weights in percent: one figure, or least to most over tasks and seeds."""
    densities = [100 * result.remaining["density"] for result in results]
    if not densities:
        return "-"
    low, high = f"{min(densities):.2f}", f"{max(densities):.2f}"
    return low if low == high else f"{low} to {high}"


def amount(number: float) -> str:
    """A count of parameters in millions, or thousands if it is small."""
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"


def amounts(numbers: Sequence[float]) -> str:
    """One count, or least to most."""
    if not numbers:
        return "-"
    low, high = amount(min(numbers)), amount(max(numbers))
    return low if low == high else f"{low} to {high}"


def metrics_of(table: Table, task: str) -> list[str]:
    """The metrics of a task that any result of it has, in the task's order."""
    return table.metrics.get(task, [])


def against_dense(cell: Cell, dense: Cell | None, metric: str) -> str:
    """The mean's difference from dense, in points."""
    if dense is None:
        return "-"
    own, other = values(at_target(cell), metric), values(at_target(dense), metric)
    return f"{mean(own) - mean(other):+.1f}" if own and other else "-"


def label(row: RowKey, results: Sequence[Result]) -> str:
    """The method's name for people."""
    name = results[0].label if results else row.method
    return f"{name} ({row.variant})" if row.variant else name


def main_grid(board: Board, table: Table, best: Collection[tuple[RowKey, str, str]]) -> Grid:
    """The table of methods; `best` are the (row, task, metric) to stress."""
    plain = reference(board, table)
    source = plain or table
    tasks = table.tasks
    columns = [(task, metric) for task in tasks for metric in metrics_of(table, task)]
    header = ["Method", "Target %", "Remaining weights % (measured)", "New per task", "Trainable"]
    first = len(header)
    header += [f"{task} {metric}" for task, metric in columns]
    header += [f"Δ dense ({', '.join(tasks)})"]
    body = [_majority_row(source, tasks, columns)]
    rows = in_order(table.rows)
    if plain is not None:
        teachers = [row for row in in_order(plain.rows) if row.method == "dense"]
        body += [_row(plain, source, row, tasks, columns) for row in teachers]
    above = len(body)
    body += [_row(table, source, row, tasks, columns) for row in rows]
    bold = {
        (above + i, first + j)
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
        if (row, *column) in best
    }
    return Grid(header, body, frozenset(bold))


def _row(
    table: Table,
    source: Table,
    row: RowKey,
    tasks: Sequence[str],
    columns: Sequence[tuple[str, str]],
) -> list[str]:
    ran = table.of_row(row)
    there = [result for result in ran if result.status == "ok" and not off_target(result)]
    cells = {task: table.cells.get((row, task), Cell()) for task in tasks}
    dense = {task: source.cells.get((RowKey(1.0, "dense"), task)) for task in tasks}
    differences = [
        against_dense(cells[t], dense[t], metrics_of(table, t)[0]) if metrics_of(table, t) else "-"
        for t in tasks
    ]
    return [
        label(row, ran),
        f"{100 * row.density:g}",
        remaining_text(there),
        amounts([result.parameters["new"] for result in there]),
        amounts([result.parameters["trainable"] for result in there]),
        *(cell_text(cells[task], metric) for task, metric in columns),
        "" if row.method == "dense" else " / ".join(differences),
    ]


def _majority_row(
    table: Table, tasks: Sequence[str], columns: Sequence[tuple[str, str]]
) -> list[str]:
    """What the most frequent class scores, where there are classes."""
    found: dict[tuple[str, str], float] = {}
    for result in table.results:
        for metric, value in result.majority.items():
            if value is not None:
                found[(result.trial.task, metric)] = value
    scores = [f"{found[c]:.1f}" if c in found else "-" for c in columns]
    return ["majority class", "", "", "", "", *scores, ""]


def off_target_grid(table: Table) -> Grid:
    """Runs that missed their target, one by one, at what they measured."""
    body = []
    for row, task, cell in entries(table):
        for result in filter(off_target, cell.ok):
            scores = [
                f"{metric} {value:.1f}"
                for metric in metrics_of(table, task)
                if (value := result.metrics.get(metric)) is not None
            ]
            target, seed = f"{100 * row.density:g}", str(result.trial.seed)
            measured = remaining_text([result])
            body.append([label(row, [result]), target, task, seed, measured, ", ".join(scores)])
    header = ["Method", "Target %", "Task", "Seed", "Remaining weights % (measured)", "Scores"]
    return Grid(header, body)


def selection_grid(table: Table) -> Grid:
    """The last step beside the evaluation whose first metric is best at the final density."""
    body = []
    for row, task, cell in entries(table):
        for metric in metrics_of(table, task):
            judged = [
                r
                for r in at_target(cell)
                if r.best.get(metric) is not None and r.metrics.get(metric) is not None
            ]
            if judged:
                best = [r.best[metric] for r in judged]
                counts = sorted({r.best["candidates"] for r in judged})
                number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
                last = spread_text(values(judged, metric))
                target, name = f"{100 * row.density:g}", label(row, judged)
                body.append([name, target, f"{task} {metric}", last, spread_text(best), number])
    best_of = "At the best first metric"
    return Grid(["Method", "Target %", "Metric", "Last step", best_of, "Chosen from"], body)


def entries(table: Table) -> Iterator[tuple[RowKey, str, Cell]]:
    """Row, task and cell, in the order of the tables."""
    for row in in_order(table.rows):
        for task in table.tasks:
            if (row, task) in table.cells:
                yield row, task, table.cells[row, task]


def cost_grid(table: Table) -> Grid:
    """Seconds and memory per trial, means over seeds; not reproducible, hence apart."""
    body = []
    for row, task, cell in entries(table):
        if cell.ok:
            seconds = [r.cost["seconds"] for r in cell.ok]
            train = [r.cost["seconds"] - r.cost["evaluation_seconds"] for r in cell.ok]
            steps = [1000 * t / r.steps["taken"] for t, r in zip(train, cell.ok, strict=True)]
            peak = max(r.cost["peak_bytes"] for r in cell.ok) / 2**20
            devices = sorted({r.environment["device"] for r in cell.ok})
            numbers = [f"{mean(seconds):.1f}", f"{mean(steps):.1f}", f"{peak:.0f}"]
            name, target = label(row, cell.ok), f"{100 * row.density:g}"
            body.append([name, target, task, *numbers, ", ".join(devices)])
    header = ["Method", "Target %", "Task", "Seconds", "ms per step", "Peak MiB", "Device"]
    return Grid(header, body)
