"""Everything that is written of a suite: the page as markdown and as HTML, tables, figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from leaderboard import prose
from leaderboard.collect import Board, collect
from leaderboard.figures import draw
from leaderboard.formats import comma_separated, compact, latex, markdown, plain_text
from leaderboard.html import html_page
from leaderboard.tables import cost_grid
from leaderboard.tidy import results_csv
from leaderboard.view import HEADINGS, View
from zoo.errors import cause_of
from zoo.records.storage import write_whole

PAGE, HTML, COSTS = "LEADERBOARD.md", "leaderboard.html", "COSTS.md"
TIDY = "results.csv"
FIGURES, TABLES = "figures", "tables"
OPEN = ("verdicts", "over-target")
"""Tables that the markdown page shows, beside the main one."""
BESIDE = (
    f"Seconds and memory are in [{COSTS}]({COSTS}), every table as LaTeX and CSV in `{TABLES}/`;"
    f" [{TIDY}]({TIDY}) has a row per trial and metric;"
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
    found = {COSTS: costs(board), HTML: html_page(board, views), TIDY: results_csv(board)}
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
        parts += ["\n".join(f"- {plain_text(line)}" for line in view.sentences)]
        parts += [*_shown(view), *map(plain_text, view.notes)]
    parts += [plain_text(trouble)] if trouble else []
    for caption, path in drawn:
        text = plain_text(caption)
        parts += [f"### {text}", f"![{text}]({FIGURES}/{path.name})"]
    troubles = [f"- {plain_text(line)}" for line in prose.troubles(board)]
    if troubles:
        parts += ["## Failed, diverged and missing", "\n".join(troubles)]
    parts += _commands(board, views)
    small = [f"- **{term}** {plain_text(meaning)}" for term, meaning in prose.SMALL_PRINT]
    parts += ["## Small print", "\n".join(small), more]
    return "\n\n".join(parts) + "\n"


def _shown(view: View) -> list[str]:
    """Verdicts, the main table, runs over their target; the names of the rest."""
    open_ones = {name: view.grids[name] for name in OPEN if name in view.grids}
    parts = []
    if "verdicts" in open_ones:
        parts += [f"**{HEADINGS['verdicts']}**", compact(markdown(open_ones.pop("verdicts")))]
    parts += [compact(markdown(view.main.grid))] if view.main.grid.rows else []
    for name, grid in open_ones.items():
        parts += [f"**{HEADINGS[name]}**", compact(markdown(grid))]
    rest = [HEADINGS[name] for name in view.grids if name not in OPEN]
    return parts + ([f"On the HTML page and as files: {'; '.join(rest)}."] if rest else [])


def _commands(board: Board, views: Iterable[View]) -> list[str]:
    """A command per table, that of the first row that prunes; the HTML page has every row's."""
    lines = []
    for view in views:
        rows = [row for row in view.table.rows if view.table.of_row(row)]
        if rows:
            shown = next((row for row in rows if row.density < 1), rows[0])
            lines += [f"# {view.title}", prose.command(board.suite, view.table, shown)]
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    about = "One row of each table; other rows differ in methods, densities and seeds."
    return ["## Run a row again", about, f"```\n{block}\n```"]


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
