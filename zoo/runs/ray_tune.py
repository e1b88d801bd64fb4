"""Run a list of jobs on Ray Tune: on this machine or on a cluster.

Each trial writes its own file when it ends, so a finished trial is never lost. This is the only
module that imports ray, and only when it is used.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.engine.build import Resources
from zoo.errors import ResourceError, StorageError, cause_of, one_line
from zoo.records.codec import from_json, to_json
from zoo.records.result import Failure, Outcome, Result
from zoo.records.storage import result_path, save
from zoo.runs import cluster
from zoo.runs.inline import ENDED_TWICE, Report, attempt
from zoo.runs.jobs import Job
from zoo.runs.pending import by_plugins, in_phases

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, which workers must be able to import."""


@dataclass(frozen=True)
class RayTune:
    """The executor that runs jobs on the cluster of RAY_ADDRESS, or on this machine.

    `cpus` and `gpus` are per trial; `gpus` may be a fraction, None means one GPU if there are any.
    """

    cpus: int = 1
    gpus: float | None = None

    def __call__(
        self, jobs: Sequence[Job], resources: Resources, folder: Path, report: Report
    ) -> None:
        """Run the jobs. Raises ResourceError if there are not enough devices, and StorageError."""
        _quiet_ray()
        import ray

        started = not ray.is_initialized()
        if started:
            terminated = signal.getsignal(signal.SIGTERM)
            try:
                with _quiet_stderr() if cluster.joins() else contextlib.nullcontext():
                    ray.init(**_ray_options())
                with contextlib.suppress(ValueError):  # outside the main thread
                    signal.signal(signal.SIGTERM, terminated)  # Ray puts its own in place
            except (OSError, RuntimeError, ValueError) as error:
                raise ResourceError(_no_ray(error)) from None
        try:
            devices = {"cpu": self.cpus, "gpu": self._gpus(ray.cluster_resources())}
            share = devices["gpu"]
            if 0 < share < 1:
                resources = replace(resources, gpu_share=share)
            for phase in in_phases(jobs):
                for group in by_plugins(phase):  # each in workers of its own
                    _tune(group, resources, folder, report, devices)
        finally:
            if started:
                ray.shutdown()

    def _gpus(self, available: dict[str, float]) -> float:
        gpus, cpus = available.get("GPU", 0), available.get("CPU", 0)
        if self.cpus > cpus:
            raise ResourceError(f"--cpus-per-trial {self.cpus}, but Ray has {cpus:g} CPUs")
        if self.gpus is None:
            return min(gpus, 1)
        if self.gpus > gpus:
            raise ResourceError(
                f"--gpus-per-trial {self.gpus:g}, but Ray has {gpus:g} GPUs; leave the"
                " option out to run on the CPU"
            )
        return self.gpus


def _quiet_ray() -> None:
    """Settings that ray reads when it is imported: no telemetry, no log files of its callbacks."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    if cluster.joins():  # an address that is not a cluster's is given up after one attempt
        settings |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "10"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _ray_options() -> dict[str, Any]:
    """Arguments of ray.init: join the cluster of RAY_ADDRESS, or start one of our own even if
    another runs on this machine."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.joins():
        return {"address": cluster.address(), "runtime_env": {"env_vars": environment}, **quiet}
    cluster.choose_folder()
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # else Ray writes one to ~/.ray
    os.environ.update(environment)  # the workers of a local Ray inherit it
    return {"address": "local", "include_dashboard": False, **quiet}


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what is written to stderr, where Ray's C++ code tells of every attempt to connect."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _no_ray(error: Exception) -> str:
    """One line that says that Ray did not start, and what to do."""
    address = cluster.address()
    if address:
        return f"no Ray cluster at RAY_ADDRESS={address} ({one_line(error, 200)}); {cluster.MEND}"
    return f"Ray cannot start here ({cause_of(error)}); --executor inline runs without it"


def _tune(
    jobs: Sequence[Job],
    resources: Resources,
    folder: Path,
    report: Report,
    devices: dict[str, float],
) -> None:
    """One Tuner over the list of jobs; workers are reused, trials keep their order."""
    from ray import tune

    watcher = _watcher(tune, folder, report)
    space = {"job": tune.grid_search([json.dumps(to_json(job)) for job in jobs])}
    shared = {"resources": resources, "folder": str(folder.resolve())}
    trainable = tune.with_parameters(_trainable, **shared)
    storage, name = Path(resources.cache) / "ray", f"{os.getpid()}-{time.time_ns()}"
    try:
        tune.Tuner(
            tune.with_resources(trainable, devices),
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


def _trainable(config: dict[str, Any], resources: Resources, folder: str) -> dict[str, Any]:
    """The function that a Ray worker runs: one job, given as JSON."""
    job = from_json(Job, json.loads(config["job"]))
    seen = {"visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "node": _node()}
    resources = replace(resources, environment={**resources.environment, **seen})
    try:
        record = attempt(job, resources, Path(folder))
    except StorageError as error:
        return {"storage_error": str(error)}
    return {"ok": isinstance(record, Result), "record": json.dumps(to_json(record))}


def _node() -> str:
    """Ray's random id of the node, which shows that a run used several."""
    import ray

    return str(ray.get_runtime_context().get_node_id())[:12]


def _watcher(tune: Any, folder: Path, report: Report) -> Any:
    """A Tune callback that reports every record, and writes those that did not arrive as files."""

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
            self.take(from_json(Result, content) if last["ok"] else from_json(Failure, content))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            job = from_json(Job, json.loads(trial.config["job"]))
            self.take(Failure(job.trial, ENDED_TWICE, job.facts))

        def take(self, record: Outcome) -> None:
            """Report a record, and write it if a node without this folder could not. Never raises:
            Ray would blame the trial."""
            try:
                if not result_path(record.trial, folder).exists():
                    save(record, folder)
                report(record)
            except StorageError as error:
                self.storage_error = str(error)
            except Exception as error:
                print(f"warning: {cause_of(error)}", file=sys.stderr)

    watcher = Watcher()
    return watcher
