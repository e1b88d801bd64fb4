"""From cells to jobs: find values, data, checkpoint and teachers, and check all of it first."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.engine.build import make_method
from zoo.engine.frozen import examples_read
from zoo.engine.rehearse import rehearse
from zoo.errors import BenchmarkError, ConfigError, cause_of, unknown
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.choosing import for_choosing
from zoo.inputs.hub import pinned
from zoo.inputs.task import Source, Task, label_notes
from zoo.inputs.tokenised import tokenise
from zoo.inputs.tokeniser import load_tokenizer, tokeniser_notes
from zoo.parts.collapse import COLLAPSES, may_collapse
from zoo.parts.method import Method
from zoo.parts.schedules import check_fits
from zoo.plugins import Plugin, plugin_of
from zoo.records.codec import fields_of, from_json, to_json
from zoo.records.trial import Conditions, Training, Trial, training_names
from zoo.registry import blaming, methods, tasks
from zoo.runs.jobs import Job, Planned, Tuned, both, job_of
from zoo.runs.suites import Cell, Scale
from zoo.runs.values import Resolved, check_version, resolve
from zoo.status import reporting


@dataclass(frozen=True)
class Planner:
    """Makes jobs for one scale, version of the recipes, model and data; with `choosing`, trials
    that are judged on the examples for choosing. `tuned` holds what was chosen for cells, for
    all seeds; only their trials are under the conditions `tune` and `search`; `beside` are the
    planners of other checkpoints. Each cell, task and checkpoint is looked up once."""

    scale: Scale
    version: str
    model: str
    data_dir: str | None = None
    plugins: tuple[Plugin, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    choosing: bool = False
    tuned: Mapping[Cell, Tuned] = field(default_factory=dict)
    beside: tuple["Planner", ...] = ()

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The pre-trained model."""
        return find_checkpoint(self.model)

    @property
    def located(self) -> str:
        """Where trials find the checkpoint: an absolute path, or a hub name at its commit."""
        local, found = Path(self.model).expanduser(), self.checkpoint.folder
        return str(local.resolve()) if local.is_dir() else pinned(self.model, found)

    def of(self, trial: Trial) -> "Planner":
        """The planner of a trial's checkpoint: this one, or one beside it."""
        return next((p for p in self.beside if p.checkpoint.sha == trial.model_sha), self)

    @cached_property
    def _tasks(self) -> dict[str, tuple[Task, Source]]:
        return {}

    @cached_property
    def _planned(self) -> dict[Cell, Planned]:
        return {}

    def task(self, name: str) -> tuple[Task, Source]:
        """A task and where its rows are. Raises ConfigError, also where its own code raises."""
        if name not in self._tasks:
            what = f"task {name}"
            with blaming(what, tasks[name]):
                task = tasks[name].make()
                source = task.locate(self.data_dir)
            at = f"{what} ({tasks[name].origin})"
            if not isinstance(task, Task) or not isinstance(source, Source):
                raise ConfigError(f"{at} must return a zoo.Task that locates a zoo.Source")
            if task.train not in source.rows or not set(task.evaluation) & set(source.rows):
                raise ConfigError(
                    f"{at} reads the split {task.train} and one of {', '.join(task.evaluation)};"
                    f" its data has {', '.join(source.rows)}"
                )
            if self.choosing:
                with blaming(what, tasks[name]):
                    task, source = for_choosing(task, source)
            self._tasks[name] = task, source
        return self._tasks[name]

    def tokenise(self, jobs: Iterable[Job], cache: Path) -> None:
        """Tokenise what the jobs need and the cache lacks, once for all of them."""
        trials = (job.trial for job in jobs)
        wanted = {(t.task, t.train.max_length, t.model_sha): self.of(t) for t in trials}
        with reporting(cache, "before the trials"):
            for (name, max_length, _), owner in sorted(wanted.items(), key=lambda pair: pair[0]):
                task, source = owner.task(name)
                tokenise(task, source, owner.checkpoint, max_length, cache)

    def jobs(self, cells: Iterable[Cell]) -> list[Job]:
        """The jobs of the cells, teachers first where they are needed. Raises ConfigError, one line
        for all cells that cannot be planned."""
        check_version(self.version)
        cells = list(cells)
        for cell in cells:
            if not isinstance(cell, Cell):
                raise ConfigError(f"a suite must return a list of zoo.Cell, got {cell!r:.80}")
            methods[cell.method], tasks[cell.task]
            check_density(cell.density)
        load_tokenizer(self.checkpoint)  # a wrong model is found once, not with every cell
        jobs: dict[str, Job] = {}
        problems: dict[str, None] = {}
        for cell in cells:
            try:
                for job in self._jobs_of(cell):
                    known = jobs.get(job.trial.id)
                    jobs[job.trial.id] = both(known, job) if known else job
            except ConfigError as error:
                problems[str(error)] = None
        if problems:
            raise ConfigError("; ".join(list(problems)[:3]) + more(len(problems) - 3))
        return list(jobs.values())

    def _jobs_of(self, cell: Cell) -> list[Job]:
        """The job of a cell, after its teacher's if it needs a teacher."""
        planned = self.plan(cell)
        needs = planned.method.needs if planned.method else frozenset()
        if not cell.distill and not needs & OF_DENSE:
            return [job_of(planned.trial, planned)]
        teacher = self.plan(teacher_of(cell, planned.method))
        trial = replace(planned.trial, teacher=teacher.trial.id)
        starts, reads = "weights" in needs, self._reads(planned)
        teaches = replace(job_of(teacher.trial, teacher), teaches=True, reads=reads, starts=starts)
        return [teaches, job_of(trial, planned)]

    def _reads(self, student: Planned) -> int | None:
        """How many examples a student reads; None for all, or if its method is not known."""
        train, method = student.trial.train, student.method
        if method is None or not (train.max_steps or method.needs == {"weights"}):
            return None
        return examples_read(method, train.max_steps or 0, train.batch)

    def plan(self, cell: Cell) -> Planned:
        """Resolve and check a cell: values, factory, schedule against steps, head. Raises
        ConfigError."""
        if cell not in self._planned:
            self._planned[cell] = self._plan(cell)
        return self._planned[cell]

    def _plan(self, cell: Cell) -> Planned:
        tuned = self.tuned.get(for_all_seeds(cell))
        given = replace(cell, given=(*cell.given, *tuned.given)) if tuned else cell
        values = resolve(given, self.scale, self.version, self.checkpoint)
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
            recipe=self.version,
            train=self._training(cell, values, task, source),
            hyper={name: v.value for name, v in values.hyper.items()},
            plugin_sha=self._plugin_sha(cell),
            choosing=self.choosing,
        )
        problem, method, memory = "", None, 0
        try:
            method = make_method(trial)
            steps = method.steps(trial.train.planned_steps(source.rows[task.train]))
            check_fits(method.level, max(steps, 1))
            found = rehearse(self.checkpoint, task, method.head, trial.train.max_length)
            shapes = found.check(method)
            memory = method.calibration.memory(shapes) if method.calibration else 0
        except ConfigError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # a method's own code; its trials will be recorded as failed
            problem = str(error) if isinstance(error, BenchmarkError) else cause_of(error)
        return Planned(trial, values, method, problem, tuned.candidates if tuned else (), memory)

    def _training(self, cell: Cell, values: Resolved, task: Task, source: Source) -> Training:
        """The training values with the conditions; `max_steps` only where it cuts something."""
        _check_names(cell, values)
        try:
            train = from_json(Training, {name: v.value for name, v in values.train.items()})
        except ValueError as error:
            raise ConfigError(f"method {cell.method} on {cell.task}: {error}") from None
        most, windows = self.conditions.max_steps, task.output.per_token
        conditions = self.conditions
        if for_all_seeds(cell) not in self.tuned:
            conditions = conditions.untuned
        if most and not windows and most >= train.recipe_steps(source.rows[task.train]):
            conditions = replace(conditions, max_steps=None)  # a window may make several examples
        return replace(train, **to_json(conditions))

    def _plugin_sha(self, cell: Cell) -> str:
        entries: tuple[Any, ...] = (methods[cell.method], tasks[cell.task])
        own = [plugin_of(entry, self.plugins) for entry in entries]
        return "+".join(sorted({plugin.sha256 for plugin in own if plugin}))

    def _may_collapse(self, cell: Cell, planned: Planned) -> bool:
        task, source = self.task(cell.task)
        steps = planned.trial.train.planned_steps(source.rows[task.train])
        return planned.method is not None and may_collapse(planned.method, steps)

    def notes(self) -> list[str]:
        """What a reader should know about the data of the planned tasks, and about values that
        differ from the recipe for this checkpoint."""
        notes = tokeniser_notes(self.checkpoint) if self._planned else []
        for task, source in self._tasks.values():
            notes += task.notes(source) + label_notes(task, self.checkpoint)
        by_note: dict[str, dict[str, None]] = {}
        for cell, planned in self._planned.items():
            for note in planned.values.notes:
                by_note.setdefault(note, {})[cell.method] = None
        for note, names in by_note.items():
            notes.append(f"{self.checkpoint.name} {note} ({', '.join(names)})")
        short = [c.method for c, one in self._planned.items() if self._may_collapse(c, one)]
        if short:
            notes.append(f"{', '.join(dict.fromkeys(short))}: {COLLAPSES}")
        notes += dict.fromkeys(
            f"{cell.method}: calibration holds up to {one.memory / 1e6:,.3g} MB at once"
            for cell, one in self._planned.items()
            if one.memory
        )
        problems = dict.fromkeys(one.problem for one in self._planned.values() if one.problem)
        return notes + [f"warning: {problem}; its trials will fail" for problem in problems]


