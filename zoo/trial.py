"""Trials and results: what is run, what comes out, and the files that hold it. Standard library
only.

One JSON file per finished trial, `<results>/<suite>/<trial_id>.json`, written whole or not at all.
A trial that raised leaves `<trial_id>.failed.json`, which counts until a result stands beside it.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import StorageError

SCHEMA = 3
"""Version of the result files; a reader refuses any other."""

OUTCOMES = 2
"""Counted up when a change of this project changes what trials give; part of every id."""


UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a damaged or foreign file may raise."""


@dataclass(frozen=True)
class Trial:
    """One run, as values that fit JSON. Everything here that changes the outcome is in the id.

    `model` and `data` are names for people, `model_sha` and `data_sha` say what they were;
    `density` is the fraction of weights to keep, (0, 1]; `train` and `hyper` are the resolved
    recipe; `teacher` is the id of the dense trial whose outputs this one learns from, if any;
    `plugin_sha` the hash of the user's file that defines method or task, if one does.
    """

    scale: str
    model: str
    model_sha: str
    task: str
    data: str
    data_sha: str
    method: str
    density: float
    distill: bool
    seed: int
    recipe: str
    train: Mapping[str, Any]
    hyper: Mapping[str, Any]
    teacher: str = ""
    plugin_sha: str = ""

    @cached_property
    def id(self) -> str:
        """A readable prefix and 12 hex digits of the sha256 of all fields but the names."""
        return trial_id(self)


def trial_id(trial: Trial) -> str:
    """The identity of a trial's outcome: equal trials have equal ids, in every suite and folder."""
    names = [f.name for f in fields(Trial) if f.name not in ("model", "data")]
    content = {name: getattr(trial, name) for name in names}
    text = canonical({**content, "outcomes": OUTCOMES})
    teacher = "-distill" if trial.distill else ""
    readable = f"{trial.task}-{trial.method}-{trial.density:g}{teacher}-seed{trial.seed}"
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Result:
    """What one trial gave. `label` is the method's name for people; `status` is "ok" or
    "diverged"; a metric that does not exist is None.

    `metrics` are percent at the last step; `best` those of the best evaluation at the final
    density, with `best["candidates"]` evaluations to choose from; `majority` what the most
    frequent class would score. `remaining` holds kept and total weights per prunable matrix, and
    the density of each attention head. `parameters` counts what trains and what is new for the
    task. `correct` holds one bit per example and split, base64. `digests` are sha256 of masks and
    weights. `cost` is time and memory and may differ between two runs of the same trial, as
    `environment` may; everything else is reproduced bit for bit on one kind of device with as many
    threads. `sketch` lets masks of one model be compared without keeping them ("" without a mask).
    `distribution` are histograms of weights and scores ({} without a mask).
    """

    trial: Trial
    label: str
    status: str
    metrics: Mapping[str, float | None]
    best: Mapping[str, Any]
    majority: Mapping[str, float | None]
    curve: Sequence[Mapping[str, Any]]
    remaining: Mapping[str, Any]
    parameters: Mapping[str, int]
    steps: Mapping[str, int]
    head: Mapping[str, Any]
    notes: Sequence[str]
    digests: Mapping[str, str]
    correct: Mapping[str, str]
    sketch: str = ""
    distribution: Mapping[str, Any] = field(default_factory=dict)
    diverged: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def shortened(self) -> bool:
        """Whether --max-steps cut the recipe's steps."""
        return self.steps["planned"] < self.steps["recipe"]


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result yet."""

    trial: Trial
    reason: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class Unreadable:
    """A file among the results that cannot be read; it is named and left alone."""

    path: Path
    reason: str


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def save(record: Result | Failure, folder: Path) -> Path:
    """Write a record; a result removes the failure of its trial. Raises StorageError."""
    failed = folder / f"{record.trial.id}.failed.json"
    path = result_path(record.trial, folder) if isinstance(record, Result) else failed
    text = json.dumps(asdict(record), indent=1, sort_keys=True, allow_nan=False)
    write_whole(path, text.encode())
    if isinstance(record, Result):
        with contextlib.suppress(OSError):
            failed.unlink(missing_ok=True)
    return path


def result_path(trial: Trial, folder: Path) -> Path:
    """Where the result of a trial stands in a suite's folder."""
    return folder / f"{trial.id}.json"


