"""Estimates of how long jobs will take, from results on the same task or from arithmetic, and of
how much memory."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from zoo.engine.build import usual_device
from zoo.inputs.architecture import Parameter
from zoo.inputs.checkpoint import Checkpoint
from zoo.kernels.launch import available
from zoo.parts.method import Method
from zoo.records.result import Result
from zoo.records.trial import Training, Trial
from zoo.runs.jobs import Job
from zoo.runs.plan import Planner

STEP_OVERHEAD = 0.012
"""Seconds of a step that do not depend on the size of the model."""
USUAL_SPEED = 1e11
"""Floating-point operations per second of a CPU core: enough to tell long jobs from short ones."""


def seconds_of(jobs: Iterable[Job], done: Sequence[Result], planner: Planner) -> float:
    """Seconds that the jobs would take one after another; rough where no similar trial has run."""
    rates: dict[tuple[str, str], list[float]] = {}
    for result in done:
        if result.steps.taken:
            per_step = result.cost.seconds / result.steps.taken
            rates.setdefault(_alike(result.trial), []).append(per_step)
    speed = 0.0
    total = 0.0
    for job in jobs:
        if _alike(job.trial) in rates:
            total += _steps(job, planner) * statistics.median(rates[_alike(job.trial)])
            continue
        speed = speed or matmul_speed()
        total += _arithmetic(job, planner, speed)
    return total


def _alike(trial: Trial) -> tuple[str, str]:
    """What trials whose steps take as long have in common, roughly."""
    return trial.task, trial.model_sha


def longest_first(jobs: Iterable[Job], planner: Planner) -> list[Job]:
    """The order in which workers are idle least at the end; equally long jobs keep their order."""
    return sorted(jobs, key=lambda job: -_arithmetic(job, planner, USUAL_SPEED))


def _arithmetic(job: Job, planner: Planner, speed: float) -> float:
    task, train = planner.task(job.trial.task)[0], job.trial.train
    share = 0.5 if task.output.per_token else 0.33  # real tokens among max_length
    tokens = train.batch * train.max_length * share
    weights = planner.of(job.trial).checkpoint.prunable_weights
    step = 6 * weights * tokens / speed + STEP_OVERHEAD
    return _steps(job, planner) * step


def _steps(job: Job, planner: Planner) -> int:
    task, source = planner.task(job.trial.task)
    return job.trial.train.planned_steps(source.rows[task.train]) if job.trains else 0


@dataclass(frozen=True)
class Memory:
    """Bytes that a trial holds while it trains: weights, scores, gradients and the optimiser's
    moments; activations, of batches without padding to spare; and a snapshot of it on disk."""

    state: float
    activations: float
    snapshot: float


def memory_of(method: Method, checkpoint: Checkpoint, train: Training) -> Memory:
    """What a trial of a method needs, to some ten per cent, without what Python and torch need.

    In bfloat16 with one pass a step, W' and G take two bytes an entry, and a dense step caches its
    weights in bfloat16. Without kernels gradients of scores, noise and gates are stored too. What
    weights return to is held besides.
    Activations: 34 bytes a token, layer and hidden unit in half precision, twice that in float32
    (Korthikanti et al. 2022, without attention matrices).
    """
    low = train.precision != "float32"
    prunable, others = checkpoint.prunable_weights, checkpoint.weights - checkpoint.prunable_weights
    trained = method.trains(
        Parameter("encoder.layer.0.attention.self.query.weight", "layers", 0, "Q")
    )
    embedded = method.trains(Parameter("embeddings.word_embeddings.weight", "embeddings"))
    learns = method.learns_scores and method.units is None  # scores of units are few
    each = 4.0 + (4 + MOMENTS + 2 * low) * trained
    if method.score is not None:
        working = 2 if low and train.accumulation == 1 else 4
        each = 4 + 2 * working + 1 + MOMENTS * trained  # W, W' and G, the mask
        each += 4 * (method.score.init is not None and method.units is None) + MOMENTS * learns
        if not available(usual_device()):
            each += 4 * (trained and learns) + 8 * (method.gate.draw is not None)
    returns = method.rewinds or (method.dense is not None and method.dense.rewinds)
    state = prunable * each + others * (4 + (4 + MOMENTS) * embedded)
    state += 4 * checkpoint.weights * bool(returns)
    tokens = train.batch / train.accumulation * train.max_length
    width = checkpoint.layers * checkpoint.hidden
    trains = prunable * trained + others * embedded + prunable * learns
    snapshot = trains * (4 + MOMENTS) + prunable / 8 * (method.score is not None)
    return Memory(state, tokens * width * (34 if low else 68), snapshot)


MOMENTS = 8
"""Bytes of AdamW's two moments of a number."""


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
