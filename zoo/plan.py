"""From cells to jobs: resolve recipes, data, checkpoint and teachers, and check all of it first."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from zoo.build import FULL, make_method, planned_steps, recipe_steps
from zoo.checkpoint import Checkpoint, find_checkpoint, word_ids
from zoo.errors import ConfigError
from zoo.recipes import FAMILIES, NO_MLM_HEAD, OPTIONAL, RECIPES, Request, Value, Values, resolve
from zoo.registry import Entry, Plugin, methods, plugin_of, tasks, unknown
from zoo.schedules import check_fits
from zoo.suites import Cell, Scale
from zoo.task import Source, Task, label_notes, prepare
from zoo.trial import Trial

T = TypeVar("T")
TEACHER = "dense"
"""The method whose trial of the same model, task and seed teaches."""


@dataclass(frozen=True)
class Job:
    """A trial to run. `teaches` says that others need its outputs over the training set; `sources`
    where each of its values comes from, which goes into the result's environment."""

    trial: Trial
    teaches: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planner:
    """Makes jobs for one scale, recipe, model and data; each task and method is looked at once."""

    scale: Scale
    recipe: str
    model: str
    data_dir: str | None
    plugins: tuple[Plugin, ...] = ()
    max_steps: int | None = None
    precision: str = FULL
    compile: bool = False

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return find_checkpoint(self.model)

    @cached_property
    def _tasks(self) -> dict[str, tuple[Task, Source]]:
        return {}

    def task(self, name: str) -> tuple[Task, Source]:
        """A task and where its rows are."""
        if name not in self._tasks:
            task = tasks[name].make()
            self._tasks[name] = task, task.locate(self.data_dir)
        return self._tasks[name]

    def prepare(self, jobs: Iterable[Job], cache: Path) -> None:
        """Tokenise what the jobs need and the cache lacks, once for all of them."""
        wanted = {(job.trial.task, job.trial.train["max_length"]) for job in jobs}
        for name, max_length in sorted(wanted):
            task, source = self.task(name)
            prepare(task, source, self.checkpoint, max_length, cache)

    def notes(self, jobs: Iterable[Job]) -> list[str]:
        """What to know of the data of the tasks that were planned, and of heads that are not the
        recipe's own."""
        notes = []
        for task, source in self._tasks.values():
            notes += task.notes(source) + label_notes(task, self.checkpoint)
        heads = {job.trial.method: job.sources.get("head") for job in jobs}
        by_words = [method for method, source in heads.items() if source == NO_MLM_HEAD]
        if by_words:
            notes.append(
                f"{self.checkpoint.name} has no MLM head: {', '.join(by_words)} with the paper's"
                " head, label_words, in place of the released mlm_label_words"
            )
        return notes

    def jobs(self, cells: Iterable[Cell]) -> list[Job]:
        """The jobs of the cells, teachers first where they are needed. Raises ConfigError, one line
        for all cells that cannot be planned."""
        if self.recipe not in RECIPES:
            raise ConfigError(unknown("recipe", self.recipe, RECIPES))
        cells = list(cells)
        for cell in cells:
            methods[cell.method], tasks[cell.task]
            check_density(cell.density)
        trials: dict[str, Trial] = {}
        sources: dict[str, Mapping[str, str]] = {}
        teachers: set[str] = set()
        problems: dict[str, None] = {}
        for cell in cells:
            try:
                trial, teacher = self.trial(cell), None
                method = attempted(make_method, trial)
                if cell.distill or (method is not None and "finetuned" in method.needs):
                    teacher = self.trial(teacher_of(cell))
                    trial = replace(trial, teacher=teacher.id)
            except ConfigError as error:
                problems[str(error)] = None
                continue
            if teacher is not None:
                trials.setdefault(teacher.id, teacher)
                sources.setdefault(teacher.id, self.sources(teacher_of(cell)))
                teachers.add(teacher.id)
            trials.setdefault(trial.id, trial)
            sources.setdefault(trial.id, self.sources(cell))
        if problems:
            raise ConfigError("; ".join(list(problems)[:3]) + more(len(problems) - 3))
        return [Job(trial, id in teachers, sources[id]) for id, trial in trials.items()]

    def sources(self, cell: Cell) -> dict[str, str]:
        """Where each value of a cell comes from."""
        train, hyper = self.values(cell)
        return {name: value.source for name, value in (train | hyper).items()}

    def values(self, cell: Cell) -> tuple[Values, Values]:
        """The resolved recipe of a cell with its sources: training values and hyper-parameters."""
        entry = methods[cell.method]
        given = {name: Value(value, "given by the suite") for name, value in cell.given}
        request = Request(
            recipe=self.recipe,
            scale=self.scale.name,
            model_type=self.checkpoint.model_type,
            has_mlm_head=self.checkpoint.has_mlm_head,
            method=recipe_name(entry),
            task=tasks[cell.task].facts.get("recipe", cell.task),
            task_name=cell.task,
            density=cell.density,
            distill=cell.distill,
            given=frozenset(given),
        )
        train, hyper = resolve(request)
        train |= {name: v for name, v in given.items() if name in {*train, *OPTIONAL}}
        if train["max_length"].value > self.checkpoint.positions:
            train["max_length"] = Value(
                self.checkpoint.positions, "the model has no more positions"
            )
        hyper |= {name: value for name, value in given.items() if name not in train}
        return train, {n: v for n, v in hyper.items() if n in given or entry.takes(n)}

    def trial(self, cell: Cell) -> Trial:
        """The trial of a cell, checked: factory, schedule against steps, label words."""
        train, hyper = self.values(cell)
        task, source = self.task(cell.task)
        trial = Trial(
            scale=self.scale.name,
            model=self.checkpoint.name,
            model_sha=self.checkpoint.sha,
            task=cell.task,
            data=source.name,
            data_sha=source.fingerprint,
            method=cell.method,
            density=float(cell.density),
            distill=cell.distill,
            seed=cell.seed,
            recipe=self.recipe,
            train={name: v.value for name, v in train.items()},
            hyper={name: v.value for name, v in hyper.items()},
            plugin_sha=self._plugin_sha(cell),
        )
        rows = source.rows[task.train]
        windows = task.output.per_token  # a row may give several examples
        if self.max_steps and (windows or self.max_steps < recipe_steps(trial.train, rows)):
            trial = replace(trial, train={**trial.train, "max_steps": self.max_steps})
        if self.precision != FULL:
            trial = replace(trial, train={**trial.train, "precision": self.precision})
        if self.compile:
            trial = replace(trial, train={**trial.train, "compile": True})
        method = attempted(make_method, trial)
        if method is not None:
            attempted(check_fits, method.level, planned_steps(trial.train, rows))
            if method.head.label_words:
                word_ids(self.checkpoint, task.name, task.words)
        return trial

    def _plugin_sha(self, cell: Cell) -> str:
        own = [plugin_of(e, self.plugins) for e in (methods[cell.method], tasks[cell.task])]
        return "+".join(sorted({plugin.sha256 for plugin in own if plugin}))


