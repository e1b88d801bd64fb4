"""The markdown page of a suite."""

from collections.abc import Iterable, Sequence

from leaderboard import prose
from leaderboard.collect import Board
from leaderboard.costs import cost_grid, cost_summary
from leaderboard.figures import Drawn
from leaderboard.formats import compact, markdown, plain_text
from leaderboard.view import FORM_SUMMARY, HEADINGS, View

PAGE, HTML, COSTS = "LEADERBOARD.md", "leaderboard.html", "COSTS.md"
TIDY = "results.csv"
FIGURES, TABLES = "figures", "tables"
OPEN = ("verdicts", "over-target", "beside")
"""Tables that the markdown page shows, beside the main one."""
BESIDE = (
    f"Every table is in `{TABLES}/` as LaTeX and CSV; [{TIDY}]({TIDY}) has a row per trial and"
    f" metric; [{HTML}]({HTML}) is this page to sort, filter and open."
)
ALONE = (
    "`python -m leaderboard` on this folder writes the figures, the page to sort and filter, and"
    " every table as LaTeX and CSV."
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
    parts += [f"What trials cost: [{COSTS}]({COSTS})."]
    for view in views:
        parts.append(f"## {plain_text(view.title)}")
        parts += ["\n".join(_verdict(clauses) for clauses in view.said)]
        parts += [*_shown(view), *map(plain_text, view.notes)]
        for caption, path in drawn.get(view.table.key.slug, ()):
            text = plain_text(caption)
            parts += [f"**{text}**", f"![{text}]({FIGURES}/{path.name})"]
    parts += [plain_text(trouble)] if trouble else []
    troubles = [f"- {plain_text(line)}" for line in prose.troubles(board)]
    if troubles:
        parts += ["## Failed, diverged and missing", "\n".join(troubles)]
    parts += _commands(views)
    small = [f"- **{term}** {plain_text(meaning)}" for term, meaning in prose.SMALL_PRINT]
    parts += ["## Small print", "\n".join(small), ALONE if alone else BESIDE]
    return "\n\n".join(parts) + "\n"


def _verdict(clauses: Sequence[str]) -> str:
    """A target's verdict as a list in a list, its first clause stressed."""
    first, *others = map(plain_text, clauses)
    return "\n".join([f"- **{first}**", *(f"  - {other}" for other in others)])


def _shown(view: View) -> list[str]:
    """Verdicts, the main table, runs over their target, other checkpoints, sizes and speed; the
    names of the rest."""
    open_ones = {name: view.grids[name] for name in OPEN if name in view.grids}
    parts = []
    if "verdicts" in open_ones:
        parts += [f"**{HEADINGS['verdicts']}**", compact(markdown(open_ones.pop("verdicts")))]
    parts += [compact(markdown(view.main.grid))] if view.main.grid.rows else []
    for name, grid in open_ones.items():
        parts += [f"**{HEADINGS[name]}**", compact(markdown(grid))]
    if view.forms.rows:
        parts += [f"**{FORM_SUMMARY}**", compact(markdown(view.forms))]
    rest = [HEADINGS[name] for name in view.grids if name not in OPEN]
    return parts + ([f"On the HTML page and as files: {'; '.join(rest)}."] if rest else [])


def _commands(views: Iterable[View]) -> list[str]:
    """A command per table; the HTML page has every row's."""
    lines = []
    for view in views:
        lines += [f"# {view.title}", *view.commands] if view.commands else []
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    return ["## Run it again", f"```\n{block}\n```"]


def in_a_fence(line: str) -> str:
    """A line that cannot end the block of code that it is in."""
    return "".join(c if c.isprintable() else "?" for c in line).replace("```", "'''")


def costs(board: Board, views: Iterable[View]) -> str:
    """What trials cost; apart from the page, because it differs each time."""
    hours = sum(result.cost.seconds for result in board.results) / 3600
    parts = [
        f"# {plain_text(board.suite)}: costs",
        f"{len(board.results)} trials took {hours:.1f} hours, one after another. Means ± std over"
        " tasks and seeds, runs over their target and evaluations included; the peak is the"
        " highest, of the whole process.",
    ]
    for view in views:
        parts += [f"## {plain_text(view.title)}", "At the lowest target of each method:"]
        parts += [compact(markdown(cost_summary(view.table, view.plain))), "Task by task:"]
        parts += [compact(markdown(cost_grid(view.table)))]
    return "\n\n".join(parts) + "\n"
