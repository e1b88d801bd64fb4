"""Classes of faults for tests/faults.py: one file of a suite's folder is damaged or forged.

The folder is read, and its whole leaderboard built. Such a fault is survived if nothing is raised
within the limits of tests/injection.py, the other records count as before, and the file is either
named on the page, in a line that says why, or read as what it says.
"""

import itertools
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from leaderboard.collect import collect
from leaderboard.files import write_board
from leaderboard.page import HTML, PAGE
from tests.bombs import BOMBS, FIGURED
from tests.injection import LIMIT, LONGEST, MEGABYTES, OutOfTime, Row, time_limit, traced
from tests.mutations import FORGERIES, flipped, mutated
from zoo.errors import cause_of
from zoo.records.codec import from_json
from zoo.records.content import without_checksum
from zoo.records.reading import DAMAGED, FAILED, PLAN, plan_name
from zoo.records.result import Failure, Plan
from zoo.records.storage import load_result, save, save_plan
from zoo.records.trial import Trial, canonical

RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs" / "laboratory"
METHODS = ("dense-1", "magnitude-0.03", "smp_s-0.03", "l0-0.03", "l0-0.1")
SHOWN = (
    *(f"high_sparsity/tiny_paraphrase-{method}-seed[01]-*.json" for method in METHODS),
    *(f"high_sparsity/tiny_span-{method}-seed[01]-*.json" for method in METHODS[:3]),
    "high_sparsity/tiny_inference-magnitude-0.03-seed0-*.json",
    "tuned/tiny_span-smp_s-0.03-seed[01]-*.json",
)
"""Results of the laboratory with every part that a result may have."""
DRAWN = ("remaining", "distribution", "sketch", "curve", "metrics", "forms", "cost", "parameters")
"""Parts of a result that figures show. Figures take long, and are drawn where these are changed."""


@dataclass(frozen=True)
class Fault:
    """A damaged file, its name before, what was done to it, whether it must be named, and whether
    figures show it. `same` is its content before, where it may be read as that."""

    path: Path
    before: str
    what: str
    refused: bool = False
    drawn: bool = False
    same: Any = None


Inject = Callable[[Sequence[Path], random.Random], Fault]
"""Damages one of the files of a folder."""


def fill(folder: Path) -> list[Path]:
    """Results of the laboratory, one failure and one plan, as this program writes them."""
    found = [load_result(path) for pattern in SHOWN for path in sorted(RUNS.glob(pattern))]
    paths = [save(result, folder) for result in found]
    failed, missing = (replace(found[0].trial, seed=seed) for seed in (7, 8))
    paths.append(save(Failure(failed, "out of memory", found[0].facts), folder))
    trials = (failed, missing, *(result.trial for result in found))
    facts = {result.trial.method: result.facts for result in found}
    return [*paths, *save_plan(Plan(trials, facts, {"tiny": "A toy."}), folder)]


@cache
def whole() -> Mapping[str, bytes]:
    """The files of a folder that is whole, by name. Its leaderboard is built once, so that what is
    loaded for the first time counts for no fault."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {path.name: path.read_bytes() for path in fill(folder)}
        write_board(collect(folder), folder, figures=bool(DRAWN))
    return files


def injected(name: str, many: int, inject: Inject) -> Row:
    """Inject so many faults of a class, each into a folder that is whole otherwise."""
    files, lost, most = whole(), [], 0.0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, mock.patch("os.fsync"):
        folder, out = Path(temporary) / "suite", Path(temporary) / "out"
        for number in range(many):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file, content in files.items():
                (folder / file).write_bytes(content)
            paths = [folder / file for file in files]
            fault = inject(paths, random.Random(f"{name} {number}"))
            spent: list[float] = []
            with traced(spent):
                why = outcome(folder, out, fault, set(files))
            seconds, megabytes = spent
            most = max(most, megabytes)
            if why or seconds > LIMIT or megabytes > MEGABYTES:
                took = f"{seconds:.1f} s, {megabytes:.0f} MB"
                lost.append(f"{name} {number}, {fault.what}: {why or 'too much'} ({took})")
    return Row(name, many, many - len(lost), time.monotonic() - start, most, lost)


def outcome(folder: Path, out: Path, fault: Fault, files: set[str]) -> str:
    """Why a fault was not survived, "" if it was."""
    name = fault.path.name
    try:
        with time_limit(LONGEST):
            board = collect(folder)
            named = {f.path.name: f.reason for f in (*board.unreadable, *board.left_out)}
            write_board(board, out, figures=fault.drawn and name not in named)
    except OutOfTime:
        return f"it took more than {LONGEST} seconds"
    except Exception as error:  # which is what is looked for
        return cause_of(error)
    page, html = ((out / file).read_text("utf-8") for file in (PAGE, HTML))
    counted = {f"{r.trial.id}.json" for r in board.results}
    counted |= {f"{f.trial.id}{FAILED}.json" for f in board.failures()}
    others = files - {name, fault.before} - {f.path.name for f in board.left_out}
    gone = {one for one in others - counted if not one.startswith(PLAN)}
    if gone or {f.path.name for f in board.unreadable} - {name}:
        return f"other files do not count: {', '.join(gone)}"
    if board.left_out and name not in named:
        return "others are left out for it"
    if "<img src" in page + html or "](javascript:" in page or "could not be drawn" in page:
        return "the page is broken"
    if name not in named:
        return "it is not named" if fault.refused and not _read_as(fault) else ""
    return "" if named[name] and "\n" not in named[name] and name in html else "no reason is given"


def _read_as(fault: Fault) -> bool:
    """Whether a file's content is as before, though its bytes are not."""
    return fault.same is not None and json.loads(fault.path.read_text("utf-8")) == fault.same


