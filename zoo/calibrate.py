"""python -m zoo.calibrate: choose the laboratory's learning rates and measure its penalties.

Every method gets the same effort: six candidates of its learning rates (and penalty), judged by
the mean over the laboratory's tasks of each task's first metric at 10 % remaining weights, on
seeds that no suite uses. Methods that drive a penalty are judged at 10 % too, between the runs of
a ladder of penalties. Then, with what was chosen, a longer ladder says which penalty leaves how
many weights, and runs at what lies between its rungs for the suites' densities refine it. Writes
zoo/laboratory.csv and the laboratory's rows of zoo/penalties.csv. Interrupted, it goes on.
"""

import argparse
import csv
import io
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from zoo import recipes
from zoo.build import Place
from zoo.errors import BenchmarkError, ConfigError
from zoo.launch import RayTune, pending
from zoo.plan import TEACHER, Job, Planner
from zoo.progress import Progress
from zoo.registry import BUILT_IN, find_plugin, load_plugin, suites, unknown
from zoo.suites import TINY, Cell
from zoo.trial import Result, load_result, result_path, write_whole

SEEDS = (1000, 1001)
DENSITY = 0.1
WEIGHTS = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
BOTH = tuple((w, s) for w in (1e-3, 2e-3, 4e-3) for s in (0.03, 0.1))
SCORES = tuple((s, p) for s in (0.03, 0.1, 0.3) for p in (40.0, 400.0))
SCORES_ALONE = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
SHORT = (1.0, 5.0, 25.0, 125.0, 625.0, 3125.0)
REFINEMENTS = 2
LONG = (1.0, 10.0, 30.0, 100.0, 150.0, 225.0, 350.0, 600.0, 1200.0, 3000.0, 10000.0)

Given = tuple[tuple[str, float], ...]


def candidates(method: str) -> list[Given]:
    """The six candidates of a method: what it trains is what is varied."""
    if method in ("dense", "scratch", "head_only", "random", "magnitude"):
        return [(("lr_weights", w), ("lr_head", w)) for w in WEIGHTS]
    if method in ("smp_l", "smp_s", "smp_g"):
        return [(("lr_scores", s), ("penalty", p)) for s, p in SCORES]
    if method == "smp_t":
        return [(("lr_scores", s),) for s in SCORES_ALONE]
    return [(("lr_weights", w), ("lr_head", w), ("lr_scores", s)) for w, s in BOTH]


def candidate_cells(method: str, given: Given) -> Iterator[Cell]:
    """A candidate's cells over tasks and seeds; a method that drives a penalty has a ladder of
    penalties on the first seed instead."""
    if method in recipes.PENALTY_DRIVEN:
        yield from ladder_cells(method, given, SHORT, False, SEEDS[:1])
    else:
        yield from (Cell(method, t, DENSITY, False, s, given) for t in TINY.tasks for s in SEEDS)


def ladder_cells(
    method: str, given: Given, ladder: Iterable[float], distill: bool, seeds: Iterable[int]
) -> Iterator[Cell]:
    """The cells of a ladder of penalties."""
    for penalty, task, seed in product(ladder, TINY.tasks, seeds):
        yield Cell(method, task, DENSITY, distill, seed, (*given, ("penalty", penalty)))


class Laboratory:
    """Runs cells on Ray and gives back their results; what has run before is not run again."""

    def __init__(self, results: Path):
        self.planner = Planner(TINY, "released", TINY.model, None)
        self.folder, self.cache = results / "calibration", results / ".cache"
        plugins = tuple(find_plugin(name) for name in BUILT_IN)
        self.place = Place(TINY.model, None, str(self.cache), plugins)

    def knows(self, cell: Cell) -> bool:
        """Whether the recipes give a cell all its values."""
        try:
            self.planner.values(cell)
        except recipes.NoPenalty:
            return False
        return True

    def run(self, wanted: Iterable[Cell]) -> dict[Cell, Result]:
        """The result of every cell; raises if a trial failed."""
        jobs: dict[Cell, list[Job]] = {}
        for cell in wanted:
            prunes = cell.method not in ("dense", "scratch", "head_only")
            asked = cell if prunes else replace(cell, density=1.0)
            jobs[cell] = self.planner.jobs([asked])
        every = {job.trial.id: job for found in jobs.values() for job in found}
        for found in jobs.values():
            for job in found:
                if job.teaches:
                    every[job.trial.id] = job
        state = pending(every.values(), self.folder, self.cache)
        if state.jobs:
            self.planner.prepare(state.jobs, self.cache)
            progress = Progress(len(state.jobs), 2, lambda: None)
            RayTune()(state.jobs, self.place, self.folder, progress)
        return {
            cell: load_result(result_path(found[-1].trial, self.folder))
            for cell, found in jobs.items()
        }


def first_metric(result: Result) -> float:
    """The task's first metric; a run that diverged counts as 0."""
    return next(iter(result.metrics.values())) or 0.0


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def judge(method: str, given: Given, found: Mapping[Cell, Result]) -> float:
    """The mean over tasks of the first metric at 10 % remaining weights."""
    own = {cell: result for cell, result in found.items() if matches(cell, method, given)}
    if method not in recipes.PENALTY_DRIVEN:
        return mean(first_metric(result) for result in own.values())
    by_task: dict[str, list[tuple[float, float]]] = {}
    for cell, result in own.items():
        point = (result.remaining["density"], first_metric(result))
        by_task.setdefault(cell.task, []).append(point)
    return mean(at_density(points) for points in by_task.values())