def _check_names(cell: Cell, values: Resolved) -> None:
    """Raise ConfigError, with all names, unless there is a value for every field of Training that
    needs one, and no other."""
    entry, given = methods[cell.method], values.train
    for name in given:
        if name not in training_names():
            raise ConfigError(
                f"method {entry.name} ({entry.origin}): "
                + unknown("training value", name, training_names())
            )
    needed = [f.name for f in fields_of(Training) if f.default is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ConfigError(
            f"method {entry.name} ({entry.origin}): its recipe must give"
            f" {', '.join(missing)} on {cell.task}, each a zoo.Value(value, source)"
        )


def for_all_seeds(cell: Cell) -> Cell:
    """The cell that stands for those of all seeds: the one of seed 0."""
    return replace(cell, seed=0)


OF_DENSE = frozenset({"teacher", "finetuned", "weights"})
"""What trials need of a dense trial."""


def teacher_of(cell: Cell, method: Method | None) -> Cell:
    """The cell of a student's teacher, whose seed the student's method may choose. Of the suite's
    values it keeps only `max_length`, and `accumulation`, since both train in the same memory."""
    kept = ("max_length", "accumulation")
    shared = tuple((name, value) for name, value in cell.given if name in kept)
    dense = method.dense if method else None
    seed = cell.seed if dense is None or dense.seed is None else dense.seed
    plain = replace(cell, method=methods.teacher, density=1.0, distill=False)
    return replace(plain, seed=seed, given=shared)


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
