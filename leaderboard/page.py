"""Everything that is written of a suite: the page as markdown and as HTML, tables, figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from leaderboard import prose
from leaderboard.collect import Board, collect
from leaderboard.figures import draw
from leaderboard.formats import comma_separated, latex, markdown, plain_text
from leaderboard.html import html_page
from leaderboard.tables import cost_grid
from leaderboard.view import HEADINGS, View
from zoo.errors import cause_of
from zoo.records.storage import write_whole

PAGE, HTML, COSTS = "LEADERBOARD.md", "leaderboard.html", "COSTS.md"
FIGURES, TABLES = "figures", "tables"
BESIDE = (
    f"Seconds and memory are in [{COSTS}]({COSTS}), every table as LaTeX and CSV in `{TABLES}/`;"
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
    against: str | None = None,
    page_only: bool = False,
) -> Path:
    """Write the pages, the tables, the costs and (unless `figures` is False) the figures of a
    suite's folder into `out` (default: the same folder).

    Methods are compared with the method `against`, or with the first that prunes. `page_only`
    writes the markdown page alone. Returns the markdown page's path. Raises StorageError.
    """
    out = out or folder
    board = collect(folder)
    views = [View(board, table, against) for table in board.tables]
    drawn, trouble = [], ""
    if figures and not page_only:
        try:
            drawn = draw([view.series for view in views], out / FIGURES)
        except Exception as error:  # the page is written without them
            trouble = f"The figures could not be drawn: {cause_of(error)}"
    found = {PAGE: markdown_page(board, views, drawn, trouble, ALONE if page_only else BESIDE)}
    if not page_only:
        found |= other_files(board, views)
    for name, text in found.items():
        write_whole(out / name, text.encode())
    return out / PAGE


def other_files(board: Board, views: Sequence[View]) -> dict[str, str]:
    """Every text file but the markdown page, by name."""
    found = {COSTS: costs(board), HTML: html_page(board, views)}
    for number, view in enumerate(views, 1):
        for name, grid in view.all_grids.items():
            stem = f"{TABLES}/{number}-{name}"
            found[f"{stem}.tex"], found[f"{stem}.csv"] = latex(grid), comma_separated(grid)
    return found


def markdown_page(
    board: Board,
    views: Iterable[View],
    drawn: Iterable[tuple[str, Path]] = (),
    trouble: str = "",
    more: str = ALONE,
) -> str:
    """The page as markdown; `more` is its last line, which says what else there is."""
    views = list(views)
    parts = [f"# {plain_text(board.suite)}", *map(plain_text, prose.head(board))]
    for view in views:
        parts.append(f"## {plain_text(view.title)}")
        parts += [*map(plain_text, view.notes), *_shown(view)]
    parts += [plain_text(trouble)] if trouble else []
    for caption, path in drawn:
        parts += [f"### {caption}", f"![{caption}]({FIGURES}/{path.name})"]
    troubles = [f"- {plain_text(line)}" for line in prose.troubles(board)]
    if troubles:
        parts += ["## Failed, diverged and missing", "\n".join(troubles)]
    parts += _commands(board, views)
    small = [f"- **{term}** {plain_text(meaning)}" for term, meaning in prose.SMALL_PRINT]
    parts += ["## Small print", "\n".join(small), more]
    return "\n\n".join(parts) + "\n"


def _shown(view: View) -> list[str]:
    """The main table and those beside it: runs off their target open, the rest folded."""
    parts = [markdown(view.main.grid)] if view.main.grid.rows else []
    for name, heading in HEADINGS.items():
        if name not in view.grids:
            continue
        text = markdown(view.grids[name])
        if name == "off-target":
            parts += [f"**{heading}**", text]
        else:
            parts.append(f"<details><summary>{heading}</summary>\n\n{text}\n\n</details>")
    return parts


def _commands(board: Board, views: Iterable[View]) -> list[str]:
    lines = []
    for view in views:
        for row in view.table.rows:
            command = prose.command(board.suite, view.table, row)
            if command:
                name = (
                    f"{row.method} {row.variant}".strip() + ", distilled" * view.table.key.distill
                )
                lines += [f"# {name}, {100 * row.density:g} %", command]
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    return [
        "## Run a row again",
        f"<details><summary>Commands</summary>\n\n```\n{block}\n```\n\n</details>",
    ]


def in_a_fence(line: str) -> str:
    """A line that cannot end the block of code that it is in."""
    return "".join(c if c.isprintable() else "?" for c in line).replace("```", "'''")


def costs(board: Board) -> str:
    """What trials cost; apart from the page, because it differs each time."""
    parts = [
        f"# {plain_text(board.suite)}: costs",
        "Means over seeds, evaluation included in seconds.",
    ]
    for table in board.tables:
        parts += [f"## {plain_text(prose.title(table))}", markdown(cost_grid(table))]
    return "\n\n".join(parts) + "\n"
