"""Estimates of how long jobs will take: from results on the same task, or from arithmetic."""

import statistics
import time
from collections.abc import Iterable, Sequence

import torch

from zoo.engine.build import usual_device
from zoo.records.result import Result
from zoo.runs.jobs import Job
from zoo.runs.plan import Planner

STEP_OVERHEAD = 0.012
"""Seconds of a step that do not depend on the size of the model."""
USUAL_SPEED = 1e11
"""Floating-point operations per second of a CPU core: enough to tell long jobs from short ones."""


def seconds_of(jobs: Iterable[Job], done: Sequence[Result], planner: Planner) -> float:
    """Seconds that the jobs would take one after another; rough where no similar trial has run."""
    rates: dict[str, list[float]] = {}
    for result in done:
        if result.steps.taken:
            per_step = result.cost.seconds / result.steps.taken
            rates.setdefault(result.trial.task, []).append(per_step)
    speed = 0.0
    total = 0.0
    for job in jobs:
        if job.trial.task in rates:
            total += _steps(job, planner) * statistics.median(rates[job.trial.task])
            continue
        speed = speed or matmul_speed()
        total += _arithmetic(job, planner, speed)
    return total


def longest_first(jobs: Iterable[Job], planner: Planner) -> list[Job]:
    """The order in which workers are idle least at the end; equally long jobs keep their order."""
    return sorted(jobs, key=lambda job: -_arithmetic(job, planner, USUAL_SPEED))


def _arithmetic(job: Job, planner: Planner, speed: float) -> float:
    task, train = planner.task(job.trial.task)[0], job.trial.train
    share = 0.5 if task.output.per_token else 0.33  # real tokens among max_length
    tokens = train.batch * train.max_length * share
    step = 6 * planner.checkpoint.prunable_weights * tokens / speed + STEP_OVERHEAD
    return _steps(job, planner) * step


def _steps(job: Job, planner: Planner) -> int:
    task, source = planner.task(job.trial.task)
    return job.trial.train.planned_steps(source.rows[task.train])


def matmul_speed() -> float:
    """Floating-point operations per second of a float32 product of this device."""
    device = usual_device()
    a = torch.rand(1024, 768, device=device)
    b = torch.rand(768, 768, device=device)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * 1024 * 768 * 768 / (time.perf_counter() - start))
    return best


def duration(seconds: float) -> str:
    """A duration for people: '40 s', '12 min', '3.5 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
