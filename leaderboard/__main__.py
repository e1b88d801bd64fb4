"""python -m leaderboard FOLDER: write the pages, tables and figures of a suite's results again."""

import argparse
import sys
import tempfile
from pathlib import Path

from leaderboard.collect import Board, collect
from leaderboard.page import FIGURES, HTML, PAGE, write
from zoo.errors import BenchmarkError, ConfigError, StaleError, unknown

COMPARED = (".md", ".html", ".csv", ".tex", ".svg")
"""Endings of the files that --check compares."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    parser.add_argument("folder", type=Path, help="a suite's results, e.g. results/high_sparsity")
    parser.add_argument("--out", type=Path, help="where to write (default: the same folder)")
    parser.add_argument(
        "--reference",
        help="the method that others are compared with (default: the first that prunes)",
    )
    parser.add_argument(
        "--page-only",
        action="store_true",
        help=f"write {PAGE} alone, without figures, tables and the HTML page",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"write nothing; exit {StaleError.exit_code} if a file is out of date",
    )
    options = parser.parse_args(argv)
    try:
        if not options.folder.is_dir():
            raise ConfigError(f"{options.folder} is not a folder of results")
        board = collect(options.folder)
        if not (board.tables or board.unreadable):
            raise ConfigError(
                f"{options.folder} holds no results; give a suite's folder, such as"
                " results/high_sparsity"
            )
        if options.reference:
            check_reference(board, options.reference)
        if options.check:
            check(options.folder, options.out or options.folder, options.reference)
            return 0
        how = {"against": options.reference, "page_only": options.page_only}
        print(write(options.folder, options.out, **how))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check_reference(board: Board, wanted: str) -> None:
    """Raise ConfigError unless a method of this name prunes in one of the tables."""
    known = {row.method for table in board.tables for row in table.rows if row.density < 1}
    if wanted not in known:
        raise ConfigError(unknown("reference", wanted, known))


def check(folder: Path, out: Path, against: str | None = None) -> None:
    """Raise StaleError if a file in `out` is not what the results in `folder` give.

    The markdown page must exist; other files are compared where they exist. Text and SVG are
    compared byte by byte. PNG files are not: another processor or font library draws other pixels.
    """
    how = {"figures": (out / FIGURES).is_dir(), "page_only": not (out / HTML).exists()}
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        write(folder, fresh, against=against, **how)
        names = sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.suffix in COMPARED)
        stale = [str(name) for name in names if _differs(fresh / name, out / name)]
    if stale:
        raise StaleError(
            f"{out}: {', '.join(stale[:5])}{' and more' * (len(stale) > 5)} are not what the result"
            f" files give; run python -m leaderboard {folder}"
        )


def _differs(fresh: Path, written: Path) -> bool:
    if not written.exists():
        return fresh.name == PAGE
    return fresh.read_bytes() != written.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