def matches(cell: Cell, method: str, given: Given) -> bool:
    return cell.method == method and cell.given[: len(given)] == given


def at_density(points: Iterable[tuple[float, float]]) -> float:
    """The metric at 10 %, log-linear between neighbours; 0 if no run has both left fewer weights
    and not lost them all; the nearest run's if none left more."""
    points = sorted((density, metric) for density, metric in points if density > 0)
    for (d1, m1), (d2, m2) in pairwise(points):
        if d1 <= DENSITY <= d2 and d1 < d2:
            share = math.log(DENSITY / d1) / math.log(d2 / d1)
            return m1 + share * (m2 - m1)
    return points[-1][1] if points and points[-1][0] <= DENSITY else 0.0


def choose(laboratory: Laboratory, methods: Sequence[str]) -> None:
    """Run all candidates and write zoo/laboratory.csv; the teacher's first, as others need it."""
    header, before = read(recipes.LABORATORY_FILE)
    rows: dict[str, list[list[Any]]] = {}
    for row in before:
        rows.setdefault(row[0], []).append(row)
    teachers = [method for method in methods if method == TEACHER]
    for group in filter(None, (teachers, [m for m in methods if m != TEACHER])):
        wanted = [c for m in group for given in candidates(m) for c in candidate_cells(m, given)]
        found = laboratory.run(wanted)
        rows |= {method: list(judged(method, found)) for method in group}
        write(recipes.LABORATORY_FILE, header, [row for m in recipes.FAMILIES for row in rows[m]])
        recipes.laboratory_choices.cache_clear()


def judged(method: str, found: Mapping[Cell, Result]) -> Iterator[list[Any]]:
    """A method's rows of zoo/laboratory.csv; the first of equal candidates is chosen."""
    scores = {given: judge(method, given, found) for given in candidates(method)}
    best = max(scores, key=lambda given: scores[given])
    for given, score in scores.items():
        values = dict(given)
        rates = [values.get(name, "") for name in ("lr_weights", "lr_scores", "penalty")]
        row: list[Any] = [method, *rates, f"{score:.2f}", "yes" if given == best else "no"]
        print(*row)
        yield row


def measure(laboratory: Laboratory, methods: Iterable[str]) -> None:
    """Run the long ladders, then at the penalties that they give for the suites' densities, and
    write the laboratory's rows of zoo/penalties.csv."""
    methods = [method for method in methods if method in recipes.PENALTY_DRIVEN]
    found = laboratory.run(
        cell
        for method in methods
        for distill, seeds in ((False, SEEDS), (True, SEEDS[:1]))
        for cell in ladder_cells(method, (), LONG, distill, seeds)
    )
    runs = [(cell, result) for cell, result in found.items()]
    save_penalties(methods, runs)
    for _ in range(REFINEMENTS):
        wanted = [cell for cell in target_cells(methods) if laboratory.knows(cell)]
        runs += laboratory.run(wanted).items()
        save_penalties(methods, runs)


def target_cells(methods: Iterable[str]) -> Iterator[Cell]:
    """The densities at which the suites run the methods, on the calibration's seeds."""
    suite = suites["masking"].make(TINY)
    densities = sorted({cell.density for cell in suite if cell.density < 1})
    for method, task, density in product(methods, TINY.tasks, densities):
        for distill, seeds in ((False, SEEDS), (True, SEEDS[:1])):
            yield from (Cell(method, task, density, distill, seed) for seed in seeds)


def save_penalties(methods: Sequence[str], runs: Iterable[tuple[Cell, Result]]) -> None:
    """Replace the rows of the methods: the mean over seeds of the weights that a penalty left."""
    groups: dict[tuple[str, str, str, float], list[float]] = {}
    for cell, result in runs:
        flag, penalty = "yes" if cell.distill else "no", result.trial.hyper["penalty"]
        key = (cell.method, cell.task, flag, penalty)
        groups.setdefault(key, []).append(100 * result.remaining["density"])
    own = [
        ["tiny", *key[:3], f"{key[3]:g}", f"{mean(kept):.4f}"]
        for key, kept in sorted(groups.items())
    ]
    header, rows = read(recipes.PENALTIES_FILE)
    others = [row for row in rows if row[0] != "tiny" or row[1] not in methods]
    write(recipes.PENALTIES_FILE, header, sorted(others + own, key=lambda row: row[0] == "tiny"))
    recipes.penalty_runs.cache_clear()


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of comma-separated values."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table of comma-separated values, whole or not at all."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    write_whole(path, stream.getvalue().encode())


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.calibrate", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--methods", help="names separated by commas (default: all)")
    options = parser.parse_args()
    try:
        for name in BUILT_IN:
            load_plugin(find_plugin(name))
        laboratory = Laboratory(options.results.resolve())
        names = options.methods.split(",") if options.methods else list(recipes.FAMILIES)
        for name in names:
            if name not in recipes.FAMILIES:
                raise ConfigError(unknown("method with a recipe", name, recipes.FAMILIES))
        choose(laboratory, names)
        measure(laboratory, names)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