def attempted(call: Callable[..., T], *arguments: object) -> T | None:
    """What a call gives, or None where a method's own code raises: its trials will raise the same,
    fail alone, and the others go on."""
    try:
        return call(*arguments)
    except ConfigError:
        raise
    except Exception:
        return None


def teacher_of(cell: Cell) -> Cell:
    """The cell of a student's teacher: of what the suite gives, it shares how text is cut."""
    shared = tuple((name, value) for name, value in cell.given if name == "max_length")
    return replace(cell, method=TEACHER, density=1.0, distill=False, given=shared)


def recipe_name(entry: Entry) -> str:
    """The recipe a method trains under: the one it names, its own, or movement's."""
    return entry.facts.get("recipe") or (entry.name if entry.name in FAMILIES else "movement")


def check_density(density: Any) -> None:
    """Raise ConfigError unless density is a number in (0, 1]."""
    if isinstance(density, float | int) and 0 < density <= 1:
        return
    percent = isinstance(density, float | int) and 1 < density <= 100
    hint = f"; did you mean {density / 100:g}?" if percent else ""
    raise ConfigError(
        f"density is the fraction of weights that remain and must be in (0, 1], got {density}{hint}"
    )


def more(number: int) -> str:
    """' (and 3 more)', or nothing."""
    return f" (and {number} more)" if number > 0 else ""
