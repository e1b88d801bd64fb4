"""Grids as markdown, LaTeX or CSV. Numbers become text here and in html/, not
before; a name that a user chose changes only the entry that shows it."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from zoo.errors import one_line


@dataclass(frozen=True)
class Quantity:
    """A number with the text that shows it; tables are sorted by the number. `short` is the text
    where there is little room, "" for the same."""

    value: float
    text: str
    short: str = ""

    def __str__(self) -> str:
        return self.text


Entry = str | Quantity
"""One entry of a grid."""


@dataclass(frozen=True)
class Grid:
    """A table. `bold` holds (row, column) of entries to stress; the first column is left-aligned,
    the others are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows), self.header


NOTHING = "-"
"""Shown instead of a number that does not exist."""


def quantity(value: float | None, form: str) -> Entry:
    """A number in a format such as ".1f", or "-"."""
    return NOTHING if value is None else Quantity(value, f"{value:{form}}")


def ranged(values: Sequence[float], show: Callable[[float], str]) -> Entry:
    """One number, or the smallest and the largest: '9.52 to 10.10'; sorted by the smallest."""
    if not values:
        return NOTHING
    low, high = show(min(values)), show(max(values))
    return Quantity(min(values), low if low == high else f"{low} to {high}")


def percent(value: float) -> str:
    """A percentage with two digits."""
    return f"{value:.2f}"


def amount(number: float) -> str:
    """A count of parameters in millions, or in thousands if it is small."""
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"


def markdown(grid: Grid) -> str:
    """A pipe table; "" without rows."""
    if not grid.rows:
        return ""
    body = [
        [stressed(c, (i, j) in grid.bold) for j, c in enumerate(r)] for i, r in enumerate(grid.rows)
    ]
    sides = ["left"] + ["right"] * (len(grid.header) - 1)
    header = [plain_text(h) for h in grid.header]
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=sides)


def compact(table: str) -> str:
    """A pipe table without the spaces that line up its columns, which only its source shows."""
    return re.sub(r"-{4,}", "---", re.sub(r" {2,}", " ", table))


def stressed(entry: Entry, bold: bool) -> str:
    """An entry as markdown."""
    text = plain_text(str(entry))
    return f"**{text}**" if bold else text


def latex(grid: Grid) -> str:
    """A booktabs tabular."""
    lines = [
        f"\\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        "\\toprule",
        " & ".join(map(latex_text, grid.header)) + " \\\\",
        "\\midrule",
    ]
    for i, row in enumerate(grid.rows):
        cells = [
            f"\\textbf{{{latex_text(str(c))}}}" if (i, j) in grid.bold else latex_text(str(c))
            for j, c in enumerate(row)
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def comma_separated(grid: Grid) -> str:
    """CSV as in RFC 4180, with line feeds; no entry can be taken for a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in (grid.header, *grid.rows):
        writer.writerow([csv_text(str(entry)) for entry in row])
    return stream.getvalue()


MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&<>|`[]*\\"})
"""Characters with a meaning in markdown or HTML, as entities; underscores inside words have
none."""


def plain_text(text: str) -> str:
    """Text that changes no column, tag or link of a markdown page; one line."""
    return one_line(text).translate(MARKUP)


LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "±": "$\\pm$",
    "Δ": "$\\Delta$",
    "▽": "$\\triangledown$",
    "‡": "$\\ddagger$",
    "≤": "$\\leq$",
    "×": "$\\times$",
    "−": "$-$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(c, c) for c in one_line(text))


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: numbers are unchanged, other text that begins
    like a formula gets a quote in front."""
    line = one_line(text)
    if not line.startswith(("=", "+", "-", "@")):
        return line
    try:
        float(line)
    except ValueError:
        return line if line == "-" else f"'{line}"
    return line
