"""The files that hold records: each is written whole or not at all.

One JSON file per finished trial, `<results>/<suite>/<trial_id>.json`. A trial that raised leaves
`<trial_id>.failed.json`, which counts until there is a result. Plans are `plan-<hash>.json`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.errors import StorageError, cause_of
from zoo.records.codec import to_json
from zoo.records.consistent import check_consistent
from zoo.records.content import encoded, read, with_checksum
from zoo.records.facts import MethodFacts
from zoo.records.reading import DAMAGED, FAILED, PLAN, outcome_of, plan_name, plan_of
from zoo.records.result import Failure, Outcome, Plan, Result
from zoo.records.trial import Trial, canonical

UNREADABLE = (OSError, *DAMAGED)
"""What reading a damaged or foreign file may raise."""

SUMS = "sums.json"
"""The file that `seal` writes."""
MOST_TRIALS = 5000
"""Trials of a plan's file at most."""


@dataclass(frozen=True)
class Unreadable:
    """A file among the results that cannot be read; it is named and left as it is."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Folder:
    """The records of a suite's folder: results, failures without a result, the trials of all plans,
    what is known about methods and scales by name, and files that cannot be read. All sorted by
    trial id."""

    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    planned: list[Trial] = field(default_factory=list)
    facts: Mapping[str, MethodFacts] = field(default_factory=dict)
    caveats: Mapping[str, str] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


def result_path(trial: Trial, folder: Path) -> Path:
    """The file for the result of a trial in a suite's folder."""
    return folder / f"{trial.id}.json"


def save(record: Outcome, folder: Path) -> Path:
    """Write a record and return its path; a result removes the failure of its trial.

    Raises StorageError, and ValueError for what could not be read again: a result that contradicts
    itself, numbers that JSON does not have.
    """
    if isinstance(record, Result):
        check_consistent(record)
    failed = folder / f"{record.trial.id}{FAILED}.json"
    path = result_path(record.trial, folder) if isinstance(record, Result) else failed
    write_whole(path, encoded(with_checksum(to_json(record))))
    if isinstance(record, Result):
        with contextlib.suppress(OSError):
            failed.unlink(missing_ok=True)
    return path


def load_result(path: Path) -> Result:
    """Read one result; raises one of UNREADABLE if the file does not hold one."""
    record = load(path)
    if not isinstance(record, Result):
        raise ValueError("it is not a result")
    return record


def load(path: Path) -> Outcome:
    """Read a result or a failure of this or an earlier schema; raises one of UNREADABLE."""
    return outcome_of(path.name, read(path))


def load_folder(folder: Path) -> Folder:
    """Read a suite's folder; a folder that does not exist counts as empty."""
    results: list[Result] = []
    failures: list[Failure] = []
    plans: list[Plan] = []
    unreadable: list[Unreadable] = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            if path.name.startswith(PLAN):
                plans.append(plan_of(path.name, read(path)))
                continue
            record = load(path)
        except UNREADABLE as error:
            reason = cause_of(error)
            unreadable.append(Unreadable(path, reason))
            continue
        if isinstance(record, Result):
            results.append(record)
        else:
            failures.append(record)
    done = {result.trial.id for result in results}
    planned = {trial.id: trial for plan in plans for trial in plan.trials}
    outcomes: list[Outcome] = [*failures, *results]
    facts = {name: known for plan in plans for name, known in plan.facts.items()}
    for name, told in _facts_of(outcomes).items():
        if told != MethodFacts() or name not in facts:  # files without facts have the defaults
            facts[name] = told
    return Folder(
        results=results,
        failures=[failure for failure in failures if failure.trial.id not in done],
        planned=[planned[id] for id in sorted(planned)],
        facts=facts,
        caveats={**_caveats_of(results), **{n: t for p in plans for n, t in p.caveats.items()}},
        unreadable=unreadable,
    )


def _facts_of(outcomes: Iterable[Outcome]) -> dict[str, MethodFacts]:
    """By method the facts that most of its files state, the defaults if none states any."""
    counts: dict[str, Counter[MethodFacts]] = {}
    for record in outcomes:
        told = counts.setdefault(record.trial.method, Counter())
        told[record.facts] += record.facts != MethodFacts()
    return {name: told.most_common(1)[0][0] for name, told in counts.items()}


def _caveats_of(results: Iterable[Result]) -> dict[str, str]:
    """What results say about their scales."""
    return {r.trial.scale: r.environment.caveat for r in results if r.environment.caveat}


def save_plan(plan: Plan, folder: Path) -> list[Path]:
    """Write down which trials a command asks for, in files named by their content.

    Plans add up: the leaderboard shows a trial as missing if any plan has it and no result exists.
    """
    trials, paths = sorted(plan.trials, key=lambda trial: trial.id), []
    for start in range(0, len(trials) or 1, MOST_TRIALS):
        part = replace(plan, trials=tuple(trials[start : start + MOST_TRIALS]))
        text = canonical(to_json(part))
        paths.append(folder / plan_name(text))
        if not paths[-1].exists() or _is_damaged(paths[-1], text.encode()):
            write_whole(paths[-1], text.encode())
    return paths


def _is_damaged(path: Path, content: bytes) -> bool:
    """Whether a regular file does not hold this content."""
    if not path.is_file():
        return False
    return path.stat().st_size != len(content) or path.read_bytes() != content


def check_folder(path: Path) -> Path:
    """Return the path, if it is a folder or can become one. Raises StorageError if a file or a link
    to nothing is in its place or above it."""
    for part in (path, *path.parents):
        if os.path.isdir(part):
            break
        if os.path.lexists(part):
            what = "a link to nothing" if part.is_symlink() else "not a folder"
            raise StorageError(f"cannot write in {path}: {part} is {what}")
    return path


def make_folder(path: Path) -> None:
    """Make a folder, if it does not exist, and try to write there. Raises StorageError."""
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise StorageError(f"cannot write in {path}: {error.strerror or error}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it exists completely or not at all: a temporary file, fsync, rename,
    fsync of the folder.

    Raises StorageError, which names the folder; the temporary file is removed.
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
            " finished trials are safe, run the same command again to continue"
        ) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file, which need not fit into memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write down the sha256 of every file in a folder, in SUMS."""
    sums = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / SUMS).write_text(json.dumps(sums), encoding="utf-8")


def sealed(folder: Path, sum_of: Callable[[Path], str] = sha256_of) -> list[str]:
    """The names of the files in a folder when it was sealed. Raises ValueError unless all are as
    they were then, or one of UNREADABLE; `sum_of` gives the sha256 of a file."""
    sums = read(folder / SUMS)
    for name, written in sums.items():
        if sum_of(folder / name) != written:
            raise ValueError(f"{name} is not what was written")
    return list(sums)


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target`, in place of what was there, when the block ends
    without an error, and is removed otherwise. Raises StorageError."""
    half = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        half.mkdir(parents=True)
        yield half
        for file in half.iterdir():
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for its owner alone
        shutil.rmtree(target, ignore_errors=True)
        half.rename(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
