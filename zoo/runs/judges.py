"""Judges at hand: a process imports what judges need, and forks one for each worker that connects.

It starts before Ray does, so that not every judge imports all of it while the first trials train.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from zoo.engine.build import usual_device
from zoo.runs.judging import new_python, prepare, serve

MOST = 4096
"""Workers that may wait for the imports; a system may allow fewer."""


@contextlib.contextmanager
def judges_at_hand(folder: Path) -> Iterator[str]:
    """Inside, the address where workers on this machine get judges, a socket in this folder; ""
    beside a GPU, which a fork cannot use, and where no socket can be. The folder is made; removing
    it is up to the caller."""
    address = str(folder / "judges")
    server = _listening(address) if usual_device().type == "cpu" else None
    with _served(server) if server else contextlib.nullcontext():
        yield address if server else ""


def _listening(address: str) -> socket.socket | None:
    """A socket to which this user alone can connect; None where the path is too long for one, or
    the disk has none."""
    server = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        server.bind(address)
        server.listen(MOST)
    except OSError:
        server.close()
        return None
    finally:
        os.umask(before)
    return server


@contextlib.contextmanager
def _served(server: socket.socket) -> Iterator[None]:
    """Inside, a process serves the socket; it ends with this one, however this one ends."""
    ours, theirs = Pipe()
    numbers = server.fileno(), theirs.fileno()
    with server, theirs:
        process = new_python(f"from zoo.runs.judges import fork; fork(*{numbers})", *numbers)
    try:
        yield
    finally:
        ours.close()
        process.kill()
        process.wait()


def fork(server: int, parent: int) -> None:
    """Fork a judge for each worker that connects to the socket, until the other end of `parent` is
    closed. Both are numbers of open files."""
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
