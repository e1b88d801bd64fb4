"""Fill the page's template: verdicts, the table of methods, costs, charts and maps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from leaderboard import prose
from leaderboard.collect import Board
from leaderboard.costs import cost_summary
from leaderboard.formats import Entry, Grid
from leaderboard.html.rows import Column, Row, columns_of, rows_of
from leaderboard.html.strips import strip_chart
from leaderboard.html.svg import heat_map_drawing, legend, quality_chart
from leaderboard.panels import panels_of
from leaderboard.view import FORM_SUMMARY, View
from zoo.errors import one_line

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One table's part of the page: `beside` are folded
    tables by heading, `commands` run the whole table again."""

    view: View
    address: str
    strips: Markup
    columns: Sequence[Column]
    rows: Sequence[Row]
    targets: Sequence[str]
    costs: Grid
    commands: Sequence[str]
    beside: Mapping[str, Grid]
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
    environment.tests["number_text"] = is_number_text
    parts = ("style.css", "script.js")
    style, script = (Markup((HERE / name).read_text("utf-8")) for name in parts)
    text = environment.get_template("page.html.j2").render(
        board=board,
        head=prose.head(board),
        sections=[_section(board, view) for view in views],
        troubles=prose.troubles(board),
        forms_heading=FORM_SUMMARY,
        small_print=prose.SMALL_PRINT,
        style=style,
        script=script,
    )
    return text.strip() + "\n"


def _on_one_line(value: Any) -> Any:
    """A value for the page: text without line breaks and control characters, markup unchanged."""
    return value if isinstance(value, Markup) else one_line(str(value))


def is_number_text(entry: Entry) -> bool:
    """Whether an entry is a number as it stands, so that a table can be sorted by its text."""
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", str(entry)) is not None


def _section(board: Board, view: View) -> Section:
    series, table, columns = view.series, view.table, columns_of(view)
    rows = rows_of(board, view, columns)
    task = next(iter(table.tasks), "")
    maps = series.matrices.get(task, [])
    most = max((v for one in maps for row in one.values for v in row), default=0.0) or 1.0
    return Section(
        view=view,
        address=table.key.slug,
        strips=strip_chart(panels_of(series), series.labels),
        columns=columns,
        rows=rows,
        targets=list(dict.fromkeys(row.target for row in rows if row.target)),
        costs=cost_summary(table, view.plain),
        commands=view.commands,
        beside=view.beside,
        charts=[quality_chart(one, series.labels) for one in series.quality if one.lines],
        legend=legend(series),
        maps=[heat_map_drawing(one, series.labels, most) for one in maps],
        maps_title=f"Remaining weights by layer and matrix: {task}, target {series.least:g} %;"
        f" white is 0 %, the darkest {most:.1f} % in all maps",
    )
