"""Everything that is written of a suite: the page as markdown and as HTML, tables, figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from leaderboard import prose
from leaderboard.collect import Board, Table, collect, reference
from leaderboard.compare import (
    best_cells,
    compare,
    comparison_grid,
    overall,
    overall_grid,
    reference_of,
)
from leaderboard.figures import draw
from leaderboard.formats import Grid, comma_separated, latex, markdown, plain_text
from leaderboard.html import Section, html_page
from leaderboard.papers import LAYOUTS, paper_grids
from leaderboard.progress import Bar
from leaderboard.published import published_grid
from leaderboard.tables import OFF_TARGET, cost_grid, main_grid, off_target_grid, selection_grid
from zoo.trial import write_whole

PAGE, HTML, COSTS = "LEADERBOARD.md", "leaderboard.html", "COSTS.md"
FIGURES, TABLES = "figures", "tables"
REFERENCE = "magnitude"
"""The method that others are compared with unless another is named."""
WORDS = {
    "off-target": f"Off target by more than {OFF_TARGET:g} points of remaining weights",
    "comparisons": "Is it more than noise: differences with intervals, over seeds and examples",
    "over-tasks": "Over all tasks",
    "selection": "Last step and best evaluation side by side",
    "published": "Published numbers beside ours",
    **{layout.name: layout.words for layout in LAYOUTS},
}
"""Headings of the tables that stand beside the main one."""
BESIDE = (
    f"Seconds and memory stand in [{COSTS}]({COSTS}), every table as LaTeX and CSV in `{TABLES}/`;"
    f" [{HTML}]({HTML}) is this page to sort, filter and open."
)
ALONE = (
    "`python -m leaderboard` on this folder writes the figures, the page to sort and filter, the"
    " costs, and every table as LaTeX and CSV."
)


def write(
    folder: Path,
    out: Path | None = None,
    *,
    figures: bool = True,
    against: str = REFERENCE,
    page_only: bool = False,
) -> Path:
    """Write the pages, the tables, the costs and (unless told not to) the figures of a suite's
    folder into `out` (default: the same folder). Methods are compared with the method `against`.
    `page_only` writes the markdown page alone. Returns the markdown page's path. Raises
    StorageError."""
    out = out or folder
    board = collect(folder)
    drawn, trouble = [], ""
    try:
        drawn = draw(board, out / FIGURES, Bar("figures")) if figures and not page_only else []
    except Exception as error:  # the tables stand without them
        trouble = f"The figures could not be drawn: {type(error).__name__}: {error}"
    for name, text in files(board, against, drawn, trouble, alone=page_only).items():
        if name == PAGE or not page_only:
            write_whole(out / name, text.encode())
    return out / PAGE


def files(
    board: Board,
    against: str,
    drawn: Iterable[tuple[str, Path]] = (),
    trouble: str = "",
    *,
    alone: bool = False,
) -> dict[str, str]:
    """Every text file by name: a pure function of the board and the figures' names. `alone` says
    that the markdown page will be the only one."""
    tables = [grids(board, table, against) for table in board.tables]
    found = {COSTS: costs(board)}
    for number, named in enumerate(tables, 1):
        for name, grid in named.items():
            stem = f"{TABLES}/{number}-{name}"
            found[f"{stem}.tex"], found[f"{stem}.csv"] = latex(grid), comma_separated(grid)
    sections = [
        Section(
            table,
            prose.title(table),
            prose.notes(table),
            {WORDS[name]: grid for name, grid in named.items() if name in WORDS},
        )
        for table, named in zip(board.tables, tables, strict=True)
    ]
    found[HTML] = html_page(
        board,
        head=prose.head(board),
        sections=sections,
        troubles=prose.troubles(board),
        commands=prose.commands(board),
        small_print=prose.SMALL_PRINT,
    )
    found[PAGE] = render(board, tables, drawn, trouble, ALONE if alone else BESIDE)
    return found


def grids(board: Board, table: Table, against: str) -> dict[str, Grid]:
    """The tables of one key by name; those without rows are left out."""
    plain, against = reference(board, table) or table, reference_of(table, against)
    found = {
        "methods": main_grid(board, table, best_cells(table)),
        "off-target": off_target_grid(table),
        "comparisons": comparison_grid(compare(table, plain, against), against),
        "over-tasks": overall_grid(overall(table, against), against),
        "selection": selection_grid(table),
        "published": published_grid(table),
        **paper_grids(board, table),
    }
    return {name: grid for name, grid in found.items() if grid.rows}


def render(
    board: Board,
    tables: Iterable[Mapping[str, Grid]],
    drawn: Iterable[tuple[str, Path]],
    trouble: str,
    more: str,
) -> str:
    """The page as markdown; `more` is its last line, which says what else there is."""
    parts = [f"# {plain_text(board.suite)}", *map(plain_text, prose.head(board))]
    for table, named in zip(board.tables, tables, strict=True):
        parts.append(f"## {plain_text(prose.title(table))}")
        parts += [*map(plain_text, prose.notes(table)), *_shown(named)]
    parts += [plain_text(trouble)] if trouble else []
    for caption, path in drawn:
        parts += [f"### {caption}", f"![{caption}]({FIGURES}/{path.name})"]
    troubles = [f"- {plain_text(line)}" for line in prose.troubles(board)]
    if troubles:
        parts += ["## Failed, diverged and missing", "\n".join(troubles)]
    parts += _commands(board)
    small = [f"- **{term}** {plain_text(words)}" for term, words in prose.SMALL_PRINT]
    parts += ["## Small print", "\n".join(small)]
    parts.append(more)
    return "\n\n".join(parts) + "\n"


def _shown(named: Mapping[str, Grid]) -> list[str]:
    """The main table, and what stands beside it: runs off their target open, the rest folded."""
    parts = [markdown(named["methods"])] if "methods" in named else []
    for name, words in WORDS.items():
        if name in named and name == "off-target":
            parts += [f"**{words}**", markdown(named[name])]
        elif name in named:
            head = f"<details><summary>{words}</summary>"
            parts.append(f"{head}\n\n{markdown(named[name])}\n\n</details>")
    return parts


def _commands(board: Board) -> list[str]:
    lines = []
    for (_, row), command in prose.commands(board).items():
        lines += [f"# {row.method}, {100 * row.density:g} %", command]
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    return [
        "## Run a row again",
        f"<details><summary>Commands</summary>\n\n```\n{block}\n```\n\n</details>",
    ]


def in_a_fence(line: str) -> str:
    """A line that cannot end the block of code that it stands in."""
    return "".join(c if c.isprintable() else "?" for c in line).replace("```", "'''")


def costs(board: Board) -> str:
    """What trials cost; apart from the page, because it is another each time."""
    parts = [
        f"# {plain_text(board.suite)}: costs",
        "Means over seeds, evaluation included in seconds.",
    ]
    for table in board.tables:
        parts += [f"## {plain_text(prose.title(table))}", markdown(cost_grid(table))]
    return "\n\n".join(parts) + "\n"
