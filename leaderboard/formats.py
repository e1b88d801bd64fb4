"""A grid of texts as markdown, LaTeX or CSV; names from users change nothing but their own cell."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate


@dataclass(frozen=True)
class Grid:
    """A table of texts. `bold` holds (row, column) of cells to stress; the first column is text,
    the others are figures and stand right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def markdown(grid: Grid) -> str:
    """A pipe table; "" without rows."""
    if not grid.rows:
        return ""
    body = [
        [f"**{plain_text(c)}**" if (i, j) in grid.bold else plain_text(c) for j, c in enumerate(r)]
        for i, r in enumerate(grid.rows)
    ]
    sides = ["left"] + ["right"] * (len(grid.header) - 1)
    header = [plain_text(h) for h in grid.header]
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=sides)


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
            f"\\textbf{{{latex_text(c)}}}" if (i, j) in grid.bold else latex_text(c)
            for j, c in enumerate(row)
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def comma_separated(grid: Grid) -> str:
    """CSV as RFC 4180 has it, with line feeds; no cell can be taken for a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in (grid.header, *grid.rows):
        writer.writerow([csv_text(cell) for cell in row])
    return stream.getvalue()


def one_line(text: str) -> str:
    """Text without line breaks, control and direction characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&<>|`[]*\\"})
"""What means something to markdown or HTML, as entities; underscores inside words do not."""


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
    "×": "$\\times$",
    "−": "$-$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(c, c) for c in one_line(text))


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: numbers stay, else a quote goes before."""
    line = one_line(text)
    if not line.startswith(("=", "+", "-", "@")):
        return line
    try:
        float(line)
    except ValueError:
        return line if line == "-" else f"'{line}"
    return line
