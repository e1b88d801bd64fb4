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
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.build import Resources
from zoo.errors import StorageError
from zoo.records.codec import Record, from_json, to_json
from zoo.records.result import Failure, Outcome, Result
from zoo.records.storage import save

JUDGING = ".judging"
"""The folder of files that wait for the judge, in a suite's folder."""
ENDED = "the process that judges trials ended twice without a result (out of memory, or killed)"
"""Why a trial failed that could not be judged."""
_ENVIRONMENT, _PATHS = dict(os.environ), list(sys.path)
"""What was there when this module was imported, which is before any plugin was."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request(Record):
    """What the judge is asked: the trial's own result, the folder of its files, the suite's folder
    for the record, and of Resources what a judge needs."""

    claim: Result
    handover: str
    folder: str
    model: str
    data_dir: str | None
    threads: int


class Judge:
    """The process, and a pipe to it in each direction."""

    def __init__(self) -> None:
        paths = [str(_ROOT), *(path for path in _PATHS if path)]
        program = (
            f"import sys; sys.path[:] = {paths!r}; from zoo.runs.judging import serve; serve()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            start_new_session=True,  # Ctrl-C ends it by the end of this process, not before
            text=True,
            encoding="utf-8",
        )

    def ask(self, request: Request) -> dict[str, Any]:
        """Its answer. Raises EOFError if it ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(to_json(request)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError):
            raise EOFError from None
        return answer

    def end(self) -> None:
        """End the process, which waits for nothing."""
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_judges: list[Judge] = []
"""The judge of this process, once it has started."""


def start() -> Judge:
    """The judge of this process, which is started if none is running."""
    with _lock:
        if _judges and _judges[0].process.poll() is None:
            return _judges[0]
        _judges[:] = [Judge()]
        return _judges[0]


@atexit.register
def _end() -> None:
    for one in _judges:
        one.end()


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
    request = Request(claim, folder=str(folder), **given)
    try:
        for _ in range(2):
            with contextlib.suppress(EOFError):
                return _record(start().ask(request))
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
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    from zoo.inputs.checkpoint import quiet
    from zoo.plugins import load_built_in

    load_built_in()
    quiet()
    import transformers.modeling_utils  # noqa: F401 - slow, and needed by every trial

    for line in sys.stdin:
        answers.write(json.dumps(_answer(from_json(Request, json.loads(line)))) + "\n")
        answers.flush()


def _answer(request: Request) -> dict[str, Any]:
    from zoo.engine.judge import judge, reason_of

    claim = request.claim
    resources = Resources(request.model, request.data_dir, cache="", threads=request.threads)
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
