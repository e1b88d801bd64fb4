"""python -m zoo.tools.calibrate: choose a scale's learning rates and measure its penalties.

Every method with a recipe of its own gets the same effort: six candidates of its learning rates
(and penalty), compared by the mean over the scale's tasks of each task's first metric at 5 %
remaining weights, on the examples for choosing (zoo/inputs/choosing.py) and on seeds that no suite
uses. Methods that drive a penalty are compared at 5 % too, by interpolation in a ladder of
penalties. Then, with the chosen values and the whole training set, a longer ladder says which
penalty leaves how many weights, and runs at the penalties that it gives for the suites' densities
refine it; weights are counted there, no metric is read. Writes the scale's `choices` and
`penalties`. Interrupted, it continues.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean
from typing import Any

from zoo.ends import command, leave
from zoo.engine.build import Resources
from zoo.errors import ConfigError, unknown
from zoo.parts.collapse import learns_ranks_alone
from zoo.parts.heads import trained
from zoo.parts.method import Method, nothing
from zoo.plugins import BUILT_IN, find_plugin, load_built_in
from zoo.records.result import Result
from zoo.records.storage import load_result, result_path, write_whole
from zoo.registry import methods, scales, suites
from zoo.runs import values
from zoo.runs.jobs import Job
from zoo.runs.pending import pending
from zoo.runs.plan import Planner
from zoo.runs.progress import Progress
from zoo.runs.ray_tune import RayTune
from zoo.runs.suites import Cell, Scale
from zoo.runs.tuning import SEED

SEEDS = (SEED, SEED + 1)
DENSITY = 0.05
WEIGHTS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
BOTH = tuple((w, s) for w in (2e-3, 4e-3, 8e-3) for s in (0.1, 0.3))
SCORES = tuple((s, p) for s in (0.03, 0.1, 0.3) for p in (400.0, 1600.0))
SCORES_ALONE = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
SHORT = (1.0, 5.0, 25.0, 125.0, 625.0, 3125.0)
LONG = (3.0, 10.0, 30.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)

Given = tuple[tuple[str, float], ...]


def own_recipes() -> list[str]:
    """Methods with a recipe of their own; others share the values of the method they name, and
    those that may retrain the dense rates."""
    return [entry.name for entry in methods if callable(entry.recipe) and not entry.may_retrain]


def drives_penalty(name: str) -> bool:
    """Whether a method reaches a density only through its penalty."""
    return methods[name].facts.drives == "penalty"


def calibrated(name: str) -> bool:
    """Whether anything is chosen or measured for a method."""
    return name in own_recipes() or drives_penalty(name)


def candidates(name: str, method: Method) -> list[Given]:
    """The six candidates of a method: what it trains is varied, but for a rate of scores that
    changes nothing."""
    if not method.learns_scores or learns_ranks_alone(method):
        return [(("lr_weights", w), ("lr_head", w)) for w in WEIGHTS]
    if method.trains is not nothing or method.head is trained:
        return [(("lr_weights", w), ("lr_head", w), ("lr_scores", s)) for w, s in BOTH]
    if method.penalty is not None and not drives_penalty(name):
        return [(("lr_scores", s), ("penalty", p)) for s, p in SCORES]
    return [(("lr_scores", s),) for s in SCORES_ALONE]


class Laboratory:
    """Runs cells of a scale on Ray and returns their results; cells that ran before are not run
    again."""

    def __init__(self, scale: Scale, results: Path):
        self.scale = scale
        self.folder, self.cache = results / "calibration", results / ".cache"
        plugins = tuple(find_plugin(name) for name in BUILT_IN)
        self.resources = Resources(scale.model, None, str(self.cache), plugins)

    def planner(self, choosing: bool) -> Planner:
        """A new planner, which reads the values as they are now."""
        return Planner(self.scale, "released", self.scale.model, choosing=choosing)

    def candidates(self, name: str) -> list[Given]:
        """The six candidates of a method."""
        penalty = (("penalty", 1.0),) if drives_penalty(name) else ()
        density = DENSITY if methods[name].facts.prunes else 1.0
        cell = Cell(name, self.scale.tasks[0], density, False, SEEDS[0], penalty)
        method = self.planner(choosing=True).plan(cell).method
        assert method is not None
        return candidates(name, method)

    def candidate_cells(self, name: str, given: Given) -> Iterator[Cell]:
        """A candidate's cells over tasks and seeds; for a method that drives a penalty, a ladder of
        penalties on the first seed instead."""
        if drives_penalty(name):
            yield from self.ladder_cells(name, given, SHORT, False, SEEDS[:1])
        else:
            for task, seed in product(self.scale.tasks, SEEDS):
                yield Cell(name, task, DENSITY, False, seed, given)

    def ladder_cells(
        self,
        name: str,
        given: Given,
        ladder: Iterable[float],
        distill: bool,
        seeds: Iterable[int],
    ) -> Iterator[Cell]:
        """The cells of a ladder of penalties."""
        for penalty, task, seed in product(ladder, self.scale.tasks, seeds):
            yield Cell(name, task, DENSITY, distill, seed, (*given, ("penalty", penalty)))

    def target_cells(self, names: Iterable[str]) -> Iterator[Cell]:
        """The densities at which suites run the methods, on the calibration's seeds, where the
        known runs give a penalty."""
        cells = (cell for suite in suites for cell in suite.make(self.scale))
        densities = sorted({c.density for c in cells if drives_penalty(c.method)})
        planner = self.planner(choosing=False)
        for name, task, density in product(names, self.scale.tasks, densities):
            for distill, seeds in ((False, SEEDS), (True, SEEDS[:1])):
                for seed in seeds:
                    cell = Cell(name, task, density, distill, seed)
                    if known(cell, planner):
                        yield cell

    def run(self, wanted: Iterable[Cell], *, choosing: bool) -> dict[Cell, Result]:
        """The result of every cell; raises if a trial failed."""
        jobs: dict[Cell, list[Job]] = {}
        planner = self.planner(choosing)
        for cell in wanted:
            prunes = methods[cell.method].facts.prunes
            jobs[cell] = planner.jobs([cell if prunes else replace(cell, density=1.0)])
        every = {job.trial.id: job for found in jobs.values() for job in found}
        for found in jobs.values():
            every |= {job.trial.id: job for job in found if job.teaches}
        state = pending(every.values(), self.folder, self.cache)
        if state.jobs:
            planner.tokenise(state.jobs, self.cache)
            RayTune()(state.jobs, self.resources, self.folder, Progress(len(state.jobs)))
        return {
            cell: load_result(result_path(found[-1].trial, self.folder))
            for cell, found in jobs.items()
        }


def known(cell: Cell, planner: Planner) -> bool:
    """Whether the known runs give a penalty for a cell."""
    try:
        planner.plan(cell)
    except values.NoPenalty:
        return False
    return True


def first_metric(result: Result) -> float:
    """The task's first metric; a run that diverged counts as 0."""
    return next(iter(result.metrics.values())) or 0.0


