"""`--tune N`: choose values among N candidates per method, task and target, before the suite runs.

Candidates train without the examples for choosing (zoo/inputs/choosing.py) and are compared on
them, all with the same steps and on one seed that no suite uses. The first candidate has the
recipe's values; the others are drawn from the ranges that the method was registered with. All
methods get the same draws for a range of the same name, so that none has more luck than another.
A value that changes nothing is not searched. Candidates are trials like any other: each is a file,
and a run that was stopped goes on where it was.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, unknown
from zoo.inputs.choosing import CHOOSING
from zoo.parts.ranges import Among, Range, Ranges, applicable
from zoo.parts.recipes import Value, Values
from zoo.records.result import AT_MOST, Candidate, Result
from zoo.records.storage import UNREADABLE, load_result, result_path
from zoo.records.trial import training_names
from zoo.registry import methods
from zoo.runs.estimate import duration, seconds_of
from zoo.runs.jobs import Job, Tuned
from zoo.runs.plan import OF_DENSE, Planner, for_all_seeds, teacher_of
from zoo.runs.searches import SEARCHES, Search, Space, Tried, Wish
from zoo.runs.suites import Cell

SEED = 1000
"""The seed of all candidates; no suite uses it."""
CHECK_STEPS = 20
"""Steps after which two values that change nothing have left equal masks and weights."""

Kind = tuple[str, bool, tuple[tuple[str, Any], ...]]
"""Method, distillation, and what the suite gives: units whose ranges are checked once."""
RunJobs = Callable[[Planner, Sequence[Job], str], None]
"""Runs those of a planner's jobs that have no result yet; the text says what they are for."""


