"""What every class of faults needs: a row of the table, and limits of time and memory."""

import signal
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LIMIT, LONGEST, MEGABYTES = 30, 300, 100
"""Seconds of the processor that a fault may take while its memory is traced, which takes thrice as
long as without; seconds after which it hangs; and megabytes that it may allocate."""

TRACED = True
"""Whether memory is traced."""


@dataclass(frozen=True)
class Row:
    """A class of faults: how many were injected, how many of them survived, in how many seconds,
    the most megabytes that one of them allocated, and what became of those that were lost."""

    name: str
    injected: int
    survived: int
    seconds: float
    megabytes: float
    lost: Sequence[str] = ()


class OutOfTime(BaseException):
    """A fault took more than LONGEST seconds; no handler of errors takes it for one."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTime in the main thread after so many seconds."""

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def traced(spent: list[float]) -> Iterator[None]:
    """Add the seconds of the processor and the most megabytes that were allocated inside."""
    if TRACED:
        tracemalloc.start()
    began = time.process_time()
    try:
        yield
    finally:
        spent += [time.process_time() - began, tracemalloc.get_traced_memory()[1] / 2**20]
        tracemalloc.stop()  # which does nothing where nothing is traced
