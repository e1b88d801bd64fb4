"""A small process that stands by while another one works, and ends what that one cannot end itself.

`clearing` serves the driver of a Ray of its own. Ray's servers die with it, but their agents, if it
was killed, only after a minute: they try to report it to a server that has gone. `time_limit`
serves a worker whose trial may loop for ever, in code that lets no other thread run.

The process reads its task, a line of JSON, from a pipe, and learns from the end of the pipe that
the other one has ended. It imports neither torch nor Ray, and signals from a terminal pass it by.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.records.codec import from_json, to_json
from zoo.records.result import Failure
from zoo.records.storage import save

DONE = b"done\n"
"""What the other process says if it comes to its end without an error."""
FIRST, LAST = 0.25, 64.0
"""Seconds between the first two and the last two looks at what a driver has started."""
Known = dict[int, int]
"""Number -> start time, in ticks of the kernel, of processes; a number may be used again."""
_ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def clearing(scratch: Path) -> Iterator[None]:
    """If this process is killed inside, or an error is raised, all that it has started are ended,
    and its folder is removed. Needs /proc."""
    with _standing_by({"remove": str(scratch)}):
        yield


@contextlib.contextmanager
def time_limit(minutes: float, failure: Failure, folder: Path) -> Iterator[None]:
    """If the block takes longer, `failure` is written in a suite's folder and this process is
    killed; 0 sets no limit."""
    if not minutes:
        yield
        return
    task = {"seconds": 60 * minutes, "failure": to_json(failure), "folder": str(folder)}
    with _standing_by(task):
        yield


@contextlib.contextmanager
def _standing_by(task: dict[str, Any]) -> Iterator[None]:
    """Inside, a process stands by with this task."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from zoo.runs.guard import stand_by; stand_by()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        cwd=_ROOT,
        start_new_session=True,
    )
    assert process.stdin is not None
    said = b""
    try:
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
        yield
        said = DONE
    finally:
        with contextlib.suppress(OSError):
            process.stdin.write(said)
            process.stdin.close()
        process.wait()


def stand_by() -> None:
    """What the process does."""
    other, task = os.getppid(), json.loads(sys.stdin.buffer.readline())
    if "seconds" in task:
        _end_after(task["seconds"], other, task)
    else:
        _clear_after(other, Path(task["remove"]))


def _end_after(seconds: float, other: int, task: dict[str, Any]) -> None:
    """Kill the other process, if it is not done after so many seconds."""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        save(from_json(Failure, task["failure"]), Path(task["folder"]))
        os.kill(other, signal.SIGKILL)


def _clear_after(other: int, scratch: Path) -> None:
    """End what the other process has started, unless it says that it is done."""
    known: Known = {}
    wait = FIRST
    while not select.select([sys.stdin], [], [], wait)[0]:
        known |= descendants(other)
        wait = min(2 * wait, LAST)
    if sys.stdin.buffer.readline() == DONE:
        return
    known |= descendants(other)
    running = {number: began for number, (began, _) in processes().items()}
    for number, _ in known.items() & running.items():
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)


def processes() -> dict[int, tuple[int, int]]:
    """Number -> (start time, parent) of all processes; {} where the system has no /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text("utf-8", "replace").rpartition(")")[2].split()
            found[int(path.parent.name)] = int(words[19]), int(words[1])
    return found


def descendants(process: int) -> Known:
    """The processes that a process has started, and those that these have, but for this one."""
    every = processes()
    inside = {process}
    while more := {n for n, (_, parent) in every.items() if parent in inside} - inside:
        inside |= more
    return {n: every[n][0] for n in inside - {process, os.getpid()}}
