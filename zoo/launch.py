"""Run a list of jobs: on Ray Tune, or one after another in this process.

Each trial writes its own file when it ends, so nothing that was finished is ever lost, and what is
pending is what has no file. The only module that imports ray, and only when it is used.
"""

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoo.build import Place
from zoo.errors import ResourceError, StorageError
from zoo.outputs import has_outputs
from zoo.plan import Job
from zoo.registry import one_line
from zoo.train import run_trial
from zoo.trial import (
    UNREADABLE,
    Failure,
    Result,
    Trial,
    load_result,
    result_path,
    save,
    write_whole,
)

ROOT = Path(__file__).resolve().parent.parent
Report = Callable[[Result | Failure], None]
Executor = Callable[[Sequence[Job], Place, Path, Report], None]


def attempt(job: Job, place: Place, folder: Path) -> Result | Failure:
    """Run one trial and write what came of it. Faults of the trial become a Failure; StorageError
    is raised, since no other trial could be written either."""
    facts = {**place.facts, "sources": job.sources}
    place = replace(place, keep_outputs=job.teaches, facts=facts)
    found = written_meanwhile(job, place, folder)
    if found:
        return found
    try:
        record: Result | Failure = run_trial(job.trial, place)
    except StorageError:
        raise
    except (Exception, SystemExit) as error:  # a method is anybody's code; its trial alone fails
        record = Failure(job.trial, f"{type(error).__name__}: {one_line(error)}")
    save(record, folder)
    return record


def written_meanwhile(job: Job, place: Place, folder: Path) -> Result | None:
    """The result that another driver of the same folder wrote since this run was planned."""
    if job.teaches and not has_outputs(Path(place.cache), job.trial.id):
        return None
    try:
        return load_result(result_path(job.trial, folder))
    except UNREADABLE:
        return None


@dataclass(frozen=True)
class Pending:
    """What is left to run, what stands already, lines about what was found on the way, and result
    files that cannot be read though their trials are left to run."""

    jobs: list[Job]
    done: list[Result]
    remarks: list[str]
    unreadable: list[Path]

    def set_aside(self) -> None:
        """Rename unreadable files, so that they stay when their trials run again."""
        for path in self.unreadable:
            try:
                path.rename(aside(path))
            except OSError as error:
                raise StorageError(f"cannot rename {path}: {error.strerror or error}") from error


def aside(path: Path) -> Path:
    """A free name beside an unreadable file."""
    names = (f"{path.name}.unreadable{number or ''}" for number in itertools.count())
    return next(place for place in map(path.with_name, names) if not place.exists())


def pending(jobs: Iterable[Job], folder: Path, cache: Path, *, take_over: bool = True) -> Pending:
    """Split jobs into those with a result and those to run; nothing but `take_over` writes.

    A result that stands in another suite's folder of the same results is copied, not run again. A
    teacher without outputs runs again if a student is to run. An unreadable file is named.
    """
    state = Pending([], [], [], [])
    without_outputs: dict[str, tuple[Job, Result]] = {}
    for job in jobs:
        path = result_path(job.trial, folder)
        found = path if path.exists() else _elsewhere(path)
        try:
            result = load_result(found)
        except FileNotFoundError:
            state.jobs.append(job)
            continue
        except UNREADABLE as error:
            if found == path:
                state.unreadable.append(path)
                state.remarks.append(
                    f"warning: {path} cannot be read ({one_line(error, 80)}); its trial is run"
                    f" again and the file kept as {aside(path).name}"
                )
            state.jobs.append(job)
            continue
        if found != path:
            state.remarks.append(f"{job.trial.id}: taken over from {found.parent.name}")
            if take_over:
                write_whole(path, found.read_bytes())
        if job.teaches and result.status == "ok" and not has_outputs(cache, job.trial.id):
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
    return state


def _elsewhere(path: Path) -> Path:
    """The same result in another suite's folder, or the path itself."""
    return next(iter(sorted(path.parent.parent.glob(f"*/{path.name}"))), path)


def in_phases(jobs: Sequence[Job]) -> list[list[Job]]:
    """Teachers first, then the rest."""
    teachers = [job for job in jobs if job.teaches]
    return [phase for phase in (teachers, [job for job in jobs if not job.teaches]) if phase]


def inline(jobs: Sequence[Job], place: Place, folder: Path, report: Report) -> None:
    """Run jobs one after another in this process."""
    for phase in in_phases(jobs):
        for job in phase:
            report(attempt(job, place, folder))


