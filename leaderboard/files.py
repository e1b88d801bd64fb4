"""Everything that is written of a suite: pages, tables and figures, and whether they are up to
date."""

import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from leaderboard.beside import shown
from leaderboard.collect import SLUG, Board, collect
from leaderboard.figures import FIGURE, Drawn, draw
from leaderboard.formats import comma_separated, latex
from leaderboard.html import html_page
from leaderboard.page import COSTS, FIGURES, HTML, PAGE, TABLES, TIDY, costs, markdown_page
from leaderboard.tidy import results_csv
from leaderboard.view import ALL, HEADINGS, View, Wanted
from zoo.errors import ConfigError, StaleError, StorageError, cause_of, unknown
from zoo.records.storage import write_whole

COMPARED = (".md", ".html", ".csv", ".tex", ".svg")
"""Endings of the files that `check` compares."""


def write(
    folder: Path,
    out: Path | None = None,
    *,
    figures: bool = True,
    page_only: bool = False,
    wanted: Wanted = ALL,
) -> Path:
    """Write the pages, tables and figures of a suite's folder into `out` (default: the same
    folder); see `write_board`."""
    how = {"figures": figures, "page_only": page_only}
    return write_board(collect(folder), out or folder, **how, wanted=wanted)


def write_board(
    board: Board,
    out: Path,
    *,
    figures: bool = True,
    page_only: bool = False,
    wanted: Wanted = ALL,
) -> Path:
    """Write the pages, the tables, the costs and (unless `figures` is False) the figures of a board
    into `out`, and remove tables and figures that its results no longer have.

    `page_only` writes the markdown page and the costs alone. Returns the markdown page's path.
    Raises StorageError.
    """
    views = [View(board, table, wanted) for table in shown(board)]
    trouble = ""
    drawn: Drawn = {}
    _check_columns(views, wanted)
    if figures and not page_only:
        try:
            drawn, trouble = draw([view.series for view in views], out / FIGURES)
        except Exception as error:  # the page is written without them
            trouble = f"The figures could not be drawn: {cause_of(error)}"
    page = markdown_page(board, views, drawn, trouble, alone=page_only)
    every = [View(board, table, wanted) for table in board.tables]
    found = {PAGE: page, COSTS: costs(board, every)}
    if not page_only:
        found |= other_files(board, views, wanted)
    for name, text in found.items():
        write_whole(out / name, text.encode())
    if not page_only:
        made = [path.relative_to(out) for shown in drawn.values() for _, path in shown]
        made += [path.with_suffix(".svg") for path in made]
        for name in left_over(out, {*map(str, made), *found}, figures=figures and not trouble):
            _remove(out / name)
    return out / PAGE


def _check_columns(views: Sequence[View], wanted: Wanted) -> None:
    """Raise ConfigError for a column that no table has."""
    if wanted.columns:
        grids = [grid for view in views for grid in view.all_grids.values()]
        headers = {name for grid in grids for name in grid.header[1:]}
        for column in wanted.columns:
            if column not in headers:
                raise ConfigError(unknown("column", column, headers))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} is out of date and cannot be removed: {error}") from None


def other_files(board: Board, views: Sequence[View], wanted: Wanted) -> dict[str, str]:
    """Every text file but the markdown page and the costs, by name."""
    found = {HTML: html_page(board, views), TIDY: results_csv(board)}
    for view in views:
        slug = view.table.key.slug
        for name, grid in view.all_grids.items():
            stem = f"{TABLES}/{slug}-{name}"
            chosen = grid.only(wanted.columns, view.labels_of(wanted.methods))
            caption = f"{HEADINGS[name]}: {view.title}."
            found[f"{stem}.tex"] = latex(chosen, caption, f"tab:{slug}-{name}")
            found[f"{stem}.csv"] = comma_separated(grid)
    return found


def left_over(out: Path, made: Collection[str], *, figures: bool = True) -> list[str]:
    """Tables, and with `figures` figures, of an earlier write that are not among those `made`; all
    relative to `out`. Files without a table's slug in their names are somebody else's."""
    kinds = "|".join(map(re.escape, HEADINGS))
    ours = re.compile(rf"{TABLES}/{SLUG}-({kinds})\.(tex|csv)|{FIGURES}/{SLUG}-{FIGURE}\.(svg|png)")
    found = [*(out / TABLES).glob("*")] + [*(out / FIGURES).glob("*")] * figures
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    names = [str(path.relative_to(out)) for path in files if not path.parent.is_symlink()]
    return sorted(name for name in names if ours.fullmatch(name) and name not in made)


def check(board: Board, out: Path, wanted: Wanted = ALL, *, page_only: bool = False) -> None:
    """Raise StaleError if a file in `out` is not what the results of a board give, or is a table or
    figure that they no longer have.

    All files must exist, but for those beside the page and the costs where there is no HTML page or
    `page_only` asks for no more, and figures where there is no folder of them. Text and SVG are
    compared byte by byte. PNG files are not: another processor or font library draws other pixels.
    """
    figures, page_only = (out / FIGURES).is_dir(), page_only or not (out / HTML).exists()
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        write_board(board, fresh, figures=figures, page_only=page_only, wanted=wanted)
        made = sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file())
        stale = [name for name in made if _differs(fresh / name, out / name)]
    stale += [] if page_only else left_over(out, made, figures=figures)
    if stale:
        raise StaleError(
            f"{out}: {', '.join(stale[:5])}{' and more' * (len(stale) > 5)} are not what the result"
            f" files give; run python -m leaderboard with the same words without --check"
        )


def _differs(fresh: Path, written: Path) -> bool:
    if not written.is_file():
        return True
    return fresh.suffix in COMPARED and fresh.read_bytes() != written.read_bytes()
