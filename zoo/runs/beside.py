"""`--beside MODEL[,MODEL...]`: other checkpoints, fine-tuned without pruning on the tasks and seeds
of a suite. Small ones are the honest rival of a large one that is pruned (Turc et al. 2019)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from zoo.errors import BenchmarkError, ConfigError
from zoo.registry import methods
from zoo.runs.jobs import Job
from zoo.runs.plan import Planner, teacher_of
from zoo.runs.suites import Cell


def with_checkpoints(planner: Planner, given: Iterable[str]) -> Planner:
    """The planner with one for each of these checkpoints beside it. Raises ConfigError for a
    checkpoint that is given twice, or is the planner's own, and what reading one raises."""
    known, others = [planner], list[Planner]()
    for model in given:
        other = replace(planner, model=model)
        with _named(model):
            sha = other.checkpoint.sha
        for one in known:
            if one.checkpoint.sha == sha:
                raise ConfigError(f"--beside {model}: the same checkpoint as {one.model}")
        known.append(other)
        others.append(other)
    return replace(planner, beside=tuple(others))


@contextlib.contextmanager
def _named(model: str) -> Iterator[None]:
    """Say of an error inside that it is about a checkpoint beside."""
    try:
        yield
    except BenchmarkError as error:
        raise type(error)(f"--beside {model}: {error}") from None


def every_job(
    planner: Planner, cells: Sequence[Cell], options: Callable[[str], Sequence[str]]
) -> list[Job]:
    """The jobs of the cells, then those of the checkpoints beside; `options` gives what a reader
    adds to the command to run trials of a model again. Raises ConfigError."""
    jobs = planner.jobs(cells)
    for other in planner.beside:
        own = tuple(options(other.model))
        with _named(other.model):
            found = other.jobs(dense_cells(cells))
        jobs += [replace(job, model=other.located, options=own) for job in found]
    return jobs


def dense_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of plain fine-tuning: those that are among the cells, and for tasks and seeds
    without one what would teach their students."""
    own = [cell for cell in cells if cell.method == methods.teacher]
    known = {(cell.task, cell.seed) for cell in own}
    others = [teacher_of(cell, None) for cell in cells if (cell.task, cell.seed) not in known]
    return list(dict.fromkeys([*own, *others]))
