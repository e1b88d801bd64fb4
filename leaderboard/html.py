"""The page as one HTML file: no server, no request, readable without its script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from leaderboard.collect import Board, Cell, RowKey, Table, reference
from leaderboard.compare import best_cells
from leaderboard.formats import Grid, one_line
from leaderboard.maps import TYPES, by_matrix
from leaderboard.statistics import mean, sample_std
from leaderboard.svg import Line, Point, curve, heat_map, legend, quality_chart
from leaderboard.tables import (
    at_target,
    in_order,
    label,
    main_grid,
    metrics_of,
    off_target,
    remaining_text,
    values,
)
from zoo.trial import Result

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One table's part of the page: what all its trials share, notes, and the tables beside the
    main one by their headings. Texts are plain."""

    table: Table
    title: str
    notes: Sequence[str]
    beside: Mapping[str, Grid]


def html_page(
    board: Board,
    *,
    head: Sequence[str],
    sections: Sequence[Section],
    troubles: Sequence[str],
    commands: Mapping[tuple[int, RowKey], str],
    small_print: Sequence[tuple[str, str]],
) -> str:
    """The whole page from plain texts; `commands` by the section's number and row."""
    style, script = ((HERE / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    parts = [f"<p>{text(line)}</p>" for line in head]
    for number, section in enumerate(sections):
        own = {row: command for (n, row), command in commands.items() if n == number}
        parts.append(_section(board, f"d{number}", section, own))
    if troubles:
        items = "".join(f"<li>{text(line)}</li>" for line in troubles)
        parts.append(f"<h2>Failed, diverged and missing</h2><ul>{items}</ul>")
    items = "".join(f"<li><b>{text(term)}</b> {text(words)}</li>" for term, words in small_print)
    parts.append(f'<h2>Small print</h2><ul class="soft">{items}</ul>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(board.suite)}: leaderboard</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><header><h1>{text(board.suite)}</h1>"
        '<button class="theme" type="button">Light / dark</button></header>'
        f"<main>{''.join(parts)}</main><script>{script}</script></body></html>\n"
    )


def text(words: str) -> str:
    """One line of text that is nothing but text."""
    return escape(one_line(words))


def _section(board: Board, prefix: str, section: Section, commands: Mapping[RowKey, str]) -> str:
    table = section.table
    grid = main_grid(board, table, best_cells(table))
    rows = in_order(table.rows)
    first = len(grid.rows) - len(rows)
    targets = list(dict.fromkeys(f"{100 * row.density:g}" for row in rows))
    options = "".join(f'<option value="{t}">{t} %</option>' for t in targets)
    head = "".join(
        f'<th scope="col"><button type="button">{text(name)}</button></th>' for name in grid.header
    )
    body = []
    for index, cells in enumerate(grid.rows):
        key = rows[index - first] if index >= first else None
        fresh = index > 0 and cells[1] != grid.rows[index - 1][1]
        body.append(
            _row(
                f"{prefix}-{index}",
                cells,
                [(index, j) in grid.bold for j in range(len(cells))],
                fresh,
                _detail(table, key, commands.get(key, "")) if key else "",
            )
        )
    described = "".join(f'<p class="notes">{text(note)}</p>' for note in section.notes)
    folded = "".join(
        f"<details><summary>{text(words)}</summary>{static_table(one)}</details>"
        for words, one in section.beside.items()
    )
    return (
        f'<section class="table"><h2>{text(section.title)}</h2>{described}'
        '<div class="tools"><label>Filter <input type="search" placeholder="method"></label>'
        f'<label>Target <select><option value="">all</option>{options}</select></label>'
        f'<output class="soft">{len(grid.rows)} rows</output></div>'
        f'<div class="scroll"><table class="main"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{folded}{_figures(board, table)}</section>"
    )


def _row(name: str, cells: Sequence[str], bold: Sequence[bool], fresh: bool, detail: str) -> str:
    shown = []
    for cell, strong in zip(cells[1:], bold[1:], strict=True):
        number = cell.split(" ")[0].rstrip("Mk%")
        value = f' data-v="{_number(cell)}"' if _number(number) is not None else ""
        inside = f"<strong>{text(cell)}</strong>" if strong else text(cell)
        shown.append(f"<td{value}>{inside}</td>")
    target = text(cells[1])
    return (
        f'<tr class="row{" new-target" if fresh else ""}" data-target="{target}"><th scope="row">'
        f'<button type="button" class="open" aria-expanded="false" aria-controls="{name}">'
        f"{text(cells[0])}</button></th>{''.join(shown)}</tr>"
        f'<tr class="detail" id="{name}" hidden><td colspan="{len(cells)}">'
        f'<div class="inside">{detail or "No runs of its own."}</div></td></tr>'
    )


def _number(cell: str) -> float | None:
    """The figure that a cell starts with, for sorting; counts in their own unit."""
    word = cell.split(" ")[0]
    scale = {"M": 1e6, "k": 1e3}.get(word[-1:], 1.0)
    try:
        return float(word.rstrip("Mk")) * scale
    except ValueError:
        return None


def _detail(table: Table, row: RowKey, command: str) -> str:
    """What a row opens to: its seeds, its curves, its hyper-parameters, how to run it again."""
    results = table.of_row(row)
    if not results:
        return ""
    seeds = static_table(_seeds(table, row))
    curves = "".join(
        _curve(table, table.cells.get((row, task), Cell()), task) for task in table.tasks
    )
    settings = static_table(_settings(results))
    again = f"<h3>Run it again</h3><code>{text(command)}</code>" if command else ""
    return (
        f'<h3>Seeds</h3><div class="wide">{seeds}</div><div class="curves">{curves}</div>'
        f'<h3>Hyper-parameters</h3><div class="wide">{settings}</div>{again}'
    )


def _seeds(table: Table, row: RowKey) -> Grid:
    names = [(task, metric) for task in table.tasks for metric in metrics_of(table, task)]
    by_seed: dict[int, dict[str, Result]] = {}
    for result in table.of_row(row):
        by_seed.setdefault(result.trial.seed, {})[result.trial.task] = result
    rows = []
    for seed, found in sorted(by_seed.items()):
        scores = []
        for task, metric in names:
            score = found[task].metrics.get(metric) if task in found else None
            scores.append("-" if score is None else f"{score:.2f}")
        status = {r.status for r in found.values()}
        seconds = sum(r.cost["seconds"] for r in found.values())
        measured = remaining_text(list(found.values()))
        rows.append([str(seed), ", ".join(sorted(status)), measured, *scores, f"{seconds:.0f}"])
    header = ["Seed", "Status", "Remaining %", *(f"{t} {m}" for t, m in names), "Seconds"]
    return Grid(header, rows)


def _settings(results: Sequence[Result]) -> Grid:
    """Hyper-parameters and their sources; where tasks differ, each task's own."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for name, value in {**result.trial.train, **result.trial.hyper}.items():
            tasks = by_name.setdefault(name, {}).setdefault(_value(value), [])
            if result.trial.task not in tasks:
                tasks.append(result.trial.task)
    rows = []
    for name, found in by_name.items():
        parts = [v if len(found) == 1 else f"{v} ({', '.join(t)})" for v, t in found.items()]
        told = [r.environment.get("sources", {}).get(name, "") for r in results]
        sources = "; ".join(dict.fromkeys(filter(None, told))) or "see docs/fidelity.md"
        rows.append([name, "; ".join(parts), sources])
    return Grid(["Value", "Used", "Source"], rows)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _curve(table: Table, cell: Cell, task: str) -> str:
    """The mean over seeds of the first metric at each evaluation, and of the density."""
    metric = next(iter(metrics_of(table, task)), "")
    by_step: dict[int, list[tuple[float, float]]] = {}
    for result in at_target(cell):
        for point in result.curve:
            if point.get(metric) is not None:
                by_step.setdefault(point["step"], []).append((point[metric], point["density"]))
    if not by_step:
        return ""
    last = max(by_step)
    points = [(step / last, mean([y for y, _ in found])) for step, found in sorted(by_step.items())]
    density = [mean([d for _, d in found]) for _, found in sorted(by_step.items())]
    return curve(f"{task} {metric}", points, density)


def static_table(grid: Grid) -> str:
    """A grid as a plain HTML table."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in grid.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in grid.rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _figures(board: Board, table: Table) -> str:
    source = reference(board, table) or table
    pruned = [row for row in in_order(table.rows) if row.density < 1]
    order = list(dict.fromkeys(_series(row) for row in pruned))
    charts = [
        _chart(table, source, pruned, order, task)
        for task in table.tasks
        if metrics_of(table, task)
    ]
    if not any(charts):
        return ""
    labels = {_series(row): label(row, table.of_row(row)) for row in reversed(pruned)}
    return (
        "<h3>Quality against measured remaining weights</h3>"
        f'<div class="charts">{"".join(charts)}</div>{legend(order, labels)}'
        f"{_maps(table, pruned)}"
    )


def _series(row: RowKey) -> str:
    return f"{row.method} {row.variant}".strip()


def _chart(
    table: Table, source: Table, pruned: Sequence[RowKey], order: Sequence[str], task: str
) -> str:
    metric = metrics_of(table, task)[0]
    series: dict[str, list[Point]] = {}
    for row in pruned:
        cell = table.cells.get((row, task), Cell())
        alone = [[result] for result in cell.ok if off_target(result)]
        for results in (at_target(cell), *alone):
            scores = values(results, metric)
            if scores:
                x, spread = (
                    mean([100 * r.remaining["density"] for r in results]),
                    sample_std(scores),
                )
                plus = "" if spread is None else f" ± {spread:.1f}"
                words = f"{label(row, results)}: {mean(scores):.1f}{plus} at {x:.2f} %"
                point = Point(x, mean(scores), spread or 0.0, words)
                series.setdefault(_series(row), []).append(point)
    lines = []
    for row in (r for r in in_order(source.rows) if r.density == 1):
        scores = values(source.cells.get((row, task), Cell()).ok, metric)
        if scores:
            lines.append(Line(mean(scores), f"{row.method}: {mean(scores):.1f}"))
    targets = sorted({100 * row.density for row in pruned})
    return quality_chart(f"{task}: {metric}", series, order, lines[:3], targets)


def _maps(table: Table, pruned: Sequence[RowKey]) -> str:
    """Remaining weights by layer and matrix at the lowest target, where they differ."""
    lowest = min((row.density for row in pruned), default=0.0)
    drawn = []
    for task in table.tasks[:1]:
        for row in (row for row in pruned if row.density == lowest):
            there = at_target(table.cells.get((row, task), Cell()))
            results = [result for result in there if result.remaining["heads"]]
            cells = _matrix_means(results)
            if cells and max(map(max, cells)) - min(map(min, cells)) > 0.1:
                name = label(row, results)
                layers = [str(i + 1) for i in range(len(cells))]
                drawn.append(heat_map(name, layers, list(TYPES.values()), cells))
    if not drawn:
        return ""
    title = f"Remaining weights by layer and matrix: {table.tasks[0]}, target {100 * lowest:g} %"
    return f'<h3>{text(title)}</h3><div class="maps">{"".join(drawn)}</div>'


def _matrix_means(results: Sequence[Result]) -> list[list[float]]:
    """Remaining weights in percent by layer and type, means over results."""
    grids = [by_matrix(result) for result in results]
    layers = sorted({layer for layer, _ in grids[0]}) if grids else []
    return [[mean([g[i, kind] for g in grids]) for kind in TYPES.values()] for i in layers]