# Classes ----------------------------------------------------------------------------------------


def records(many: int) -> list[Row]:
    """One field of a result or a failure is not what it should be."""

    def inject(files: Sequence[Path], rng: random.Random) -> Fault:
        path = rng.choice([path for path in files if not path.name.startswith(PLAN)])
        text, how, where = mutated(_foreign(path), rng)
        path.write_text(text, "utf-8")
        ending = FAILED if path.name.endswith(f"{FAILED}.json") else ""
        moved = path.rename(path.with_name(f"{_id_in(text) or path.stem}{ending}.json"))
        what = f"{how} {'.'.join(map(str, where))}"
        return Fault(moved, path.name, what, drawn=where[0] in DRAWN)

    return [injected("records", many, inject)]


def _foreign(path: Path) -> Any:
    """The content of a file of somebody else's, who writes no checksum."""
    content = json.loads(path.read_text("utf-8"))
    return without_checksum(content)[0]


def _id_in(text: str) -> str:
    """The id of the trial in a mutated file, "" if there is none."""
    try:
        return from_json(Trial, json.loads(text)["trial"]).id
    except (*DAMAGED, OverflowError):
        return ""


def plans(many: int) -> list[Row]:
    """One field of a plan is not what it should be; half of the files are named by what they
    hold then."""

    def inject(files: Sequence[Path], rng: random.Random) -> Fault:
        path = files[-1]
        text, how, where = mutated(json.loads(path.read_text("utf-8")), rng)
        path.write_text(text, "utf-8")
        moved = path
        if rng.random() < 0.5:
            with suppress(*DAMAGED):
                moved = path.rename(path.with_name(plan_name(canonical(json.loads(text)))))
        return Fault(moved, path.name, f"{how} {'.'.join(map(str, where))}", moved == path)

    return [injected("plans", many, inject)]


def bits(many: int) -> list[Row]:
    """One bit of a file is flipped."""

    def inject(files: Sequence[Path], rng: random.Random) -> Fault:
        path = rng.choice(files)
        before = path.read_bytes()
        path.write_bytes(flipped(before, rng))
        return Fault(path, path.name, "a flipped bit", refused=True, same=json.loads(before))

    return [injected("bits", many, inject)]


def forged(many: int) -> list[Row]:
    """A result says what cannot all be true, or what the other results contradict; every kind comes
    once before one comes again."""
    kinds = itertools.cycle(FORGERIES)

    def inject(files: Sequence[Path], rng: random.Random) -> Fault:
        path = rng.choice(judged(files))
        content, how = _foreign(path), next(kinds)
        FORGERIES[how](content, rng)
        path.write_text(json.dumps(content), "utf-8")
        return Fault(path, path.name, how, refused=True)

    return [injected("forged", many, inject)]


def judged(files: Sequence[Path]) -> list[Path]:
    """Results of a task of which there are enough to contradict one."""
    return [f for f in files if f.name.startswith("tiny_paraphrase-") and FAILED not in f.name]


def bombs(many: int) -> list[Row]:
    """A file would take its reader's memory or time."""
    kinds = itertools.cycle(BOMBS)

    def inject(files: Sequence[Path], rng: random.Random) -> Fault:
        path, how = next(f for f in judged(files) if "smp_s" in f.name), next(kinds)
        made = BOMBS[how](path, _foreign(path))
        return Fault(made, path.name, how, drawn=how in FIGURED)

    return [injected("bombs", many, inject)]
