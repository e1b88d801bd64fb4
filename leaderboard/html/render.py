"""Fill the page's template: rows with their details, charts and maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from leaderboard import prose
from leaderboard.collect import Board, RowKey, Table
from leaderboard.formats import Entry, Grid, percent, quantity, ranged
from leaderboard.html.strips import strip_chart
from leaderboard.html.svg import curve_drawing, heat_map_drawing, legend, quality_chart
from leaderboard.panels import panels_of
from leaderboard.series import Curve
from leaderboard.view import HEADINGS, View
from zoo.errors import one_line
from zoo.records.result import Result

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Detail:
    """What a row opens to: its seeds, its curves, its hyper-parameters, how to run it again."""

    seeds: Grid
    curves: Sequence[Markup]
    settings: Grid
    command: str


@dataclass(frozen=True)
class Row:
    """A row of the main table: the first entry, whether it is in the top group, the others, and
    what it opens to, None for rows without trials of their own."""

    name: str
    top: bool
    entries: Sequence[Entry]
    target: str
    family: str
    new_target: bool
    detail: Detail | None


@dataclass(frozen=True)
class Section:
    """One table's part of the page."""

    view: View
    strips: Markup
    verdicts: Grid
    beside: Mapping[str, Grid]
    targets: Sequence[str]
    rows: Sequence[Row]
    charts: Sequence[Markup]
    legend: Markup
    maps: Sequence[Markup]
    maps_title: str


def html_page(board: Board, views: Sequence[View]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
    )
    parts = ("style.css", "script.js")
    style, script = (Markup((HERE / name).read_text("utf-8")) for name in parts)
    text = environment.get_template("page.html.j2").render(
        board=board,
        head=prose.head(board),
        sections=[_section(board, view) for view in views],
        troubles=prose.troubles(board),
        small_print=prose.SMALL_PRINT,
        style=style,
        script=script,
    )
    return text.strip() + "\n"


def _on_one_line(value: Any) -> Any:
    """A value for the page: text without line breaks and control characters, markup unchanged."""
    return value if isinstance(value, Markup) else one_line(str(value))


def _section(board: Board, view: View) -> Section:
    series, rows = view.series, _rows(board, view)
    task = next(iter(series.table.tasks), "")
    maps = series.matrices.get(task, [])
    most = max((v for one in maps for row in one.values for v in row), default=0.0) or 1.0
    beside = view.beside
    verdicts = beside.pop(HEADINGS["verdicts"], Grid([], []))
    return Section(
        view=view,
        strips=strip_chart(panels_of(series), series.labels),
        verdicts=verdicts,
        beside=beside,
        targets=list(dict.fromkeys(row.target for row in rows if row.target)),
        rows=rows,
        charts=[quality_chart(one, series.labels) for one in series.quality if one.lines],
        legend=legend(series.names, series.labels),
        maps=[heat_map_drawing(one, series.labels, most) for one in maps],
        maps_title=f"Remaining weights by layer and matrix: {task}, target {series.least:g} %;"
        f" white is 0 %, the darkest {most:.1f} % in all maps",
    )


def _rows(board: Board, view: View) -> list[Row]:
    grid, table = view.main.grid, view.table
    rows: list[Row] = []
    for index, (key, entries) in enumerate(zip(view.main.keys, grid.rows, strict=True)):
        target = str(entries[1])
        rows.append(
            Row(
                name=str(entries[0]),
                top=(index, 0) in grid.bold,
                entries=entries[1:],
                target=target,
                family=table.facts_of(key).family if key else "",
                new_target=bool(rows) and target != rows[-1].target,
                detail=_detail(board, view, key) if key and table.of_row(key) else None,
            )
        )
    return rows


def _detail(board: Board, view: View, row: RowKey) -> Detail:
    table, drawings = view.table, []
    for task in table.tasks:
        metric = table.first_metric(task)
        shown = view.series.every_curve.get((row, task), Curve())
        drawings.append(curve_drawing(f"{task} {metric}", shown))
    return Detail(
        seeds=_seeds(table, row),
        curves=drawings,
        settings=_settings(table.of_row(row)),
        command=prose.command(board.suite, table, row),
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