def quality(name: str, given: Given, found: Mapping[Cell, Result]) -> float:
    """The mean over tasks of the first metric at DENSITY remaining weights."""
    mine = (cell for cell in found if cell.method == name and cell.given[: len(given)] == given)
    own = {cell: found[cell] for cell in mine}
    if not drives_penalty(name):
        return fmean(first_metric(result) for result in own.values())
    by_task: dict[str, list[tuple[float, float]]] = {}
    for cell, result in own.items():
        point = (result.remaining.density, first_metric(result))
        by_task.setdefault(cell.task, []).append(point)
    return fmean(metric_at_target(points) for points in by_task.values())


def metric_at_target(points: Iterable[tuple[float, float]]) -> float:
    """The metric at DENSITY, interpolated in log density between neighbours; 0 if no run left fewer
    weights without losing all of them; the nearest run's if none left more."""
    points = sorted((density, metric) for density, metric in points if density > 0)
    for (d1, m1), (d2, m2) in pairwise(points):
        if d1 <= DENSITY <= d2 and d1 < d2:
            part = math.log(DENSITY / d1) / math.log(d2 / d1)
            return m1 + part * (m2 - m1)
    return points[-1][1] if points and points[-1][0] <= DENSITY else 0.0


def choose(laboratory: Laboratory, names: Sequence[str]) -> None:
    """Run all candidates and write the scale's choices; the teacher's first, as others need it."""
    path = laboratory.scale.choices
    assert path is not None
    header, before = read(path)
    rows: dict[str, list[list[Any]]] = {}
    for row in before:
        rows.setdefault(row[0], []).append(row)
    teacher = [name for name in names if name == methods.teacher]
    for group in filter(None, (teacher, [name for name in names if name not in teacher])):
        own = {name: laboratory.candidates(name) for name in group}
        wanted = [
            cell
            for name, every in own.items()
            for given in every
            for cell in laboratory.candidate_cells(name, given)
        ]
        found = laboratory.run(wanted, choosing=True)
        rows |= {name: list(compared(name, every, found)) for name, every in own.items()}
        write(path, "", header, [row for name in own_recipes() for row in rows.get(name, [])])
        values.choices.cache_clear()


