"""What is left to run: the jobs of a plan without a result on disk."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import StorageError, one_line
from zoo.records.result import Result
from zoo.records.storage import UNREADABLE, load_result, result_path, write_whole
from zoo.runs.jobs import Job
from zoo.runs.keeping import Keeper, place_of


@dataclass(frozen=True)
class Pending:
    """The jobs that are left to run, the results that exist, remarks for the user, and result files
    that cannot be read though their trials are left to run."""

    jobs: list[Job]
    done: list[Result]
    remarks: list[str]
    unreadable: list[Path]

    def set_aside(self) -> None:
        """Rename unreadable files, so that they are kept when their trials run again."""
        for path in self.unreadable:
            try:
                path.rename(aside(path))
            except OSError as error:
                raise StorageError(f"cannot rename {path}: {error.strerror or error}") from error


def aside(path: Path) -> Path:
    """A free name beside an unreadable file."""
    names = (f"{path.name}.unreadable{number or ''}" for number in itertools.count())
    return next(free for free in map(path.with_name, names) if not free.exists())


def pending(
    jobs: Iterable[Job],
    folder: Path,
    cache: Path,
    *,
    take_over: bool = True,
    keeper: Keeper | None = None,
) -> Pending:
    """Split jobs into those with a result and those to run; only `take_over` writes anything.

    A result in another suite's folder of the same results root is copied instead of run again. A
    teacher without stored outputs runs again if a student is to run, and a trial whose model
    `keeper` wants and has not.
    """
    jobs = list(jobs)
    state = Pending([], [], [], [])
    without_outputs: dict[str, tuple[Job, Result]] = {}
    for job in jobs:
        result = _result_of(job, folder, state, take_over)
        if result is None:
            state.jobs.append(job)
        elif job.teaches and result.ok and not job.has_left(cache):
            without_outputs[job.trial.id] = (job, result)
        else:
            state.done.append(result)
    wanted = {job.trial.teacher for job in state.jobs}
    for id, (job, result) in without_outputs.items():
        if id in wanted:
            state.remarks.append(f"{id}: runs again, students need its outputs")
            state.jobs.append(job)
        else:
            state.done.append(result)
    if keeper is not None:
        _run_for_models(jobs, state, keeper)
    return state


def _run_for_models(jobs: list[Job], state: Pending, keeper: Keeper) -> None:
    """Let trials run again whose model is wanted; not where one that is to run may be better."""
    for result in state.done:
        keeper(result)
    by_id = {job.trial.id: job for job in jobs}
    coming = {repr(place_of(job.trial)) for job in state.jobs} if keeper.policy == "best" else set()
    for result in [one for one in state.done if keeper.lacks(one)]:
        if repr(place_of(result.trial)) not in coming:
            state.remarks.append(f"{result.trial.id}: runs again, its model was not kept")
            state.done.remove(result)
            state.jobs.append(by_id[result.trial.id])


def _result_of(job: Job, folder: Path, state: Pending, take_over: bool) -> Result | None:
    """The result of a job, from this folder or another suite's; remarks are added to the state."""
    path = result_path(job.trial, folder)
    found = path if path.exists() else _elsewhere(path)
    try:
        result = load_result(found)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        if found == path:
            state.unreadable.append(path)
            state.remarks.append(
                f"warning: {path} cannot be read ({one_line(error, 200)}); its trial is run"
                f" again and the file kept as {aside(path).name}"
            )
        return None
    if found != path:
        state.remarks.append(f"{job.trial.id}: taken over from {found.parent.name}")
        if take_over:
            write_whole(path, found.read_bytes())
    return result


def _elsewhere(path: Path) -> Path:
    """The same result in another suite's folder, or the path itself."""
    return next(iter(sorted(path.parent.parent.glob(f"*/{path.name}"))), path)


def by_plugins(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs in groups that load the same plugins, those without any first."""
    groups: dict[str, list[Job]] = {"": []}
    for job in jobs:
        groups.setdefault(job.trial.plugin_sha, []).append(job)
    return [group for group in groups.values() if group]


def in_phases(jobs: Iterable[Job]) -> list[list[Job]]:
    """Teachers first, then the rest."""
    jobs = list(jobs)
    phases = [job for job in jobs if job.teaches], [job for job in jobs if not job.teaches]
    return [phase for phase in phases if phase]
