"""python -m leaderboard FOLDER: write the page and the figures of a suite's results again."""

import argparse
import sys
from pathlib import Path

from leaderboard.page import REFERENCE, write
from zoo.errors import BenchmarkError, ConfigError


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
    options = parser.parse_args(argv)
    try:
        if not options.folder.is_dir():
            raise ConfigError(f"{options.folder} is not a folder of results")
        print(write(options.folder, options.out, against=options.reference))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
