"""The judge: a Python process of its own that measures trained trials and writes their results.

It imports no plugin, and begins with the environment and the module path that this process had
before it loaded any. It starts while the first trial trains, lives as long as this process, and
judges one trial after another. How it judges one: zoo/engine/judge.py.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

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
    """The process, and a pipe to it in each direction."""

    def __init__(self, process: int, requests: TextIO, answers: TextIO):
        self.process, self.requests, self.answers = process, requests, answers

    def ask(self, request: Request) -> dict[str, Any]:
        """Its answer. Raises EOFError if it ended."""
        try:
            self.requests.write(json.dumps(to_json(request)) + "\n")
            self.requests.flush()
            answer: dict[str, Any] = json.loads(self.answers.readline())
        except (OSError, ValueError):
            raise EOFError from None
        return answer

    def end(self) -> None:
        """End the process at once: nobody waits for what it does."""
        with contextlib.suppress(OSError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


def _fresh() -> Judge:
    """A judge in a new Python process. Ctrl-C reaches it by the end of this process, not before."""
    paths = [str(_ROOT), *(path for path in _PATHS if path)]
    program = f"import sys; sys.path[:] = {paths!r}; from zoo.runs.judging import serve; serve()"
    requests, answers = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=requests[0],
        stdout=answers[1],
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd=_ROOT,
        start_new_session=True,
    )
    os.close(requests[0])
    os.close(answers[1])
    return Judge(process.pid, *_files(answers[0], requests[1])[::-1])


def _forked() -> Judge:
    """A judge in a fork of this process, which starts at once and shares its memory."""
    requests, answers = os.pipe(), os.pipe()
    process = os.fork()
    if process:
        os.close(requests[0])
        os.close(answers[1])
        return Judge(process, *_files(answers[0], requests[1])[::-1])
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(requests[0], 0)
        os.dup2(answers[1], 1)
        os.closerange(3, max(*requests, *answers, 1024))  # others wait for their ends
        serve()
    finally:
        os._exit(1)


def _files(read: int, write: int) -> tuple[TextIO, TextIO]:
    return os.fdopen(read, "r", encoding="utf-8"), os.fdopen(write, "w", encoding="utf-8")


_judges: list[Judge] = []
"""The judge of this process, once it has started."""


def start(*, fork: bool = False) -> Judge:
    """The judge of this process, which is started if there is none. `fork` is for a process on a
    CPU that has run nothing yet: no plugin, no thread."""
    if not _judges:
        _judges.append(_forked() if fork else _fresh())
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
        for _ in range(2):
            try:
                return _record(start().ask(request))
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


def serve() -> None:
    """What the judge does: answer requests, a line of JSON each, until none can come any more."""
    requests, answers = _files(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # what libraries print is no answer
    from zoo.inputs.checkpoint import quiet
    from zoo.plugins import load_built_in

    load_built_in()
    quiet()
    import transformers.modeling_utils  # noqa: F401 - slow, and needed by every trial

    for line in requests:
        answers.write(json.dumps(_answer(from_json(Request, json.loads(line)))) + "\n")
        answers.flush()
        release()


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
