"""python -m leaderboard FOLDER: write the pages, tables and figures of a suite's results again."""

import argparse
import sys
import tempfile
from pathlib import Path

from leaderboard.page import REFERENCE, write
from zoo.errors import BenchmarkError, ConfigError

STALE = 6
"""Exit code of --check if something written is not what the files give."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    parser.add_argument("folder", type=Path, help="a suite's results, e.g. results/high_sparsity")
    parser.add_argument("--out", type=Path, help="where to write (default: the same folder)")
    parser.add_argument(
        "--reference",
        default=REFERENCE,
        help=f"the method that others are compared with (default: {REFERENCE})",
    )
    parser.add_argument(
        "--check", action="store_true", help=f"write nothing; exit {STALE} if anything would change"
    )
    options = parser.parse_args(argv)
    try:
        if not options.folder.is_dir():
            raise ConfigError(f"{options.folder} is not a folder of results")
        if options.check:
            return check(options.folder, options.out or options.folder, options.reference)
        print(write(options.folder, options.out, against=options.reference))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check(folder: Path, out: Path, against: str) -> int:
    """Compare what stands in `out` with what the files give; name what differs."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        write(folder, fresh, against=against)
        names = sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file())
        stale = [name for name in names if not _same(fresh / name, out / name)]
    for name in stale:
        print(f"{out / name} is not what the result files give; run python -m leaderboard {folder}")
    return STALE if stale else 0


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
