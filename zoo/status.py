"""What processes are doing right now: each writes a line to a file, the driver shows them."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

EVERY = 2.0
"""Least seconds between two lines of one process."""
STALE = 900.0
"""Seconds after which a line counts no more: its process was killed."""


@dataclass
class Status:
    """The line of one trial or other work: its file, what it is about, when it was last written."""

    file: Path
    name: str
    written: float = 0.0

    def write(self, what: str) -> None:
        """Put a line in the place of the last one; a disk that is full does not matter here."""
        self.written = time.monotonic()
        with contextlib.suppress(OSError):
            half = self.file.with_suffix(f".{os.getpid()}")
            half.write_text(f"{self.name}: {what}", encoding="utf-8")
            half.replace(self.file)


_current: list[Status] = []
"""The work of this process, the innermost last."""


@contextlib.contextmanager
def reporting(cache: Path, name: str) -> Iterator[None]:
    """Inside, `tell` writes lines about `name` where a driver with the same cache sees them."""
    folder = cache / "running"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    status = Status(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.txt", name)
    _current.append(status)
    try:
        yield
    finally:
        _current.remove(status)
        with contextlib.suppress(OSError):
            status.file.unlink()


def tell(what: str | Callable[[], str]) -> None:
    """Say what is being done; a function is called only if the last line is older than EVERY."""
    if not _current:
        return
    status = _current[-1]
    if isinstance(what, str):
        status.write(what)
    elif time.monotonic() - status.written >= EVERY:
        status.write(what())


def being_done(cache: Path) -> list[str]:
    """The lines of all processes that use a cache."""
    lines = []
    for file in sorted((cache / "running").glob("*.txt")):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime < STALE:
                lines.append(file.read_text(encoding="utf-8"))
    return lines
