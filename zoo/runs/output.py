"""What a trial prints, up to a limit: a plugin may print for ever."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

MOST = 1_000_000
"""Characters that a trial may print on each of its two streams; what follows is dropped."""


class Bounded:
    """A stream that passes on `most` characters to another one."""

    def __init__(self, stream: Any, most: int = MOST):
        self.stream, self.left = stream, most

    def write(self, text: str) -> int:
        """Pass on what there is room for; the whole text counts as written."""
        if self.left > 0:
            self.stream.write(text[: self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.stream.write("\n(this trial prints too much: the rest is not shown)\n")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after another."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Inside, what Python code prints is bounded."""
    out, err = Bounded(sys.stdout), Bounded(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
