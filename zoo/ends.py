"""How a command ends: with one line and an exit code, whatever ends it.

`end_at_once` serves the seconds in which a command imports torch; `command` serves its `main`.
Neither needs more than the standard library.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from threading import Timer
from typing import Any, NoReturn, ParamSpec

from zoo.errors import (
    BenchmarkError,
    ResourceError,
    StorageError,
    Terminated,
    lacks_memory,
    one_line,
)

P = ParamSpec("P")
Handler = Callable[[int, Any], Any]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, and a terminal that was closed."""
STOPPED = tuple(128 + number for number in SIGNALS)
"""The exit codes of a command that a signal has ended: 130, 143 and 129."""
PIPE_CLOSED = 141
"""The exit code of a command whose output nobody reads any more, such as `head`."""
REFUSED = {
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check its permissions, and those above it"),
    errno.EROFS: "it cannot be written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its links lead back to themselves",
    errno.EIO: "the disk reports an error",
}
"""What a system may refuse anywhere, by the number of the error, and how to mend it."""


def end_at_once() -> None:
    """From here on until `command` takes over, a signal ends this process with one line. No
    exception is raised: a library may swallow it while it is imported."""
    listen(_leave)


def listen(
    handler: Handler, numbers: Sequence[signal.Signals] = SIGNALS
) -> dict[signal.Signals, Any]:
    """Let `handler` take the signals but those that this process ignores, as under nohup; returns
    what took them before. Outside the main thread nothing changes."""
    before = {}
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, handler)
    return before


def say(line: str) -> None:
    """Write a line to stderr, unless nobody can read it: its terminal was closed."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _leave(number: int, frame: Any) -> NoReturn:
    with contextlib.suppress(OSError):  # not by `print`, which may be at work in this moment
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _number(stop: BaseException | None) -> signal.Signals:
    return signal.Signals(stop.number if isinstance(stop, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, a signal raises KeyboardInterrupt or Terminated. Python drops an exception that is
    raised while an object is being removed: then the signal is sent again."""
    usual = sys.unraisablehook

    def send_again(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            Timer(0.05, os.kill, (os.getpid(), _number(dropped.exc_value))).start()
        else:
            usual(dropped)

    before = listen(_interrupt)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for number, handler in before.items():
            signal.signal(number, handler)


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Make `main` a command line. A BenchmarkError is one line and its exit code, so is what the
    system refuses, a lack of memory, and a signal; characters that the terminal lacks are written
    as escapes."""

    @wraps(main)
    def run(*args: P.args, **options: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with interruptible():
                return main(*args, **options)
        except BenchmarkError as error:
            say(f"error: {error}")
            return error.exit_code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except (OSError, MemoryError, RuntimeError) as error:
            known = _refusal(error)
            if known is None:
                raise
            line, code = known
            say(f"error: {line}")
            return code
        except KeyboardInterrupt as stop:
            say(f"stopped by {_number(stop).name}")
            return 128 + _number(stop)

    return run


def _refusal(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of what the system refuses; None for any other error."""
    if lacks_memory(error):
        said = one_line(error, 120) or type(error).__name__
        return (
            f"out of memory ({said}); ask for less at once, or free some",
            ResourceError.exit_code,
        )
    if not isinstance(error, OSError) or error.errno not in REFUSED:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; {REFUSED[error.errno]}", StorageError.exit_code


def leave(code: int) -> NoReturn:
    """End this process. One that a signal has ended leaves without clearing up: torch's threads,
    interrupted, may abort a normal exit."""
    if code in STOPPED:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
