"""python -m tests.faults: inject faults, class by class, and count those that are survived.

A class is a function that injects so many faults, each from its own seed, and returns rows of a
table; its module says what counts as survived. CLASSES lists them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from tabulate import tabulate

from tests.bombs import BOMBS
from tests.damaged_files import bits, bombs, forged, plans, records
from tests.injection import Row

CLASSES: tuple[tuple[Callable[[int], list[Row]], int], ...] = (
    (records, 2000),
    (plans, 400),
    (bits, 600),
    (forged, 220),
    (bombs, len(BOMBS)),
)
"""The classes of faults, and how many each injects."""
NAMES = [inject.__name__ for inject, _ in CLASSES]


def main(argv: Sequence[str] | None = None) -> int:
    """Inject the faults, print every fault that was not survived and a row per class; returns 1 if
    one was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--classes", help=f"of {', '.join(NAMES)}, separated by commas")
    parser.add_argument("--share", type=float, default=1.0, help="of the faults (default: 1)")
    options = parser.parse_args(argv)
    wanted = options.classes.split(",") if options.classes else NAMES
    if unknown := {*wanted} - {*NAMES}:
        parser.error(f"no class of faults: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for inject, many in CLASSES:
        if inject.__name__ in wanted:
            found = inject(max(1, round(many * options.share)))
            print(*(line for row in found for line in row.lost), sep="\n", end="", flush=True)
            rows += found
    header = ("class", "injected", "survived", "seconds", "MB at most")
    shown = [(r.name, r.injected, r.survived, round(r.seconds), round(r.megabytes)) for r in rows]
    print(tabulate(shown, header, "github"))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
