"""python -m leaderboard FOLDER...: write the pages, tables and figures of a suite's results again,
or of several suites' together. python -m leaderboard compare BEFORE AFTER: say what changed."""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from leaderboard.changes import compare_folders, report
from leaderboard.collect import Board, collect
from leaderboard.files import check, write_board
from leaderboard.page import COSTS, PAGE
from leaderboard.prose import excluded
from leaderboard.published import read_published
from leaderboard.view import Wanted
from zoo.ends import command, leave
from zoo.errors import ConfigError, RegressionError, StaleError, one_line, unknown


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _compare(words[1:]) if words[:1] == ["compare"] else _write(words)


def _write(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    folders, out = list(map(_folder, options.folder)), options.out or options.folder[0]
    if len(folders) > 1 and not options.out:
        raise ConfigError("--out says where the page of several folders is written")
    wanted = Wanted(
        against=options.reference,
        columns=_listed(options.columns, ";"),
        methods=_listed(options.methods, ","),
        printed=read_published(options.published) if options.published else (),
    )
    board = collect(*folders)
    for line in map(one_line, excluded(board)):
        print(line, file=sys.stderr)
    _check_words(board, wanted)
    shown = {(row.method, task) for table in board.tables for row, task, _ in table.entries()}
    lost = [p for p in wanted.printed if (p.name, p.task) not in shown]
    if lost:
        what = f"{lost[0].name or 'no method'} on {lost[0].task}"
        number = f"{len(lost)} of {len(wanted.printed)} printed numbers"
        print(f"note: {number} stand beside no result, the first of {what}", file=sys.stderr)
    if options.check:
        check(board, out, wanted, page_only=options.page_only)
    else:
        print(write_board(board, out, page_only=options.page_only, wanted=wanted))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="+",
        help="a suite's results, e.g. results/high_sparsity; several make one page",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: the same folder)")
    parser.add_argument(
        "--reference",
        help="the method that others are compared with (default: the first that prunes)",
    )
    parser.add_argument(
        "--published",
        type=Path,
        help="printed numbers of your own, a CSV file with the columns of published.csv; rows of"
        " which `split` says test are shown apart",
    )
    parser.add_argument(
        "--columns",
        help="columns of the LaTeX tables behind the first, by their headers, separated by ';'",
    )
    parser.add_argument("--methods", help="methods of the LaTeX tables, separated by ','")
    parser.add_argument(
        "--page-only",
        action="store_true",
        help=f"write {PAGE} and {COSTS} alone, without figures, tables and the HTML page",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"write nothing; exit {StaleError.exit_code} if a file is out of date",
    )
    return parser


def _compare(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard compare",
        description="Say what changed from one folder of results to another: the same trials by"
        " their ids, the same methods by their names. The exit code is"
        f" {RegressionError.exit_code} if a method became worse.",
    )
    parser.add_argument("before", type=Path, help="a suite's results")
    parser.add_argument("after", type=Path, help="results to compare with them")
    options = parser.parse_args(words)
    before, after = _folder(options.before), _folder(options.after)
    found = compare_folders(before, after)
    print(report(before, after, found), end="")
    return RegressionError.exit_code if found.worse else 0


def _folder(path: Path) -> Path:
    """The folder, if it has results; raises ConfigError."""
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder of results")
    if not any(path.glob("*.json")):
        raise ConfigError(
            f"{path} holds no results; give a suite's folder, such as results/high_sparsity"
        )
    return path


def _listed(text: str | None, mark: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, (text or "").split(mark))))


def _check_words(board: Board, wanted: Wanted) -> None:
    """Raise ConfigError for a reference or a method that no table has."""
    rows = [row for table in board.tables for row in table.rows]
    pruned = {row.method for row in rows if row.density < 1}
    if wanted.against is not None and wanted.against not in pruned:
        raise ConfigError(unknown("reference", wanted.against, pruned))
    for method in wanted.methods:
        if method not in (known := {row.method for row in rows}):
            raise ConfigError(unknown("method", method, known))


if __name__ == "__main__":
    leave(main())
