"""The papers' own tables: the results so far beside the printed numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from leaderboard.collect import Board, RowKey, Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, amount, quantity, ranged, target
from leaderboard.published import Published, published
from leaderboard.tables import label, summary
from leaderboard.targets import at_target

SMP, SANH = "SMP paper (ACL 2023)", "Movement paper (arXiv v1)"
PRINTED = ", as printed"


@dataclass(frozen=True)
class Layout:
    """A printed table: its methods in order, the densities from `least` to `most`, its halves
    (`distilled`: without and with distillation), and its columns.

    `every_metric` shows all of a task's metrics instead of the printed one; `average` adds the mean
    over tasks; `sizes` adds new and trainable parameters. The table is made if all of `needs` have
    results.
    """

    source: str
    table: str
    about: str
    methods: Sequence[str]
    needs: Sequence[str]
    least: float = 0.0
    most: float = 1.0
    distilled: Sequence[bool] = (False,)
    every_metric: bool = False
    average: bool = False
    sizes: bool = False

    @property
    def name(self) -> str:
        """'smp-table-1', for files."""
        return f"{'smp' if self.source == SMP else 'movement'}-table-{self.table}"

    @property
    def heading(self) -> str:
        """'As SMP, Table 1: high sparsity', for pages."""
        paper = "SMP" if self.source == SMP else "Sanh 2020"
        return f"As {paper}, Table {self.table}: {self.about}"


L_AND_S = ("smp_l", "smp_s")
PRUNED = ("magnitude", "l0", "movement", "soft_movement")
LAYOUTS = (
    Layout(
        *(SMP, "1", "high sparsity"),
        methods=("dense", *PRUNED, "cap_lite", *L_AND_S),
        needs=("movement", "smp_l"),
        most=0.5,
        distilled=(False, True),
        every_metric=True,
        sizes=True,
    ),
    Layout(
        *(SMP, "2", "low sparsity"),
        methods=("dense", *L_AND_S),
        needs=("smp_l",),
        least=0.7,
        average=True,
        sizes=True,
    ),
    Layout(
        *(SMP, "3", "masking functions"),
        methods=("smp_t", "smp_g", *L_AND_S),
        needs=("smp_g", *L_AND_S),
    ),
    Layout(
        *(SMP, "4", "the head"),
        methods=("smp_l_new_head", "smp_l"),
        needs=("smp_l_new_head", "smp_l"),
    ),
    Layout(
        *(SMP, "5", "the regulariser"),
        methods=("smp_l", "smp_l_no_penalty"),
        needs=("smp_l", "smp_l_no_penalty"),
    ),
    Layout(
        *(SMP, "6", "mean and spread at high sparsity"),
        methods=L_AND_S,
        needs=L_AND_S,
        most=0.5,
        distilled=(True, False),
    ),
    Layout(
        *(SMP, "7", "mean and spread at low sparsity"),
        methods=L_AND_S,
        needs=("smp_l",),
        least=0.7,
    ),
    Layout(
        *(SANH, "2", "without distillation"),
        methods=("dense", *PRUNED),
        needs=("magnitude", "movement"),
        most=0.1,
        every_metric=True,
    ),
    Layout(
        *(SANH, "3", "with distillation"),
        methods=("dense", *PRUNED),
        needs=("magnitude", "movement"),
        most=0.1,
        distilled=(True,),
        every_metric=True,
    ),
)
"""SMP, Tables 1 to 7 (6 and 7 are the spreads of 1 and 2); Sanh 2020, Tables 2 and 3."""


def paper_grids(board: Board, table: Table) -> dict[str, Grid]:
    """The papers' tables by name, from a table without distillation and the one with it beside
    it."""
    if table.key.distill:
        return {}
    distilled = board.with_distillation(table)
    made = {layout.name: _grid(layout, table, distilled) for layout in LAYOUTS}
    return {name: grid for name, grid in made.items() if grid is not None}


def _grid(layout: Layout, plain: Table, distilled: Table | None) -> Grid | None:
    sides = [(flag, distilled if flag else plain) for flag in layout.distilled]
    there = [(flag, table) for flag, table in sides if table and _has(layout, table)]
    if not there:
        return None
    tasks = sorted({task for _, table in there for task in table.tasks})
    columns = [
        (task, metric)
        for task in tasks
        for metric in _metrics(layout, task, plain.metrics_of(task))
    ]
    header = ["Method", "Distilled", "Remaining %"] + ["New per task", "Trainable"] * layout.sizes
    header += [f"{task} {metric}" for task, metric in columns] + ["Average"] * layout.average
    printed = _printed(layout, plain.key.model, columns)
    rows: list[list[Entry]] = []
    if "dense" in layout.methods:
        rows.append(_row(layout, plain, RowKey(1.0, "dense"), "", columns))
    rows += _as_printed(layout, printed, 1.0, False, columns)
    for flag, table in there:
        densities = {row.density for row in table.rows if _shown(layout, row)}
        densities |= {p.density for p in printed if p.distill == _word(flag) and p.density < 1}
        for density in sorted(densities, reverse=True):
            own = [row for row in table.rows if row.density == density and _shown(layout, row)]
            own.sort(key=lambda row: (layout.methods.index(row.method), row.variant))
            rows += [_row(layout, table, row, _word(flag), columns) for row in own]
            rows += _as_printed(layout, printed, density, flag, columns)
    return Grid(header, rows)


def _metrics(layout: Layout, task: str, measured: Sequence[str]) -> Sequence[str]:
    """The metrics of a task that the table shows: all, or the one that the paper prints there, or
    the first."""
    if layout.every_metric:
        return measured
    where = (layout.source, layout.table, task)
    printed = {p.metric for p in published() if (p.source, p.table, p.task) == where}
    return [metric for metric in measured if metric in printed][:1] or measured[:1]


def _word(flag: bool) -> str:
    """How published.csv writes whether there is distillation."""
    return "yes" if flag else "no"


def _shown(layout: Layout, row: RowKey) -> bool:
    between = layout.least <= row.density <= layout.most and row.density < 1
    return between and row.method in layout.methods


def _has(layout: Layout, table: Table) -> bool:
    """Whether every method that the table is about has a result at some density of it."""
    found = {row.method for row in table.rows if _shown(layout, row) and table.of_row(row)}
    return set(layout.needs) <= found


def _row(
    layout: Layout,
    table: Table,
    row: RowKey,
    distilled: str,
    columns: Sequence[tuple[str, str]],
) -> list[Entry]:
    there = [r.runs[0] for task in table.tasks for r in at_target(table, row, task).readings]
    new = ranged([r.parameters.new for r in there], amount)
    trainable = ranged([r.parameters.trainable for r in there], amount)
    means = [at_target(table, row, task).values(metric) for task, metric in columns]
    average = fmean([fmean(found) for found in means]) if means and all(means) else None
    return [
        label(row, table.of_row(row)),
        distilled,
        target(row.density),
        *([new, trainable] * layout.sizes),
        *(summary(table, row, task, metric).entry for task, metric in columns),
        *([quantity(average, ".1f")] * layout.average),
    ]


def _printed(layout: Layout, model: str, columns: Sequence[tuple[str, str]]) -> list[Published]:
    """What the paper prints of these columns for this model."""
    wanted = [*columns, ("avg", "mean_of_8"), ("-", SIZES[0]), ("-", SIZES[1])]
    return [
        p
        for p in published()
        if (p.source, p.table, p.model) == (layout.source, layout.table, model)
        and (p.task, p.metric) in wanted
    ]


SIZES = ("new_params_per_task_M", "trainable_params_M")
"""Names of the sizes in published.csv."""


def _as_printed(
    layout: Layout,
    printed: Sequence[Published],
    density: float,
    distill: bool,
    columns: Sequence[tuple[str, str]],
) -> list[list[Entry]]:
    """The paper's rows at a density, in its order, where it prints one of our columns."""
    here = [
        p for p in printed if p.density == density and (density == 1 or p.distill == _word(distill))
    ]
    rows: list[list[Entry]] = []
    for method in dict.fromkeys(p.method for p in here):
        own = {(p.task, p.metric): p for p in here if p.method == method}
        numbers = [_number(own.get(column)) for column in columns]
        if any(number != NOTHING for number in numbers):
            sizes = [_number(own.get(("-", name)), "M") for name in SIZES]
            average = _number(own.get(("avg", "mean_of_8")))
            flag = "" if density == 1 else _word(distill)
            start: list[Entry] = [f"{method}{PRINTED}", flag, target(density)]
            more = [average] * layout.average
            rows.append([*start, *(sizes * layout.sizes), *numbers, *more])
    return rows


def _number(printed: Published | None, unit: str = "") -> Entry:
    """A printed mean with its spread; the spread alone where only that is printed."""
    if printed is None or printed.mean is None:
        return NOTHING if printed is None or printed.std is None else f"± {printed.std:g}"
    spread = "" if printed.std is None else f" ± {printed.std:g}"
    parts = [] if printed.std is None else [("std", printed.std)]
    value = printed.mean * (1e6 if unit else 1)
    return Quantity(value, f"{printed.mean:g}{unit}{spread}", parts=parts)
