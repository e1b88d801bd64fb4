"""Group the records of a suite's folder into tables whose entries may be compared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from leaderboard.folders import load_folders
from leaderboard.names import named, settings_of, variants_of, words_of
from zoo.records.facts import MethodFacts, in_order
from zoo.records.result import Failure, Result
from zoo.records.storage import Unreadable
from zoo.records.trial import Conditions, Trial

SLUG = r"[a-z0-9_.-]+-[a-z0-9]{6}-[a-z0-9_.]+-(plain|distilled)(-[a-z0-9_.-]+)?"
"""What Key.slug may give, as a regular expression."""


@dataclass(frozen=True)
class Key:
    """What all trials of a table have in common; results of different keys are never compared."""

    scale: str
    model: str = field(compare=False)
    model_sha: str
    recipe: str
    conditions: Conditions
    data: str
    distill: bool
    variant: str = field(default="", compare=False)
    """The model's name with its hash, 'bert@53d081', where another model has the same name."""

    @property
    def words(self) -> list[str]:
        """What a table is about, whatever the hashes of its model and data are."""
        distilled = "with distillation" if self.distill else "without distillation"
        return [f"scale {self.scale}", f"recipe {self.recipe}", distilled, *self.conditions.words]

    @property
    def slug(self) -> str:
        """The name of files and addresses of a table: 'tiny-53d081-released-plain'. It follows from
        the key alone, so that other tables do not change it."""
        words = [self.scale, self.model_sha[:6], self.recipe]
        words += ["distilled" if self.distill else "plain", *self.conditions.words, self.data]
        return "-".join(re.findall(r"[a-z0-9_.]+", " ".join(words).lower()))

    @property
    def order(self) -> tuple[object, ...]:
        """What tables are sorted by."""
        conditions = self.conditions.words
        return (self.scale, self.model_sha, self.recipe, conditions, self.data, self.distill)


@dataclass(frozen=True)
class RowKey:
    """A row of a table: one method at one target density. `variant` distinguishes plugin files, and
    settings where the seeds of one group have several."""

    density: float
    method: str
    variant: str = ""

    @property
    def name(self) -> str:
        """'movement', or 'movement (settings@a10fb0)'."""
        return self.method + (f" ({self.variant})" if self.variant else "")

    @property
    def words(self) -> str:
        """'movement at 3 %'."""
        return f"{self.name} at {100 * self.density:g} %"


@dataclass
class SeedGroup:
    """The trials of one method, density and task, over seeds."""

    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    planned: set[int] = field(default_factory=set)

    @property
    def ok(self) -> list[Result]:
        """Results that trained to the end, by seed."""
        return [result for result in self.results if result.ok]

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
    """Groups by row and task, and the facts about methods by name; `readings` are those of
    leaderboard/targets.py, once they are made."""

    key: Key
    facts: Mapping[str, MethodFacts] = field(default_factory=dict)
    groups: dict[tuple[RowKey, str], SeedGroup] = field(default_factory=dict)
    readings: dict[tuple[RowKey, str], Any] = field(default_factory=dict, repr=False)

    def group(self, row: RowKey, task: str) -> SeedGroup:
        """The trials of a row on a task; empty if there are none."""
        return self.groups.get((row, task), SeedGroup())

    @property
    def tasks(self) -> list[str]:
        """The tasks of the table, sorted."""
        return sorted({task for _, task in self.groups})

    @cached_property
    def rows(self) -> list[RowKey]:
        """The rows in the order of pages: most remaining weights first, then by family and method.
        Read it once the table is complete."""
        rows = {row for row, _ in self.groups}
        names = in_order({row.method: self.facts_of(row) for row in rows})
        rank = {name: index for index, name in enumerate(names)}
        return sorted(rows, key=lambda row: (-row.density, rank[row.method], row.variant))

    def facts_of(self, row: RowKey) -> MethodFacts:
        """What is known about the method of a row."""
        return self.facts.get(row.method, MethodFacts())

    @property
    def teacher(self) -> RowKey | None:
        """The row of the method that teaches: plain fine-tuning."""
        rows = [row for row in self.rows if row.density == 1 and self.facts_of(row).teaches]
        return rows[0] if rows else None

    @property
    def results(self) -> list[Result]:
        """All results of the table."""
        return [result for group in self.groups.values() for result in group.results]

    def of_row(self, row: RowKey) -> list[Result]:
        """All results of a row, over tasks and seeds."""
        return [r for (key, _), group in self.groups.items() if key == row for r in group.results]

    @cached_property
    def metrics(self) -> dict[str, list[str]]:
        """By task the metrics that any result has a value of, or all if there is no value. Read it
        once the table is complete."""
        named: dict[str, dict[str, None]] = {}
        measured: set[tuple[str, str]] = set()
        for result in self.results:
            task = result.trial.task
            named.setdefault(task, {}).update(dict.fromkeys(result.metrics))
            if result.ok:
                measured |= {(task, m) for m, value in result.metrics.items() if value is not None}
        return {
            task: [m for m in names if (task, m) in measured] or list(names)
            for task, names in named.items()
        }

    def metrics_of(self, task: str) -> list[str]:
        """The metrics of a task, in the task's order; empty without any result."""
        return self.metrics.get(task, [])

    def first_metric(self, task: str) -> str:
        """The metric that a task is judged by; "" without any result."""
        return next(iter(self.metrics_of(task)), "")

    def entries(self) -> Iterator[tuple[RowKey, str, SeedGroup]]:
        """Row, task and group, in the order of pages."""
        for row in self.rows:
            for task in self.tasks:
                if (row, task) in self.groups:
                    yield row, task, self.groups[row, task]


