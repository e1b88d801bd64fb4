"""A bar on the terminal for what takes longer than two seconds."""

import sys
import time
from typing import TextIO

AFTER = 2.0
"""Seconds before anything is shown."""
WIDTH = 30


class Bar:
    """Told how many of how many steps are done; silent where the output is not a terminal."""

    def __init__(self, what: str, out: TextIO | None = None):
        self.what, self.out = what, out or sys.stderr
        self.start = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        late = time.monotonic() - self.start > AFTER
        if not (late and self.out.isatty()):
            return
        filled = WIDTH * done // of
        line = f"\r\033[K{self.what} [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{of}"
        self.out.write(line if done < of else "\r\033[K")
        self.out.flush()
