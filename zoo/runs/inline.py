"""Run one job and write its record; and the executor that runs jobs in this process."""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path

from zoo.engine.build import Resources, usual_device
from zoo.engine.measure import peak_memory
from zoo.engine.snapshots import TRAINING, asked_to_end, remove
from zoo.engine.train import run_trial
from zoo.errors import StorageError, Terminated
from zoo.plugins import needed
from zoo.records.reading import FAILED
from zoo.records.result import Failure, Outcome
from zoo.records.storage import UNREADABLE, load, load_result, result_path, save
from zoo.runs import judging
from zoo.runs.claims import claimed, pause
from zoo.runs.guard import time_limit
from zoo.runs.jobs import Job
from zoo.runs.output import bounded
from zoo.runs.pending import in_phases
from zoo.runs.progress import name_of
from zoo.runs.shortage import reason_of
from zoo.status import reporting, tell

Report = Callable[[Outcome], None]
"""Called with every record that was written."""
Executor = Callable[[Sequence[Job], Resources, Path, Report], None]
"""(jobs, resources, folder of the suite, report): runs all jobs."""


def attempt(job: Job, resources: Resources, folder: Path) -> Outcome:
    """Run one trial and write its record, or wait for that of another driver that has claimed it.
    Faults of the trial become a Failure; StorageError is raised, since no other trial could be
    written either."""
    while True:
        record = attempt_if_free(job, resources, folder)
        if record is not None:
            return record
        pause()


def attempt_if_free(job: Job, resources: Resources, folder: Path) -> Outcome | None:
    """The same, but None if another driver has claimed the trial."""
    environment = {**resources.environment, "sources": job.sources}
    if job.model:
        environment["options"] = job.options
    resources = replace(
        resources,
        model=job.model or resources.model,
        keep_outputs=job.teaches,
        keep_weights=job.starts,
        reads=job.reads,
        environment=environment,
        plugins=needed(resources.plugins, job.trial.plugin_sha),
    )
    with claimed(folder, job.trial.id) as ours:
        found = written_meanwhile(job, resources, folder)
        if found or not ours:
            return found
        record = _attempt(job, resources, folder)
    if asked_to_end():  # after its last step, so that there was no snapshot to write
        raise Terminated
    return record


def _attempt(job: Job, resources: Resources, folder: Path) -> Outcome:
    record: Outcome
    judging.start(resources.judges)
    resources = replace(resources, handover=str(folder / judging.JUDGING / job.trial.id))
    try:
        in_time = _in_time(job, resources, folder)
        with reporting(Path(resources.cache), name_of(job.trial)), bounded(), in_time:
            claim = replace(run_trial(job.trial, resources), candidates=job.candidates)
            tell("judging")
            record = judging.judged(claim, resources, folder)
        remove(folder / TRAINING / job.trial.id)
    except StorageError:
        raise
    except BaseException as error:  # a method may raise anything; its trial alone fails
        if not isinstance(error, Exception | SystemExit) and not _of_the_method(error):
            raise
        reason = reason_of(error, peak_memory(usual_device()))
        record = Failure(job.trial, reason, job.facts)
        save(record, folder)
    if resources.models and isinstance(record, Failure):
        remove(Path(resources.models) / job.trial.id)
    return record


def _in_time(job: Job, resources: Resources, folder: Path) -> AbstractContextManager[None]:
    """End this process where the block takes longer than a trial may."""
    minutes = resources.trial_minutes
    reason = f"took longer than {minutes:g} minutes (--trial-timeout)"
    return time_limit(minutes, Failure(job.trial, reason, job.facts), folder)


def _of_the_method(error: BaseException) -> bool:
    """Whether no signal can have raised this: Ctrl-C never reaches a worker process."""
    return parent_process() is not None and not isinstance(error, Terminated)


def written_meanwhile(job: Job, resources: Resources, folder: Path) -> Outcome | None:
    """The record that another driver of the same folder wrote since this run was planned."""
    found = _since(job, resources, folder)
    if found:
        return found
    if job.teaches and not job.has_left(Path(resources.cache)):
        return None
    if resources.models and not (Path(resources.models) / job.trial.id).is_dir():
        return None
    try:
        return load_result(result_path(job.trial, folder))
    except UNREADABLE:
        return None


def _since(job: Job, resources: Resources, folder: Path) -> Outcome | None:
    """The record that another driver has written since this run was planned, a failure too, and
    whatever became of its model."""
    path = result_path(job.trial, folder)
    for file in (path, path.with_name(f"{job.trial.id}{FAILED}.json")):
        with contextlib.suppress(*UNREADABLE):
            if file.stat().st_mtime > resources.since:
                return load(file)
    return None


def inline(jobs: Sequence[Job], resources: Resources, folder: Path, report: Report) -> None:
    """Run jobs one after another in this process; those that other drivers have claimed last."""
    for phase in in_phases(jobs):
        left, others = deque(phase), 0
        while left:
            job = left.popleft()
            record = attempt_if_free(job, resources, folder)
            if record is not None:
                report(record)
                others = 0
                continue
            left.append(job)
            others += 1
            if others >= len(left):
                pause()
                others = 0
