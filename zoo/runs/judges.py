"""Judges at hand: a process imports what judges need, and forks one for each worker that connects.

It starts before Ray does, so that not every judge imports all of it while the first trials train.
"""

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from zoo.engine.build import usual_device
from zoo.runs.judging import new_python, prepare, serve


@contextlib.contextmanager
def judges_at_hand(folder: Path) -> Iterator[str]:
    """Inside, the address where workers on this machine get judges, a socket in this folder; ""
    beside a GPU, which a fork cannot use, and where no socket can be."""
    path = folder / f"judges-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        server = _listening(path) if usual_device().type == "cpu" else None
        if server:
            stack.callback(path.unlink, missing_ok=True)
            stack.enter_context(_served(server, path))
        yield str(path) if server else ""


def _listening(path: Path) -> socket.socket | None:
    """A socket to which this user alone can connect; None where the path is too long for one, or
    the disk has none."""
    server = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        server.bind(str(path))
        server.listen()
    except OSError:
        server.close()
        return None
    finally:
        os.umask(before)
    return server


@contextlib.contextmanager
def _served(server: socket.socket, path: Path) -> Iterator[None]:
    """Inside, a process serves the socket; it ends with this one, however this one ends."""
    ours, theirs = Pipe()
    numbers = server.fileno(), theirs.fileno()
    code = f"from zoo.runs.judges import fork; fork({numbers[0]}, {numbers[1]}, {str(path)!r})"
    with server, theirs:
        process = new_python(code, *numbers)
    try:
        yield
    finally:
        ours.close()
        process.kill()
        process.wait()


def fork(server: int, parent: int, path: str) -> None:
    """Fork a judge for each worker that connects to the socket, until the other end of `parent` is
    closed. Both are numbers of open files; `path` is that of the socket."""
    prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a judge's exit code
    listening, alive = socket.socket(fileno=server), Connection(parent)
    while alive not in wait([listening, alive]):
        line, _ = listening.accept()
        if os.fork() == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                alive.close()
                serve(line.detach())
            finally:
                os._exit(0)
        line.close()
    Path(path).unlink(missing_ok=True)
