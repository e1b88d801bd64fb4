"""Run a list of jobs in several processes on this machine, without Ray.

A worker is a process at the other end of a pipe: beside a GPU a fresh Python, since CUDA does not
survive a fork, else a fork of a process that has imported everything and done nothing, which starts
at once. Jobs and records pass as JSON. Workers live until all jobs are done, and end when this
process has gone.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

from zoo.engine.build import Resources, usual_device
from zoo.engine.snapshots import ask_to_end, asked_to_end
from zoo.errors import StorageError, Terminated
from zoo.records.codec import from_json, to_json
from zoo.records.result import Failure, Outcome, Result
from zoo.records.storage import save
from zoo.runs import judging
from zoo.runs.inline import Report, attempt_if_free
from zoo.runs.jobs import Job
from zoo.runs.pending import in_phases
from zoo.runs.shortage import kernel_kills, peak_of, reason_of_end

Pipe = Connection
"""An end of the pipe between this process and a worker."""
DIED, CLAIMED = "died", "claimed"
"""Why a worker has no record: its process died, or another driver has claimed the trial."""
GLANCE = 0.3
"""Seconds that a worker rests after a trial that another driver has."""
LOOK = 1.0
"""Seconds between two looks at the memory of workers."""


class Worker:
    """A process that runs one job at a time. One that ran a user's plugin runs no trial without it:
    the plugin may have changed anything there."""

    def __init__(self, resources: Resources, folder: Path):
        self.given = resources, folder
        self.begin()

    def begin(self) -> None:
        """Start the process. What a terminal sends reaches this process alone, from the start."""
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self.given))
        resource_tracker.ensure_running()  # it would unblock the signal
        blocked = {signal.SIGINT, signal.SIGHUP}  # a child inherits it
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            process.start()
            self.process, self.pipe = process, ours
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.plugins, self.peak, self.kills = "", 0, kernel_kills()
        theirs.close()

    def end(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def look(self) -> None:
        """See how much memory the process has, since a dead one cannot be asked."""
        self.peak = max(self.peak, peak_of(self.process.pid))

    def why_it_ended(self) -> str:
        """The reason of a failure."""
        return reason_of_end(self.process.exitcode, self.peak, kernel_kills() > self.kills)

    def give(self, job: Job) -> None:
        """Let it run a job, in a new process if its own has died or has run other plugins."""
        if not self.process.is_alive() or self.plugins not in ("", job.trial.plugin_sha):
            self.end()
            self.begin()
        self.plugins = job.trial.plugin_sha
        with contextlib.suppress(OSError):  # it died just now, which `take` will see
            self.pipe.send_bytes(json.dumps(to_json(job)).encode())

    def take(self) -> Outcome | str:
        """The record of its job; DIED or CLAIMED where there is none. Raises StorageError."""
        try:
            said = json.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.end()
            return DIED
        if "claimed" in said:
            return CLAIMED
        if "storage_error" in said:
            raise StorageError(said["storage_error"])
        kind: type[Any] = Result if said["ok"] else Failure
        return from_json(kind, said["record"])


def _context() -> Any:
    """How processes start."""
    if usual_device().type != "cpu":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    models = [name for name in sys.modules if name.startswith("transformers.models.")]
    context.set_forkserver_preload(["__main__", "zoo.engine.train", "methods", "tasks", *models])
    return context


@dataclass(frozen=True)
class Processes:
    """The executor that runs jobs in `count` processes, each with one job at a time."""

    count: int

    def __call__(
        self, jobs: Sequence[Job], resources: Resources, folder: Path, report: Report
    ) -> None:
        """Run the jobs in their order. Raises StorageError."""
        workers: list[Worker] = []
        many = min(self.count, len(jobs))
        resources = replace(resources, gpu_share=1 / max(many, 1))  # all share one GPU
        try:
            for _ in range(many):
                workers.append(Worker(resources, folder))
            for phase in in_phases(jobs):
                _share(phase, workers, folder, report)
        except Terminated:
            _end_softly(workers)
            raise
        finally:
            for worker in workers:
                worker.process.kill()  # all, before waiting for one
            for worker in workers:
                worker.end()


GRACE = 25.0
"""Seconds that workers have to finish a step and write a snapshot when the run is told to end."""


def _end_softly(workers: Sequence[Worker]) -> None:
    """Tell all workers to end, and wait for the snapshots of their trials."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0))


def _share(jobs: Sequence[Job], workers: Sequence[Worker], folder: Path, report: Report) -> None:
    """Run one phase. A job whose process dies is tried once more, and fails alone."""
    left, idle, again = deque(jobs), [*workers], set()
    busy: dict[Pipe, tuple[Worker, Job]] = {}
    while left or busy:
        while left and idle:
            job = left.popleft()
            worker = max(idle, key=lambda one: one.plugins == job.trial.plugin_sha)
            idle.remove(worker)
            worker.give(job)
            busy[worker.pipe] = worker, job
        ready = wait(list(busy), LOOK)
        for worker, _ in busy.values():
            worker.look()
        for pipe in [pipe for pipe in busy if pipe in ready]:
            worker, job = busy.pop(pipe)
            record = worker.take()
            idle.append(worker)
            if record == CLAIMED:
                left.append(job)
                continue
            if record == DIED and job.trial.id not in again:
                again.add(job.trial.id)
                left.appendleft(job)
                continue
            if isinstance(record, str):
                record = Failure(job.trial, worker.why_it_ended(), job.facts)
                save(record, folder)
            report(record)


def _work(pipe: Pipe, resources: Resources, folder: Path) -> None:
    """What a worker does: run the jobs that come in, until none can come any more."""
    if usual_device().type == "cpu":
        judging.start(fork=True)
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _terminated)
    with contextlib.suppress(EOFError, Terminated):
        while True:
            job = from_json(Job, json.loads(pipe.recv_bytes()))
            answer: dict[str, Any]
            try:
                record = attempt_if_free(job, resources, folder)
                if record is None:
                    time.sleep(GLANCE)
                    answer = {"claimed": True}
                else:
                    answer = {"ok": isinstance(record, Result), "record": to_json(record)}
            except StorageError as error:
                answer = {"storage_error": str(error)}
            pipe.send_bytes(json.dumps(answer).encode())


def _terminated(number: int, frame: Any) -> None:
    """End after a snapshot; told again, as where a whole group of processes is told, go on."""
    if not asked_to_end() and not ask_to_end():
        os._exit(1)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that was."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