def load_result(path: Path) -> Result:
    """Read one result; raises one of UNREADABLE if it is not one."""
    record = _read(path)
    if not isinstance(record, Result):
        raise ValueError("it is not a result")
    return record


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all: temporary file, fsync, rename, folder fsync.

    Raises StorageError that names the folder; the temporary file is removed.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise StorageError(
            f"cannot write {path.name} in {path.parent}: {error.strerror or error};"
            " what was finished is safe, run the same command again to go on"
        ) from error


def load_all(folder: Path) -> tuple[list[Result], list[Failure], list[Unreadable]]:
    """The results of a suite's folder, the failures without a result, and what cannot be read.

    All in the order of trial ids. A missing folder is an empty one.
    """
    results: list[Result] = []
    failures: list[Failure] = []
    unreadable: list[Unreadable] = []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith((".", PLAN)):
            continue
        try:
            record = _read(path)
        except UNREADABLE as error:
            unreadable.append(Unreadable(path, f"{type(error).__name__}: {error}".strip()[:200]))
            continue
        (results if isinstance(record, Result) else failures).append(record)  # type: ignore[arg-type]
    done = {result.trial.id for result in results}
    return results, [f for f in failures if f.trial.id not in done], unreadable


def _read(path: Path) -> Result | Failure:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["schema"] != SCHEMA:
        raise ValueError(f"its schema is {content['schema']}, this program reads {SCHEMA}")
    failed = path.name.endswith(".failed.json")
    kind = Failure if failed else Result
    trial = _from(Trial, content.pop("trial"))
    record = _from(kind, {**content, "trial": trial})
    if isinstance(record, Result):
        _check_parts(record)
    if path.name != f"{trial.id}{'.failed' if failed else ''}.json":
        raise ValueError(f"its name is not its trial's id, {trial.id}")
    return record


PARTS = {
    "metrics": (),
    "best": ("candidates",),
    "majority": (),
    "remaining": ("density", "kept", "total", "heads"),
    "parameters": ("trainable", "new"),
    "steps": ("taken", "planned", "recipe"),
    "head": ("name",),
    "digests": (),
    "distribution": (),
    "correct": (),
    "cost": ("seconds", "evaluation_seconds", "peak_bytes"),
    "environment": ("packages", "device"),
}
"""What readers rely on in the mappings of a result."""


def _check_parts(result: Result) -> None:
    for part, names in PARTS.items():
        found = getattr(result, part)
        if not isinstance(found, dict):
            raise ValueError(f"its {part} is no object")
        for name in names:
            if name not in found:
                raise ValueError(f"its {part} has no {name}")
    if not isinstance(result.curve, list) or not isinstance(result.notes, list):
        raise ValueError("its curve or its notes are no list")


def _from(kind: type, content: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    if set(content) != known:
        odd = sorted(set(content) ^ known)
        raise ValueError(f"it has other fields than this program writes: {', '.join(odd)}")
    return kind(**content)


PLAN = "plan-"


def save_plan(trials: Iterable[Trial], folder: Path) -> Path:
    """Write down which trials a command asks for, in a file named by its content.

    Plans only ever add up: the leaderboard shows what is planned and has no result as missing.
    """
    text = canonical([asdict(trial) for trial in sorted(trials, key=lambda trial: trial.id)])
    path = folder / f"{PLAN}{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        write_whole(path, text.encode())
    return path


def load_plans(folder: Path) -> tuple[list[Trial], list[Unreadable]]:
    """All trials that any command planned for this folder, and plans that cannot be read."""
    trials: dict[str, Trial] = {}
    unreadable = []
    for path in sorted(folder.glob(f"{PLAN}*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            trials.update((t.id, t) for t in (_from(Trial, one) for one in content))
        except UNREADABLE as error:
            unreadable.append(Unreadable(path, f"{type(error).__name__}: {error}"[:200]))
    return [trials[key] for key in sorted(trials)], unreadable
