"""Time ways of computing the same beside each other: interleaved, with intervals that hold."""

import gc
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from zoo.errors import ConfigError

CPU = torch.device("cpu")
LEAST = 0.01
"""Seconds that a measurement takes at least: shorter calls are repeated."""
ROUNDS = 15
"""Rounds of a comparison."""
ERROR = 0.01
"""How often an interval may miss: 99 % intervals."""


@dataclass(frozen=True)
class Ratio:
    """Median seconds of a call of the reference and of another; the median of reference / other in
    a round, and its 99 % interval."""

    reference: float
    seconds: float
    value: float
    low: float
    high: float


def compare(
    arms: Mapping[str, Callable[[], object]], reference: str, rounds: int = ROUNDS
) -> dict[str, Ratio]:
    """Time every arm in every round, in an order drawn anew for each; the first round is dropped.

    An interval is that of the sign test: between two order statistics of the rounds' ratios. It
    needs no distribution, only that rounds do not depend on each other. Raises ValueError for
    fewer rounds than such an interval needs.
    """
    places = order_statistics(rounds)
    order, draws = list(arms), np.random.default_rng(0)
    repeats = {name: _repeats(work) for name, work in arms.items()}
    taken: dict[str, list[float]] = {name: [] for name in arms}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds + 1):
            draws.shuffle(order)
            for name in order:
                seconds = mean_seconds(arms[name], repeats[name])
                if number:
                    taken[name].append(seconds)
    finally:
        if collecting:
            gc.enable()
    return {name: _ratio(taken[reference], own, places) for name, own in taken.items()}


def _ratio(reference: list[float], own: list[float], places: tuple[int, int]) -> Ratio:
    ratios = sorted(a / b for a, b in zip(reference, own, strict=True))
    low, high = (ratios[place] for place in places)
    return Ratio(median(reference), median(own), median(ratios), low, high)


def order_statistics(rounds: int, error: float = ERROR) -> tuple[int, int]:
    """The places, from 0, of the two of so many sorted values between which their median lies but
    with this probability: the narrowest such pair. Raises ValueError for too few values."""
    missed, place = 0.0, -1
    for k in range(rounds // 2):
        missed += 2 * math.comb(rounds, k) / 2**rounds
        if missed > error:
            break
        place = k
    if place < 0:
        raise ValueError(f"{rounds} rounds are too few for a {100 - 100 * error:g} % interval")
    return place, rounds - 1 - place


def _repeats(work: Callable[[], object]) -> int:
    """How many calls a measurement takes."""
    work()
    return max(1, math.ceil(LEAST / max(mean_seconds(work, 1), 1e-9)))


def mean_seconds(work: Callable[[], object], times: int, device: torch.device = CPU) -> float:
    """Return the mean wall time of a call in seconds."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / times


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Inside, torch has so many CPU threads, and all threads of this process run on as many cores
    and no others, where the system allows it. Raises ConfigError for more threads than cores."""
    allowed = getattr(os, "sched_getaffinity", lambda _: set(range(os.cpu_count() or 1)))(0)
    if threads > len(allowed):
        raise ConfigError(f"{threads} threads cannot be timed on {len(allowed)} CPUs")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    _bind(sorted(allowed)[-threads:])
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _bind(allowed)


def _bind(cores: Iterable[int]) -> None:
    """Bind every thread of this process to some cores: those of OpenMP exist already."""
    tasks = Path("/proc/self/task")
    if hasattr(os, "sched_setaffinity") and tasks.is_dir():
        for task in tasks.iterdir():
            with suppress(OSError):  # it ended meanwhile
                os.sched_setaffinity(int(task.name), cores)
