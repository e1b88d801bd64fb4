"""The page's table of methods: its columns, and what each row shows and opens to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from leaderboard import prose
from leaderboard.collect import Board, RowKey, Table
from leaderboard.compare import over_tasks
from leaderboard.formats import NOTHING, Entry, Grid, percent, quantity, ranged
from leaderboard.html.svg import curve_drawing
from leaderboard.lines import NO_CURVE
from leaderboard.targets import at_target
from leaderboard.verdicts import DELTA, MEAN, estimate
from leaderboard.view import View
from zoo.records.result import Result

SHOWN_TASKS = 3
"""With more tasks than this their metrics stand behind the switch."""


@dataclass(frozen=True)
class Column:
    """A column behind the methods' names; `more` if it stands behind the switch."""

    header: str
    more: bool


@dataclass(frozen=True)
class Detail:
    """What a row opens to: its seeds, its curves, its hyper-parameters, how to run it again.
    Hyper-parameters are those that differ from the row at the address `like`, or all."""

    seeds: Grid
    curves: Sequence[Markup]
    settings: Grid
    commands: Sequence[str]
    like: str = ""


@dataclass(frozen=True)
class Row:
    """A row: its address, its method with a variant, the method's name for people, whether it is in
    the top group, what it kept, entries by column, and what it opens to, None for rows without
    trials of their own."""

    address: str
    method: str
    name: str
    top: bool
    kept: str
    entries: Sequence[Entry]
    target: str
    family: str
    detail: Detail | None
    new_target: bool = False


def columns_of(view: View) -> list[Column]:
    """Each task's first metric, the mean and the difference to the reference; the others behind
    the switch."""
    main, told = view.main.grid.header[1:], list(view.verdicts.header[2:])
    few = view.table.tasks if len(view.table.tasks) <= SHOWN_TASKS else []
    first = [f"{task} {view.table.first_metric(task)}" for task in few]
    told = told if view.verdicts.rows else []
    difference = [name for name in told if name.startswith(DELTA)]
    shown = [name for name in main if name in first] + [MEAN, *difference]
    known = (*main, *told)
    rest = dict.fromkeys([name for name in (*known, *view.form_columns[0]) if name not in shown])
    return [Column(name, name in rest) for name in (*shown, *rest)]


def rows_of(board: Board, view: View, columns: Sequence[Column]) -> list[Row]:
    """The constant answer, then every target, within it the best mean over tasks first."""
    told = dict(zip(view.verdict_rows, view.verdicts.rows, strict=True))
    grid, lines = view.main.grid, []
    for number, (key, source) in enumerate(zip(view.main.keys, view.main.sources, strict=True)):
        mean = over_tasks(*source) if source else None
        named = {MEAN: estimate(mean)} | dict(zip(grid.header, grid.rows[number], strict=True))
        named |= view.form_columns[1][number]
        if key in told:
            named |= dict(zip(view.verdicts.header, told[key], strict=True))
        density, height = (source[1].density if source else 2.0), (mean.value if mean else -200.0)
        row = Row(
            address=_address(view, key, number),
            method=key.name if key else "",
            name=str(grid.rows[number][0]),
            top=(number, 0) in grid.bold,
            kept=_kept(*source) if source else "",
            entries=[named.get(column.header, NOTHING) for column in columns],
            target=str(grid.rows[number][1]),
            family=view.table.facts_of(key).family if key else "",
            detail=_detail(board, view, key) if key and view.table.of_row(key) else None,
        )
        lines.append(((-density, -height), row))
    rows = [row for _, row in sorted(lines, key=lambda line: line[0])]
    before = [None, *(row.target for row in rows)]
    marked = [
        replace(row, new_target=bool(last) and row.target != last)
        for row, last in zip(rows, before, strict=False)
    ]
    return _once(marked)


def _once(rows: Sequence[Row]) -> list[Row]:
    """The rows, where a method's first has all of its hyper-parameters and the others those that
    differ there: they are half of a page."""
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        detail, like = row.detail, first.setdefault(row.method, row)
        if detail and like.detail and like is not row:
            known = set(map(tuple, like.detail.settings.rows))
            own = [line for line in detail.settings.rows if tuple(line) not in known]
            settings = Grid(detail.settings.header, own)
            row = replace(row, detail=replace(detail, settings=settings, like=like.address))
        found.append(row)
    return found


def _address(view: View, key: RowKey | None, number: int) -> str:
    """What opens the row; it follows from the table and the row alone."""
    slug = view.table.key.slug
    if key is None:
        return f"{slug}-{number}"
    variant = key.variant.replace(" ", "-").replace("@", "-")
    return "-".join(filter(None, (slug, key.method, f"{100 * key.density:g}", variant)))


def _kept(table: Table, row: RowKey) -> str:
    """'10 %, kept 9.98 %', or 'all weights'."""
    if row.density == 1:
        return "all weights"
    kept = [r.kept for task in table.tasks for r in at_target(table, row, task).readings]
    target = f"{100 * row.density:g} %"
    return f"{target}, kept {percent(100 * sum(kept) / len(kept))} %" if kept else target


def _detail(board: Board, view: View, row: RowKey) -> Detail:
    table, drawings = view.table, []
    for task in table.tasks:
        metric = table.first_metric(task)
        shown = view.series.every_curve.get((row, task), NO_CURVE)
        drawings.append(curve_drawing(f"{task} {metric}", shown))
    return Detail(
        seeds=_seeds(table, row),
        curves=drawings,
        settings=_settings(table.of_row(row)),
        commands=prose.commands(board, table, [row]),
    )


def _seeds(table: Table, row: RowKey) -> Grid:
    names = [(task, metric) for task in table.tasks for metric in table.metrics_of(task)]
    by_seed: dict[int, dict[str, Result]] = {}
    for result in table.of_row(row):
        by_seed.setdefault(result.trial.seed, {})[result.trial.task] = result
    rows: list[list[Entry]] = []
    for seed, found in sorted(by_seed.items()):
        metrics = [found[t].metrics.get(m) if t in found else None for t, m in names]
        status = {r.status for r in found.values()}
        seconds = sum(r.cost.seconds for r in found.values())
        measured = ranged([100 * r.remaining.density for r in found.values()], percent)
        shown = [quantity(value, ".2f") for value in metrics]
        start = [str(seed), ", ".join(sorted(status)), measured]
        rows.append([*start, *shown, quantity(seconds, ".0f")])
    header = ["Seed", "Status", "Remaining %", *(f"{t} {m}" for t, m in names), "Seconds"]
    return Grid(header, rows)


def _settings(results: Sequence[Result]) -> Grid:
    """Hyper-parameters and their sources; where tasks differ, each task's own."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for name, value in result.trial.settings.items():
            tasks = by_name.setdefault(name, {}).setdefault(_value(value), [])
            if result.trial.task not in tasks:
                tasks.append(result.trial.task)
    rows = []
    for name, found in by_name.items():
        parts = [v if len(found) == 1 else f"{v} ({', '.join(t)})" for v, t in found.items()]
        told = [r.environment.sources.get(name, "") for r in results]
        sources = "; ".join(dict.fromkeys(filter(None, told))) or "see docs/fidelity.md"
        rows.append([name, "; ".join(parts), sources])
    return Grid(["Value", "Used", "Source"], rows)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
