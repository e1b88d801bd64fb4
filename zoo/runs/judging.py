"""The judge: a Python process of its own that measures trained trials and writes their results.

It imports no plugin, and begins with the environment and the module path that this process had
before it loaded any. It starts while the first trial trains, lives as long as this process, and
judges one trial after another. How it judges one: zoo/engine/judge.py. Workers of Ray on this
machine get theirs from one process that has imported what judges need: zoo/runs/judges.py.
"""

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from zoo.engine.build import Resources
from zoo.engine.memory import release
from zoo.errors import StorageError
from zoo.records.codec import Record, from_json, to_json
from zoo.records.result import Failure, Outcome, Result
from zoo.records.storage import save

JUDGING = ".judging"
"""The folder of files that wait for the judge, in a suite's folder."""
TOUCHED = "plugins"
"""The file in a cache that says that a plugin ran beside it."""
ENDED = "the process that judges trials ended twice without a result (out of memory, or killed)"
"""Why a trial failed that could not be judged."""
_ENVIRONMENT, _PATHS = dict(os.environ), list(sys.path)
"""What was there when this module was imported, which is before any plugin was."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request(Record):
    """What the judge is asked: the trial's own result, the folder of its files, the suite's folder
    for the record, and of Resources what a judge needs. `cache` is "" unless a plugin ever ran
    beside it."""

    claim: Result
    handover: str
    folder: str
    model: str
    data_dir: str | None
    threads: int
    cache: str


def as_before_plugins() -> None:
    """Put back the environment and the module path, which processes that are started inherit."""
    sys.path[:] = _PATHS
    for name in {*os.environ} - {*_ENVIRONMENT}:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)


class Judge:
    """A process, and a line to it, with whose end it ends; `process` is the number of a child of
    this process."""

    def __init__(self, line: Connection, process: int | None = None):
        self.line, self.process = line, process

    def ask(self, request: Request) -> dict[str, Any]:
        """Its answer. Raises EOFError if it ended."""
        try:
            self.line.send_bytes(json.dumps(to_json(request)).encode())
            answer: dict[str, Any] = json.loads(self.line.recv_bytes())
        except (OSError, ValueError):
            raise EOFError from None
        return answer

    def end(self) -> None:
        """End the process at once: nobody waits for what it does."""
        self.line.close()
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)


def new_python(code: str, *numbers: int) -> subprocess.Popen[bytes]:
    """A Python process that knows nothing of plugins and runs a line of code; it has the open files
    of these numbers. Ctrl-C reaches it by the end of this process, not before."""
    paths = [str(_ROOT), *(path for path in _PATHS if path)]
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd=_ROOT,
        pass_fds=numbers,
        start_new_session=True,
    )


def _fresh() -> Judge:
    """A judge in a new Python process."""
    ours, theirs = Pipe()
    number = theirs.fileno()
    code = f"from zoo.runs.judging import prepare, serve; prepare(); serve({number})"
    process = new_python(code, number)
    theirs.close()
    return Judge(ours, process.pid)


def _forked() -> Judge:
    """A judge in a fork of this process, which starts at once and shares its memory."""
    ours, theirs = Pipe()
    process = os.fork()
    if process:
        theirs.close()
        return Judge(ours, process)
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(theirs.fileno(), 0)
        os.dup2(2, 1)  # what libraries print
        os.closerange(3, max(ours.fileno(), theirs.fileno(), 1024))  # others wait for their ends
        prepare()
        serve(0)
    finally:
        os._exit(1)


def _at_hand(address: str) -> Judge | None:
    """A judge of the process that listens at this address on this machine; None if none does."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(address)
    except OSError:
        line.close()
        return None
    return Judge(Connection(line.detach()))


_judges: list[Judge] = []
"""The judge of this process, once it has started."""


def start(address: str = "", *, fork: bool = False) -> Judge:
    """The judge of this process, which is started if there is none, or taken from where others are
    at hand. `fork` is for a process on a CPU that has run nothing yet: no plugin, no thread."""
    if not _judges:
        there = _at_hand(address) if address else None
        _judges.append(_forked() if fork else there or _fresh())
    return _judges[0]


@atexit.register
def _end() -> None:
    while _judges:
        _judges.pop().end()


def _leave_behind() -> None:
    """A fork has no judge: the pipes belong to its parent."""
    _judges.clear()


os.register_at_fork(after_in_child=_leave_behind)


def judged(claim: Result, resources: Resources, folder: Path) -> Outcome:
    """Let the judge measure a trained trial and write its record in a suite's folder; returns the
    record. A trial that diverged has nothing to judge. Raises StorageError."""
    if not claim.ok:
        save(claim, folder)
        return claim
    given = {
        name: getattr(resources, name) for name in ("handover", "model", "data_dir", "threads")
    }
    release()  # on a GPU the judge may need it
    cache = resources.cache if (Path(resources.cache) / TOUCHED).exists() else ""
    request = Request(claim, folder=str(folder), cache=cache, **given)
    try:
        for address in (resources.judges, ""):
            try:
                return _record(start(address).ask(request))
            except EOFError:
                _end()
    finally:
        shutil.rmtree(resources.handover, ignore_errors=True)
    record = Failure(claim.trial, ENDED, claim.facts)
    save(record, folder)
    return record


def _record(answer: dict[str, Any]) -> Outcome:
    if "storage_error" in answer:
        raise StorageError(answer["storage_error"])
    kind: type[Any] = Result if answer["ok"] else Failure
    return from_json(kind, answer["record"])


def prepare() -> None:
    """Import what a judge needs."""
    from zoo.inputs.checkpoint import quiet
    from zoo.plugins import load_built_in

    load_built_in()
    quiet()
    import transformers.modeling_utils  # noqa: F401 - slow, and needed by every trial

    with contextlib.suppress(ImportError):
        import evaluate  # noqa: F401 - the same, by the metrics of most tasks


def serve(number: int) -> None:
    """What a judge does: answer the requests that come to an open file, and end when the other side
    has closed it, in the middle of an answer too."""
    Thread(target=_end_with, args=(number,), daemon=True).start()
    with Connection(number) as line, contextlib.suppress(EOFError, OSError):
        while True:
            request = from_json(Request, json.loads(line.recv_bytes()))
            line.send_bytes(json.dumps(_answer(request)).encode())
            release()


def _end_with(number: int) -> None:
    """End this process when the other side of an open file is closed."""
    closed = select.poll()
    closed.register(number, 0)  # nothing but its end
    closed.poll()
    os._exit(0)


def _answer(request: Request) -> dict[str, Any]:
    from zoo.engine.judge import judge, reason_of

    claim = request.claim
    resources = Resources(
        request.model, request.data_dir, cache=request.cache, threads=request.threads
    )
    record: Outcome
    try:
        record = judge(claim, Path(request.handover), resources)
    except Exception as error:
        record = Failure(claim.trial, reason_of(error), claim.facts)
    try:
        save(record, Path(request.folder))
    except StorageError as error:
        return {"storage_error": str(error)}
    return {"ok": isinstance(record, Result), "record": to_json(record)}