@dataclass
class Board:
    """Everything that a page shows of one suite, or of several folders: tables, files that cannot
    be read, results that contradict the others and are left out, what is said about scales, by
    trial id the suite, and trials that two folders have with other results."""

    suite: str
    tables: list[Table]
    unreadable: Sequence[Unreadable] = ()
    left_out: Sequence[Unreadable] = ()
    caveats: Mapping[str, str] = field(default_factory=dict)
    suites: Mapping[str, str] = field(default_factory=dict)
    conflicts: Sequence[str] = ()

    @property
    def results(self) -> list[Result]:
        """All results of the suite."""
        return [result for table in self.tables for result in table.results]

    def failures(self) -> Iterator[Failure]:
        """Trials that failed and have no result yet."""
        for table in self.tables:
            for group in table.groups.values():
                yield from group.failures

    def without_distillation(self, table: Table) -> Table | None:
        """The table without distillation beside a table with it."""
        return self._twin(table) if table.key.distill else None

    def with_distillation(self, table: Table) -> Table | None:
        """The table with distillation beside a table without it."""
        return None if table.key.distill else self._twin(table)

    def _twin(self, table: Table) -> Table | None:
        """The table whose key differs in distillation alone."""
        key = replace(table.key, distill=not table.key.distill)
        return next((other for other in self.tables if other.key == key), None)


def collect(*folders: Path) -> Board:
    """Read the folders of one or several suites. Files that cannot be read are listed; of a trial
    that two folders have, the first one's result counts."""
    loaded = load_folders(folders)
    found = loaded.records
    known = [r.trial for r in found.results] + [f.trial for f in found.failures] + found.planned
    variants = variants_of(known)
    words = words_of(found.results, known)
    settings = settings_of({trial.id: trial for trial in known}, words)
    tables: dict[Key, Table] = {}

    def group(trial: Trial) -> SeedGroup:
        key = _key(trial, variants)
        plugin = variants.get(named(trial, "plugin_sha"), "")
        names = (words[trial.id], plugin, settings[trial.id])
        row = RowKey(trial.density, trial.method, " ".join(filter(None, names)))
        table = tables.setdefault(key, Table(key, found.facts))
        return table.groups.setdefault((row, trial.task), SeedGroup())

    for result in found.results:
        group(result.trial).results.append(result)
    for failure in found.failures:
        group(failure.trial).failures.append(failure)
    for trial in found.planned:
        group(trial).planned.add(trial.seed)
    for table in tables.values():
        for one in table.groups.values():
            one.results.sort(key=lambda r: (r.trial.seed, r.trial.id))
            one.failures.sort(key=lambda f: (f.trial.seed, f.trial.id))
    ordered = sorted(tables.values(), key=lambda table: table.key.order)
    name = " + ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    lists = found.unreadable, loaded.left_out, found.caveats, loaded.suites, loaded.conflicts
    return Board(name, ordered, *lists)


def _key(trial: Trial, variants: Mapping[tuple[str, str, str], str]) -> Key:
    return Key(
        scale=trial.scale,
        model=trial.model,
        model_sha=trial.model_sha,
        recipe=trial.recipe,
        conditions=trial.train.conditions,
        data=variants.get(named(trial, "data_sha"), ""),
        distill=trial.distill,
        variant=variants.get(named(trial, "model_sha"), ""),
    )
