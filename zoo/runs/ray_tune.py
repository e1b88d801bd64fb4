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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Any

from zoo.ends import SIGNALS
from zoo.engine.build import Resources
from zoo.errors import ResourceError, StorageError, cause_of, one_line
from zoo.records.codec import from_json, to_json
from zoo.records.result import Failure, Outcome, Result
from zoo.records.storage import result_path, save
from zoo.runs import cluster
from zoo.runs.guard import clearing
from zoo.runs.inline import Report, attempt
from zoo.runs.jobs import Job
from zoo.runs.judges import judges_at_hand
from zoo.runs.pending import by_plugins, in_phases
from zoo.runs.shortage import reason_of_ray
from zoo.runs.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, which workers must be able to import."""
SCRATCH, TUNE = "ray", "tune"
"""The folder of what a run needs beside Ray in a cache, and in it that of Ray Tune's own files."""
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0 in this variable Ray takes the loopback address for that of its node, on any system, and
all its servers listen there alone."""


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
        """Run the jobs. Raises ResourceError if Ray ends or has not enough devices, and
        StorageError."""
        scratch = Path(resources.cache) / SCRATCH / f"{os.getpid()}-{secrets.token_hex(4)}"
        with _connected(Watch(scratch)) as (ray, watch, judges):
            resources = replace(resources, judges=judges)
            devices = {"cpu": self.cpus, "gpu": self._gpus(ray.cluster_resources())}
            share = devices["gpu"]
            if 0 < share < 1:
                resources = replace(resources, gpu_share=share)
            for phase in in_phases(jobs):
                for group in by_plugins(phase):  # each in workers of its own
                    _tune(group, resources, folder, report, devices, watch)

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


@contextlib.contextmanager
def _connected(watch: Watch) -> Iterator[tuple[Any, Watch, str]]:
    """Ray, started or joined for the time inside, what watches it, and the address of judges at
    hand, "" where workers may be elsewhere; a Ray that this process has already stays as it is.
    Raises ResourceError if it does not start, or ends."""
    _quiet_ray()
    import ray

    if ray.is_initialized():
        yield ray, watch, ""
        return
    with contextlib.ExitStack() as stack:
        judges = ""
        if not cluster.joins():
            stack.enter_context(clearing(watch.scratch))
            judges = stack.enter_context(judges_at_hand(watch.scratch))
        try:
            _start(ray)
            with watch.over(_servers(ray)):
                yield ray, watch, judges
        except (KeyboardInterrupt, RuntimeError) as error:
            said = _lost(watch, error)
            if not said:
                raise
            raise ResourceError(f"{said}; finished trials are kept, run again to go on") from None
        finally:
            ray.shutdown()
            shutil.rmtree(watch.scratch, ignore_errors=True)


def _start(ray: Any) -> None:
    """Start or join Ray; the signals stay with those who have them. Raises ResourceError."""
    signals = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with _quiet_stderr() if cluster.joins() else contextlib.nullcontext():
            ray.init(**_ray_options())
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(_no_ray(error)) from None
    ray._private.worker.print_to_stdstream = _drop
    with contextlib.suppress(ValueError):  # outside the main thread
        for number, handler in signals.items():
            signal.signal(number, handler)


def _drop(*args: Any, **options: Any) -> None:
    """In the place of the function by which Ray prints, on stdout, what its servers logged."""


def _servers(ray: Any) -> dict[str, Popen[bytes]]:
    """The servers of a Ray that this process has started, by name."""
    started = ray._private.worker._global_node.all_processes
    return {name: one.process for name in ("raylet", "gcs_server") for one in started.get(name, ())}


def _lost(watch: Watch, error: BaseException) -> str:
    """Which end of Ray an error comes from; "" if from none."""
    if watch.ended:
        return f"Ray's {watch.ended} has ended, killed or out of memory"
    if type(error.__cause__).__name__ == "OutOfMemoryError":  # Tune ends where Ray kills for it
        return reason_of_ray(str(error), 0, False)
    return ""


def _quiet_ray() -> None:
    """Settings that ray reads when it is imported: no telemetry, no log files of its callbacks."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    if cluster.joins():  # an address that is not a cluster's is given up after one attempt
        settings |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "10"}
    else:
        os.environ[ONE_MACHINE] = "0"
        settings["RAY_memory_monitor_refresh_ms"] = "0"  # it ends Tune too; the kernel ends workers
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _ray_options() -> dict[str, Any]:
    """Arguments of ray.init: join the cluster of RAY_ADDRESS, or start one of our own even if
    another runs on this machine."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
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
    watch: Watch,
) -> None:
    """One Tuner over the list of jobs; workers are reused, trials keep their order."""
    from ray import tune

    watcher = _watcher(tune, folder, report, watch)
    space = {"job": tune.grid_search([json.dumps(to_json(job)) for job in jobs])}
    shared = {"resources": resources, "folder": str(folder.resolve())}
    trainable = tune.with_parameters(_trainable, **shared)
    try:
        tune.Tuner(
            tune.with_resources(trainable, devices),
            param_space=space,
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(watch.scratch / TUNE),
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=1),
                stop=watcher.stopper,
            ),
        ).fit()
    finally:
        shutil.rmtree(watch.scratch / TUNE, ignore_errors=True)
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


def _watcher(tune: Any, folder: Path, report: Report, watch: Watch) -> Any:
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
            self.take(Failure(job.trial, watch.why(str(trial.get_error())), job.facts))

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
