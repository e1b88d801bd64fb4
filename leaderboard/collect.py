"""Group what lies in a suite's folder into tables whose entries may stand beside each other."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from zoo.trial import Failure, Result, Trial, Unreadable, canonical, load_all, load_plans


@dataclass(frozen=True, order=True)
class Key:
    """What all trials of one table share; nothing of different keys is ever compared."""

    scale: str
    model: str = field(compare=False)
    model_sha: str
    recipe: str
    max_steps: int
    data: str
    distill: bool
    precision: str = ""
    compiled: bool = False


@dataclass(frozen=True, order=True)
class RowKey:
    """A row of a table: one method at one target density. `variant` tells plugin files apart, and
    settings where the trials of one cell have several."""

    density: float
    method: str
    variant: str = ""


@dataclass
class Cell:
    """The trials of one method, density and task over seeds."""

    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    planned: set[int] = field(default_factory=set)

    @property
    def ok(self) -> list[Result]:
        """Results that trained to the end, by seed."""
        return [result for result in self.results if result.status == "ok"]

    @property
    def seeds(self) -> set[int]:
        """All seeds that were planned, or run without a plan."""
        return self.planned | self._run

    @property
    def missing(self) -> list[int]:
        """Planned seeds that have neither a result nor a failure."""
        return sorted(self.seeds - self._run)

    @property
    def _run(self) -> set[int]:
        return {r.trial.seed for r in self.results} | {f.trial.seed for f in self.failures}


@dataclass
class Table:
    """Cells by row and task."""

    key: Key
    cells: dict[tuple[RowKey, str], Cell] = field(default_factory=dict)

    def cell(self, row: RowKey, task: str) -> Cell:
        return self.cells.setdefault((row, task), Cell())

    @property
    def tasks(self) -> list[str]:
        return sorted({task for _, task in self.cells})

    @property
    def rows(self) -> list[RowKey]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def results(self) -> list[Result]:
        return [result for cell in self.cells.values() for result in cell.results]

    def of_row(self, row: RowKey) -> list[Result]:
        """All results of a row, over tasks and seeds."""
        return [r for (key, _), cell in self.cells.items() if key == row for r in cell.results]

    @cached_property
    def metrics(self) -> dict[str, list[str]]:
        """By task the metrics that any result of it has a value of, else all; asked for once the
        table is complete."""
        named: dict[str, dict[str, None]] = {}
        measured: set[tuple[str, str]] = set()
        for result in self.results:
            task = result.trial.task
            named.setdefault(task, {}).update(dict.fromkeys(result.metrics))
            if result.status == "ok":
                measured |= {(task, m) for m, value in result.metrics.items() if value is not None}
        return {
            task: [m for m in names if (task, m) in measured] or list(names)
            for task, names in named.items()
        }


@dataclass
class Board:
    """Everything that a page shows of one suite."""

    suite: str
    tables: list[Table]
    unreadable: list[Unreadable]

    @property
    def results(self) -> list[Result]:
        return [result for table in self.tables for result in table.results]

    def failures(self) -> Iterator[Failure]:
        """Trials that failed and have no result yet."""
        for table in self.tables:
            for cell in table.cells.values():
                yield from cell.failures


def collect(folder: Path) -> Board:
    """Read a suite's folder. What cannot be read is listed, never dropped in silence."""
    results, failures, unreadable = load_all(folder)
    planned, more = load_plans(folder)
    known = [r.trial for r in results] + [f.trial for f in failures] + planned
    variants = _variants(known)
    settings = _settings({trial.id: trial for trial in known})
    tables: dict[Key, Table] = {}

    def cell(trial: Trial) -> Cell:
        key = _key(trial, variants)
        names = (variants.get(_named(trial, "plugin_sha"), ""), settings[trial.id])
        row = RowKey(trial.density, trial.method, " ".join(filter(None, names)))
        return tables.setdefault(key, Table(key)).cell(row, trial.task)

    for result in results:
        cell(result.trial).results.append(result)
    for failure in failures:
        cell(failure.trial).failures.append(failure)
    for trial in planned:
        cell(trial).planned.add(trial.seed)
    for one in tables.values():
        for entry in one.cells.values():
            entry.results.sort(key=lambda r: (r.trial.seed, r.trial.id))
            entry.failures.sort(key=lambda f: (f.trial.seed, f.trial.id))
    return Board(folder.resolve().name, [tables[key] for key in sorted(tables)], unreadable + more)


def _named(trial: Trial, field_name: str) -> tuple[str, str, str]:
    """What a hash belongs to: a task's data or a method's plugin file."""
    owner = trial.task if field_name == "data_sha" else trial.method
    return field_name, owner, getattr(trial, field_name)


def _variants(trials: Iterable[Trial]) -> dict[tuple[str, str, str], str]:
    """Short names for hashes, where one task has several data sets or one method several files."""
    hashes: dict[tuple[str, str], set[str]] = {}
    for trial in trials:
        for name in ("data_sha", "plugin_sha"):
            kind, owner, sha = _named(trial, name)
            hashes.setdefault((kind, owner), set()).add(sha)
    return {
        (kind, owner, sha): f"{owner}@{sha[:6]}"
        for (kind, owner), found in hashes.items()
        if len(found) > 1
        for sha in found
    }


def _settings(trials: Mapping[str, Trial]) -> dict[str, str]:
    """Per trial id a short name of its hyper-parameters and its teacher's, where the seeds of one
    cell do not all have the same ones: they are no repetitions of each other."""

    def sha(trial: Trial) -> str:
        teacher = trials.get(trial.teacher)
        content = [trial.train, trial.hyper, *([teacher.train, teacher.hyper] if teacher else [])]
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:6]

    cells: dict[str, set[str]] = {}
    for trial in trials.values():
        cells.setdefault(_all_but_settings(trial), set()).add(sha(trial))
    return {
        id: f"settings@{sha(trial)}" if len(cells[_all_but_settings(trial)]) > 1 else ""
        for id, trial in trials.items()
    }


def _all_but_settings(trial: Trial) -> str:
    """What the seeds of one cell share whatever their settings."""
    apart = {"train": {}, "hyper": {}, "teacher": "", "seed": 0}
    own = {name: trial.train.get(name) for name in ("max_steps", "precision", "compile")}
    return canonical({**asdict(trial), **apart, **own})


def _key(trial: Trial, variants: dict[tuple[str, str, str], str]) -> Key:
    return Key(
        scale=trial.scale,
        model=trial.model,
        model_sha=trial.model_sha,
        recipe=trial.recipe,
        max_steps=trial.train.get("max_steps") or 0,
        precision=trial.train.get("precision", ""),
        compiled=trial.train.get("compile", False),
        data=variants.get(_named(trial, "data_sha"), ""),
        distill=trial.distill,
    )


def reference(board: Board, table: Table) -> Table | None:
    """The table without distillation that a table with it is to be read beside."""
    return _twin(board, table) if table.key.distill else None


def with_distillation(board: Board, table: Table) -> Table | None:
    """The table with distillation that stands beside a table without."""
    return None if table.key.distill else _twin(board, table)


def _twin(board: Board, table: Table) -> Table | None:
    others = [t for t in board.tables if t.key.distill != table.key.distill]
    same = [t for t in others if _but_distill(t.key) == _but_distill(table.key)]
    return same[0] if same else None


def _but_distill(key: Key) -> tuple[object, ...]:
    return tuple(value for name, value in vars(key).items() if name != "distill")
