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
    where there is little room, "" for the same; `parts` are the other numbers of the text by name,
    which are columns of their own in CSV."""

    value: float
    text: str
    short: str = ""
    parts: Sequence[tuple[str, float]] = ()

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

    def only(self, columns: Sequence[str], labels: Sequence[str]) -> "Grid":
        """These columns, in this order behind the first, and the rows of these methods, given by
        their names for people. No columns or methods are all of them, and so are columns of which
        the table has none."""
        chosen = [self.header.index(name) for name in columns if name in self.header[1:]]
        places = [0, *(chosen or range(1, len(self.header)))]
        kept = [
            number
            for number, row in enumerate(self.rows)
            if not labels or any(_is_of(str(row[0]), name) for name in labels)
        ]
        bold = {
            (i, j)
            for i, row in enumerate(kept)
            for j, column in enumerate(places)
            if (row, column) in self.bold
        }
        rows = [[self.rows[row][column] for column in places] for row in kept]
        return Grid([self.header[column] for column in places], rows, frozenset(bold))


def _is_of(entry: str, name: str) -> bool:
    """Whether the first entry of a row is a method's name, maybe with a variant behind it."""
    return re.fullmatch(re.escape(name) + r"( \([^()]*@[^()]*\))?", entry) is not None


NOTHING = "-"
"""Shown instead of a number that does not exist."""


def quantity(value: float | None, form: str) -> Entry:
    """A number in a format such as ".1f", or "-"."""
    return NOTHING if value is None else Quantity(value, f"{value:{form}}")


def target(density: float) -> Quantity:
    """A target density in percent, as short as it can be."""
    return Quantity(100 * density, f"{100 * density:g}")


def ranged(values: Sequence[float], show: Callable[[float], str]) -> Entry:
    """One number, or the smallest and the largest: '9.52 to 10.10'; sorted by the smallest."""
    if not values:
        return NOTHING
    low, high = show(min(values)), show(max(values))
    text = low if low == high else f"{low} to {high}"
    return Quantity(min(values), text, parts=(("most", max(values)),))


def percent(value: float) -> str:
    """A percentage with two digits behind the point, or two that say something."""
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


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


def latex(grid: Grid, caption: str, label: str) -> str:
    """A table with a booktabs tabular, its entries in their short form."""
    lines = [
        "% \\usepackage{booktabs,amssymb}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(caption)}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        "\\toprule",
        " & ".join(map(latex_text, grid.header)) + " \\\\",
        "\\midrule",
    ]
    for i, row in enumerate(grid.rows):
        texts = [latex_text(str(getattr(c, "short", "") or c)) for c in row]
        cells = [f"\\textbf{{{t}}}" if (i, j) in grid.bold else t for j, t in enumerate(texts)]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def comma_separated(grid: Grid) -> str:
    """CSV as in RFC 4180, with line feeds. A column of numbers holds numbers alone: their parts are
    columns behind it, and what stands there as text is in a column "... note". No entry can be
    taken for a formula."""
    columns = [
        column
        for number, header in enumerate(grid.header)
        for column in _csv_columns(header, [row[number] for row in grid.rows])
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for line in zip(*columns, strict=True):
        writer.writerow(list(map(csv_text, line)))
    return stream.getvalue()


TEXTS = (
    *("Method", "Task", "Metric", "Device", "Distilled", "Dominated by", "Verdict", "Source"),
    *("Form", "Size of", "Where", "Model"),
)
"""Columns of text; all others hold numbers."""


def _csv_columns(header: str, entries: Sequence[Entry]) -> list[list[str]]:
    """The columns of one column, each with its header first."""
    numbers = [entry for entry in entries if isinstance(entry, Quantity)]
    if not numbers and header in TEXTS:
        return [[header, *("" if entry == NOTHING else str(entry) for entry in entries)]]
    names = dict.fromkeys(name for entry in numbers for name, _ in entry.parts)
    found = [[header, *(_csv_number(getattr(entry, "value", "")) for entry in entries)]]
    for name in names:
        parts = [dict(getattr(entry, "parts", ())).get(name, "") for entry in entries]
        found.append([f"{header} {name}", *map(_csv_number, parts)])
    notes = ["" if isinstance(e, Quantity) or e == NOTHING else e for e in entries]
    return found + ([[f"{header} note", *notes]] if any(notes) else [])


def _csv_number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


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
    "≥": "$\\geq$",
    "×": "$\\times$",
    "−": "$-$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    line = "".join(LATEX.get(c, c) for c in one_line(text))
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # not an option of what precedes


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
