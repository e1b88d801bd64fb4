"""The markdown page of a suite."""

from collections.abc import Iterable

from leaderboard import prose
from leaderboard.collect import Board
from leaderboard.costs import cost_grid
from leaderboard.figures import Drawn
from leaderboard.formats import compact, markdown, plain_text
from leaderboard.view import HEADINGS, View

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


def markdown_page(
    board: Board,
    views: Iterable[View],
    drawn: Drawn,
    trouble: str = "",
    *,
    alone: bool = True,
) -> str:
    """The page as markdown; `alone` if no other file is written beside it."""
    views = list(views)
    parts = [f"# {plain_text(board.suite)}", *map(plain_text, prose.head(board))]
    for view in views:
        parts.append(f"## {plain_text(view.title)}")
        parts += ["\n".join(f"- {plain_text(line)}" for line in view.sentences)]
        parts += [*_shown(view), *map(plain_text, view.notes)]
        for caption, path in drawn.get(view.table.key.slug, ()):
            text = plain_text(caption)
            parts += [f"**{text}**", f"![{text}]({FIGURES}/{path.name})"]
    parts += [plain_text(trouble)] if trouble else []
    troubles = [f"- {plain_text(line)}" for line in prose.troubles(board)]
    if troubles:
        parts += ["## Failed, diverged and missing", "\n".join(troubles)]
    parts += _commands(board, views)
    small = [f"- **{term}** {plain_text(meaning)}" for term, meaning in prose.SMALL_PRINT]
    parts += ["## Small print", "\n".join(small), ALONE if alone else BESIDE]
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
    """A command per table; the HTML page has every row's."""
    lines = []
    for view in views:
        words = prose.command(board, view.table, view.table.rows)
        lines += [f"# {view.title}", words] if words else []
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    return ["## Run it again", f"```\n{block}\n```"]


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