@dataclass(frozen=True)
class Tuner:
    """Chooses values for the cells of a planner. `folder` keeps the candidates' trials; `run` runs
    them; `say` is called with lines for the user."""

    planner: Planner
    folder: Path
    run: RunJobs
    say: Callable[[str], None]

    @property
    def number(self) -> int:
        """Candidates per method, task, target and distillation."""
        return self.planner.conditions.tune or 0

    def tuned(self, cells: Iterable[Cell]) -> Planner:
        """The planner with what was chosen for the cells and their teachers."""
        units = self.units(cells)
        self.check(units)
        idle = self.idle(units)
        searches: dict[Cell, Search] = {}
        for unit in units:
            ranges = {n: r for n, r in self.ranges(unit).items() if n not in idle[_kind(unit)]}
            searches[unit] = self.search(unit, ranges)
        self.say(f"tuning: {len(units)} x {self.number} candidates on {self.examples(units)}")
        while wishes := {unit: asked for unit in units if (asked := searches[unit].ask())}:
            self._try(wishes, searches)
        return replace(
            self.planner, tuned={unit: self._chosen(one) for unit, one in searches.items()}
        )

    def plan(self, cells: Iterable[Cell]) -> list[str]:
        """What would be tuned, for a run that only shows it."""
        units = self.units(cells)
        self.check(units)
        choosing = self._choosing(None)
        each = seconds_of([self._jobs(unit, {}, None)[-1] for unit in units], [], choosing)
        lines = [f"tuning: {len(units)} x {self.number} candidates on {self.examples(units)}"]
        lines[0] += f"; roughly {duration(self.number * each)} of one worker, from arithmetic"
        for unit in {_kind(unit): unit for unit in units}.values():
            ranges = ", ".join(f"{name} {one}" for name, one in self.ranges(unit).items())
            lines.append(f"  {unit.method}{' distilled' * unit.distill}: {ranges or 'nothing'}")
        return [*lines, "below are the recipe's values; what is chosen changes them and the ids"]

    def check(self, units: Iterable[Cell]) -> None:
        """Raise ConfigError, before anything runs, for a search that cannot be made: a package is
        missing, trainings of a method that drives a penalty would be cut short, or training
        refuses an end of a range."""
        search = SEARCHES[self.planner.conditions.search]
        search.check()
        for unit in units:
            if search.shortens and methods[unit.method].facts.drives == "penalty":
                raise ConfigError(
                    f"--search {self.planner.conditions.search} cannot compare candidates of"
                    f" {unit.method}: its penalty reaches the target at the end of a whole training"
                    " alone; leave --search out, or the method"
                )
            for name in self.ranges(unit):
                for value in self._ends(unit, name):
                    self._jobs(unit, {name: value}, None)

    def units(self, cells: Iterable[Cell]) -> list[Cell]:
        """What is tuned: the cells and the teachers that they need, for all seeds."""
        found: dict[Cell, None] = {}
        for cell in cells:
            method = self.planner.plan(cell).method
            needs = method.needs if method else frozenset()
            if cell.distill or needs & OF_DENSE:
                found[for_all_seeds(teacher_of(cell, method))] = None
            found[for_all_seeds(cell)] = None
        return list(found)

    def ranges(self, unit: Cell) -> Ranges:
        """The ranges of a unit that are about values which it has and that the suite does not set.
        Raises ConfigError for the name of a value that the method does not take."""
        entry, values = methods[unit.method], self.values(unit)
        for name in entry.ranges:
            if name not in training_names() and not entry.takes(name):
                message = unknown("range of a value", name, [*training_names(), *entry.parameters])
                raise ConfigError(f"method {entry.name} ({entry.origin}): {message}")
        own = {name: one for name, one in entry.ranges.items() if name not in dict(unit.given)}
        try:
            return applicable(own, values)
        except ConfigError as error:
            raise ConfigError(f"method {entry.name} ({entry.origin}): {error}") from None

    def values(self, unit: Cell) -> Values:
        """The values of a unit by name: the recipe's, else the factory's defaults."""
        resolved = self.planner.plan(unit).values
        defaults = methods[unit.method].defaults
        source = "the method's default"
        return {n: Value(v, source) for n, v in defaults.items()} | resolved.train | resolved.hyper

    def search(self, unit: Cell, ranges: Ranges) -> Search:
        """The search of a unit over its ranges."""
        task, source = self._choosing(None).task(unit.task)
        values = {name: self.values(unit)[name].value for name in ranges}
        shared = f"{unit.task} {unit.density:g} {unit.distill}"
        steps = self.planner.plan(unit).trial.train.planned_steps(source.rows[task.train])
        space = Space(values, ranges, self.number, shared, steps)
        return SEARCHES[self.planner.conditions.search](space)

    def examples(self, units: Iterable[Cell]) -> str:
        """Which examples choose, for people."""
        found = {}
        for unit in units:
            task, source = self._choosing(None).task(unit.task)
            found[unit.task] = f"{source.rows[task.evaluation[0]]:,} of {unit.task}"
        return f"examples of the training set ({CHOOSING}): {', '.join(found.values())}"

    def idle(self, units: Sequence[Cell]) -> Mapping[Kind, set[str]]:
        """Per kind of unit the names of ranges that change nothing: two values, a few steps, equal
        masks and weights, at the lowest target."""
        first: dict[Kind, Cell] = {}
        for unit in sorted(units, key=lambda unit: unit.density):
            first.setdefault(_kind(unit), unit)
        wanted = {
            (kind, name): [self._jobs(unit, {name: v}, CHECK_STEPS) for v in self._ends(unit, name)]
            for kind, unit in first.items()
            for name in self.ranges(unit)
        }
        every = [jobs for found in wanted.values() for jobs in found]
        self._run(every, f"which of {len(wanted)} ranges change anything")
        found: dict[Kind, set[str]] = {kind: set() for kind in first}
        for (kind, name), own in wanted.items():
            left = [_what_is_left(self.result(jobs[-1])) for jobs in own]
            if None not in left and len(set(left)) == 1:
                found[kind].add(name)
                tried = " and ".join(str(jobs[-1].trial.settings[name]) for jobs in own)
                self.say(f"{kind[0]}: {name} is not searched: {tried} leave equal weights")
        return found

    def _ends(self, unit: Cell, name: str) -> list[Any]:
        """The two ends of a range, or all of its values."""
        one: Range = self.ranges(unit)[name]
        if isinstance(one, Among):
            return list(one.values)
        value = self.values(unit)[name].value
        return [one.draw(value, place) for place in (0.0, 1.0)]

    def _try(self, wishes: Mapping[Cell, Sequence[Wish]], searches: Mapping[Cell, Search]) -> None:
        jobs = {
            unit: [self._jobs(unit, wish.values, wish.steps) for wish in asked]
            for unit, asked in wishes.items()
        }
        self._run([own for found in jobs.values() for own in found], "candidates")
        for unit, asked in wishes.items():
            results = [self.result(own[-1]) for own in jobs[unit]]
            pairs = zip(asked, results, strict=True)
            searches[unit].tell([self._tried(unit, wish, result) for wish, result in pairs])

    def _tried(self, unit: Cell, wish: Wish, result: Result | None) -> Tried:
        """How a candidate did: its metric counts if it kept no more than its target."""
        if result is None or not result.ok:
            return Tried(wish.values, None, None, False, wish.steps)
        kept = result.remaining.density
        drives = methods[unit.method].facts.drives == "penalty"
        eligible = not drives or round(kept / unit.density, 2) <= AT_MOST
        return Tried(wish.values, next(iter(result.metrics.values())), kept, eligible, wish.steps)

    def _chosen(self, search: Search) -> Tuned:
        """The best candidate that was tried to the end, of equal ones the first; where none
        counts, the recipe's values."""
        best = max((t for t in search.tried if t.steps is None), key=lambda tried: tried.rank)
        best = best if best.rank > -math.inf else search.tried[0]
        how = "the recipe's, kept" if best.values == search.tried[0].values else "chosen"
        source = (
            f"{how} among {self.number} candidates"
            f" ({self.planner.conditions.search or 'random search'}) on examples of the training"
            f" set ({CHOOSING}, seed {SEED})"
        )
        given = tuple((name, Value(value, source)) for name, value in best.values.items())
        candidates = tuple(
            Candidate(t.values, t.metric, t.kept, t.eligible, t is best, t.steps)
            for t in search.tried
        )
        return Tuned(given, candidates)

    def result(self, job: Job) -> Result | None:
        """The result of a candidate's trial, if it has one."""
        try:
            return load_result(result_path(job.trial, self.folder))
        except UNREADABLE:
            return None

    def _jobs(self, unit: Cell, values: Mapping[str, Any], steps: int | None) -> list[Job]:
        """The trial of a candidate, the last one, and those of the teachers that it needs; `steps`
        cuts it short."""
        given = tuple((name, Value(value, "a candidate")) for name, value in values.items())
        cell = replace(unit, seed=SEED, given=(*unit.given, *given))
        try:
            return self._choosing(steps).jobs([cell])
        except ConfigError as error:
            if not values:
                raise
            tried = ", ".join(f"{name} {value}" for name, value in values.items())
            raise ConfigError(f"the ranges of {unit.method} give {tried}: {error}") from None

    def _run(self, wanted: Iterable[Sequence[Job]], what: str) -> None:
        """Run jobs once each, teachers as teachers."""
        every: dict[str, Job] = {}
        for job in (job for jobs in wanted for job in jobs):
            if job.teaches or job.trial.id not in every:
                every[job.trial.id] = job
        self.run(self._choosing(None), list(every.values()), what)

    def _choosing(self, steps: int | None) -> Planner:
        """A planner of candidates that are cut after so many steps."""
        if steps not in self._planners:
            conditions = self.planner.conditions.untuned
            least = min(filter(None, (steps, conditions.max_steps)), default=None)
            cut = replace(conditions, max_steps=least)
            self._planners[steps] = replace(self.planner, choosing=True, conditions=cut)
        return self._planners[steps]

    @cached_property
    def _planners(self) -> dict[int | None, Planner]:
        return {}


def _kind(unit: Cell) -> Kind:
    return unit.method, unit.distill, unit.given


def _what_is_left(result: Result | None) -> tuple[Any, ...] | None:
    """What tells two trained models apart; a head that trains shows in the losses."""
    if result is None:
        return None
    digests, losses = result.digests, tuple(point.loss for point in result.curve)
    return digests["masks"], digests["weights"], losses, tuple(result.metrics.items())