@dataclass(frozen=True)
class RayTune:
    """Run jobs on Ray Tune: on the cluster of RAY_ADDRESS, or on this machine.

    `gpus` is the share of a GPU per trial, None for a whole one where there are GPUs.
    """

    cpus: int = 1
    gpus: float | None = None

    def __call__(self, jobs: Sequence[Job], place: Place, folder: Path, report: Report) -> None:
        """Run the jobs; raises ResourceError for devices that are not there, and StorageError."""
        _quiet_ray()
        import ray

        started = not ray.is_initialized()
        if started:
            try:
                ray.init(**_ray_options())
            except ConnectionError as error:
                raise ResourceError(
                    f"no Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}:"
                    f" {one_line(error)}"
                ) from None
        try:
            resources = {"cpu": self.cpus, "gpu": self._gpus(ray.cluster_resources())}
            for phase in in_phases(jobs):
                _tune(phase, place, folder, report, resources)
        finally:
            if started:
                ray.shutdown()

    def _gpus(self, there: dict[str, float]) -> float:
        gpus = there.get("GPU", 0)
        if self.cpus > there.get("CPU", 0):
            raise ResourceError(
                f"--cpus-per-trial {self.cpus}, but Ray has {there.get('CPU', 0):g} CPUs"
            )
        if self.gpus is None:
            return min(gpus, 1)
        if self.gpus > gpus:
            raise ResourceError(
                f"--gpus-per-trial {self.gpus:g}, but Ray has {gpus:g} GPUs; leave the"
                " option out to run on the CPU"
            )
        return self.gpus


def _quiet_ray() -> None:
    """Settings that ray reads when it is imported: no telemetry, no files of its own loggers."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _ray_options() -> dict[str, Any]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.update(environment)  # the workers of a local Ray inherit it
        environment = {}
    return {
        "runtime_env": {"env_vars": environment} if environment else None,
        "include_dashboard": None if os.environ.get("RAY_ADDRESS") else False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }


def _tune(
    jobs: Sequence[Job], place: Place, folder: Path, report: Report, resources: dict[str, float]
) -> None:
    """One Tuner over the list of jobs; workers are reused, trials keep their order."""
    from ray import tune

    watcher = _watcher(tune, folder, report)
    space = {"job": tune.grid_search([json.dumps(asdict(job)) for job in jobs])}
    trainable = tune.with_parameters(_trainable, place=place, folder=str(folder.resolve()))
    storage, name = Path(place.cache) / "ray", f"{os.getpid()}-{time.time_ns()}"
    try:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space=space,
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(storage),
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=1),
                stop=watcher.stopper,
            ),
        ).fit()
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
    if watcher.storage_error:
        raise StorageError(watcher.storage_error)


def _trainable(config: dict[str, Any], place: Place, folder: str) -> dict[str, Any]:
    """The function that a Ray worker runs: one job, given as JSON."""
    content = json.loads(config["job"])
    job = Job(Trial(**content["trial"]), content["teaches"], content["sources"])
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    place = replace(place, facts={**place.facts, "visible_gpus": devices, "node": _node()})
    try:
        record = attempt(job, place, Path(folder))
    except StorageError as error:
        return {"storage_error": str(error)}
    kind = "result" if isinstance(record, Result) else "failure"
    return {"kind": kind, "record": json.dumps(asdict(record))}


def _node() -> str:
    """Ray's own random id of the node, to see that a run used several."""
    import ray

    return str(ray.get_runtime_context().get_node_id())[:12]


def _watcher(tune: Any, folder: Path, report: Report) -> Any:
    """A Tune callback that reports every record, and writes here what has not arrived by itself."""

    class Stop(tune.Stopper):  # type: ignore[misc]
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return bool(watcher.storage_error)

    class Watcher(tune.Callback):  # type: ignore[misc]
        storage_error = ""
        stopper = Stop()

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            last = trial.last_result
            if "record" not in last:
                self.storage_error = last.get("storage_error", "a worker stopped without a result")
                return
            content = json.loads(last["record"])
            kind = Result if last["kind"] == "result" else Failure
            record = kind(**{**content, "trial": Trial(**content["trial"])})
            self.take(record)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            job = json.loads(trial.config["job"])
            reason = "its worker process ended twice without a result (out of memory, or killed)"
            self.take(Failure(Trial(**job["trial"]), reason))

        def take(self, record: Result | Failure) -> None:
            """Report a record, and write what a node without this folder could not write. Raises
            nothing: Ray would take that for a fault of the trial."""
            try:
                if not result_path(record.trial, folder).exists():
                    save(record, folder)
                report(record)
            except StorageError as error:
                self.storage_error = str(error)
            except Exception as error:
                print(f"warning: {type(error).__name__}: {one_line(error)}", file=sys.stderr)

    watcher = Watcher()
    return watcher