def compared(
    name: str, every: Sequence[Given], found: Mapping[Cell, Result]
) -> Iterator[list[Any]]:
    """A method's rows of the choices; the first of equal candidates is chosen."""
    metrics = {given: quality(name, given, found) for given in every}
    best = max(metrics, key=lambda given: metrics[given])
    for given, metric in metrics.items():
        own = dict(given)
        tried = [own.get(column, "") for column in ("lr_weights", "lr_scores", "penalty")]
        row: list[Any] = [name, *tried, f"{metric:.2f}", "yes" if given == best else "no"]
        print(*row)
        yield row


def measure(laboratory: Laboratory, names: Iterable[str]) -> None:
    """Run the long ladders, then the penalties that they give for the suites' densities, and write
    the scale's penalties."""
    names = [name for name in names if drives_penalty(name)]
    ladder = [
        cell
        for name in names
        for distill in (False, True)
        for cell in laboratory.ladder_cells(name, (), LONG, distill, SEEDS[:1])
    ]
    found = laboratory.run(ladder, choosing=False)
    runs = list(found.items())
    save_penalties(laboratory.scale, names, runs)
    runs += laboratory.run(laboratory.target_cells(names), choosing=False).items()
    save_penalties(laboratory.scale, names, runs)


def save_penalties(scale: Scale, names: Sequence[str], runs: Iterable[tuple[Cell, Result]]) -> None:
    """Replace the rows of the methods: the mean over seeds of the weights that a penalty left."""
    path = scale.penalties
    assert path is not None
    groups: dict[tuple[str, str, str, float], list[float]] = {}
    for cell, result in runs:
        flag, penalty = "yes" if cell.distill else "no", result.trial.hyper["penalty"]
        key = (cell.method, cell.task, flag, penalty)
        groups.setdefault(key, []).append(100 * result.remaining.density)
    own = [[*key[:3], f"{key[3]:g}", f"{fmean(kept):.4f}"] for key, kept in sorted(groups.items())]
    header, rows = read(path, skip=1)
    others = [row for row in rows if row[0] not in names]
    write(path, f"{values.CALIBRATED}\n", header, others + own)
    values.penalty_runs.cache_clear()


def read(path: Path, skip: int = 0) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file behind `skip` lines."""
    with path.open(newline="", encoding="utf-8") as file:
        for _ in range(skip):
            file.readline()
        header, *rows = csv.reader(file)
    return header, rows


def write(path: Path, first: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file behind the lines `first`, whole or not at all."""
    stream = io.StringIO(first)
    stream.seek(0, io.SEEK_END)
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    write_whole(path, stream.getvalue().encode())


@command
def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.tools.calibrate", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--scale", required=True, help="a scale that keeps chosen values")
    parser.add_argument("--methods", help="names separated by commas (default: all)")
    parser.add_argument("--only", choices=("choose", "measure"), help="half of the work")
    options = parser.parse_args()
    load_built_in()
    scale: Scale = scales[options.scale].make()
    if scale.choices is None or scale.penalties is None:
        raise ConfigError(f"scale {scale.name} keeps no chosen values")
    laboratory = Laboratory(scale, options.results.resolve())
    known = [entry.name for entry in methods if calibrated(entry.name)]
    names = options.methods.split(",") if options.methods else known
    for name in names:
        if name not in known:
            raise ConfigError(unknown("method with a recipe", name, known))
    if options.only != "measure":
        choose(laboratory, [name for name in names if name in own_recipes()])
    if options.only != "choose":
        measure(laboratory, names)
    return 0


if __name__ == "__main__":
    leave(main())
