"""Schedules: (step, total) -> level. Steps are optimiser steps, counted from 0.

A level is what a mask function takes (a density or a threshold tau) or the weight of a penalty;
None means that the current masks stay. Times are fractions of the run, rounded to whole steps, so a
run as long as a published one has exactly the published steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zoo.errors import ConfigError

Schedule = Callable[[int, int], float | None]
"""(step, total steps) -> level."""


@dataclass(frozen=True)
class Ramp:
    """`first` until the fraction `start` of the run, `last` from the fraction `stop` on, between
    them last + (first - last) (1 - progress)^power (Sanh et al. 2020, Eq. 5; SMP, Eq. 5).

    Raises ConfigError unless 0 <= start < stop <= 1.

    >>> from zoo import Ramp
    >>> Ramp(1.0, 0.0, 0.25, 0.75, power=3)(50, 100)  # half-way: (1 - 1/2)^3
    0.125
    """

    first: float
    last: float
    start: float
    stop: float
    power: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise ConfigError(
                f"a ramp needs 0 <= start < stop <= 1 as fractions of the run, got start"
                f" {self.start:g} and stop {self.stop:g}; shorten the warm-up or the cool-down"
            )

    def __call__(self, step: int, total: int) -> float:
        begin, end = round(self.start * total), round(self.stop * total)
        if step >= end:
            return self.last
        if step <= begin:
            return self.first
        left = 1 - (step - begin) / (end - begin)
        return self.last + (self.first - self.last) * left**self.power


@dataclass(frozen=True)
class Constant:
    """The same level at every step.

    >>> from zoo import Constant
    >>> Constant(0.3)(7, 100)
    0.3
    """

    level: float

    def __call__(self, step: int, total: int) -> float:
        return self.level


@dataclass(frozen=True)
class Staircase:
    """A level at each of some moments, fractions of the run; None between them, so that the masks
    made there stay.

    Raises ConfigError unless the moments rise within [0, 1).

    >>> from zoo import Staircase
    >>> schedule = Staircase(((0.0, 0.5), (0.5, 0.1)))
    >>> [schedule(step, 10) for step in (0, 1, 5)]
    [0.5, None, 0.1]
    """

    levels: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [time for time, _ in self.levels]
        if not times or times[0] < 0 or times[-1] >= 1 or times != sorted(set(times)):
            raise ConfigError(f"moments must rise, as fractions of the run in [0, 1), got {times}")

    def __call__(self, step: int, total: int) -> float | None:
        for time, level in reversed(self.levels):
            if round(time * total) == step:
                return level
        return None

    def last(self, total: int) -> float | None:
        """The level that a run of `total` steps ends with; None if no moment is one of its steps.

        >>> from zoo import Staircase
        >>> Staircase(((0.0, 0.5), (0.9, 0.1))).last(4)
        0.5
        """
        reached = (level for time, level in reversed(self.levels) if round(time * total) < total)
        return next(reached, None)


def at_once(density: float) -> Staircase:
    """The density at the first step, and no other: pruned once, before any training.

    >>> from zoo import at_once
    >>> at_once(0.5)(0, 10), at_once(0.5)(1, 10)
    (0.5, None)
    """
    return Staircase(((0.0, density),))


@dataclass(frozen=True)
class EverySoOften:
    """The level of a ramp at every `every`-th step while it moves, and at each step after it; None
    before it and in between."""

    ramp: Ramp
    every: int

    def __call__(self, step: int, total: int) -> float | None:
        if step <= round(self.ramp.start * total):
            return None
        moving = step < round(self.ramp.stop * total)
        return None if moving and step % self.every else self.ramp(step, total)


def every_so_often(ramp: Ramp, every: int) -> EverySoOften:
    """A ramp that is followed at every `every`-th step alone, and closely once it has ended.

    >>> from zoo import Ramp, every_so_often
    >>> schedule = every_so_often(Ramp(1.0, 0.0, 0.0, 0.5, 1), 2)
    >>> [schedule(step, 8) for step in (0, 1, 2, 4, 5)]
    [None, None, 0.5, 0.0, 0.0]
    """
    return EverySoOften(ramp, every)


Rate = Callable[[int, int, float], float]
"""(step, total, warm-up as a fraction of the run) -> factor of all learning rates."""


def rate(step: int, total: int, warmup: float) -> float:
    """Linear from 0 to 1 over the warm-up, then linear to 0.

    >>> from zoo import rate
    >>> [rate(step, 10, 0.2) for step in (0, 1, 2, 6)]
    [0.0, 0.5, 1.0, 0.5]
    """
    rising = round(warmup * total)
    if step < rising:
        return step / rising
    return (total - step) / (total - rising)


@dataclass(frozen=True)
class Cycles:
    """Linear from 1 to `last` in each of several cycles, which begin at the fractions `starts` of
    the run; there is no warm-up. Raises ConfigError unless they rise from 0.

    >>> from zoo import Cycles
    >>> cycles = Cycles((0.0, 0.5), last=0.2)
    >>> [round(cycles(step, 8, 0.0), 2) for step in (0, 2, 4, 7)]
    [1.0, 0.6, 1.0, 0.4]
    """

    starts: tuple[float, ...]
    last: float

    def __post_init__(self) -> None:
        times = [*self.starts, 1.0]
        if times[0] != 0 or times != sorted(set(times)):
            raise ConfigError(f"cycles must begin at 0 and rise to below 1, got {self.starts}")

    def __call__(self, step: int, total: int, warmup: float) -> float:
        edges = [round(time * total) for time in (*self.starts, 1.0)]
        begin = max(edge for edge in edges[:-1] if edge <= step)
        end = min((edge for edge in edges if edge > begin), default=total)
        return 1 - (1 - self.last) * (step - begin) / (end - begin)


def stepwise(first: float, last: float, start: float, stop: float, every: float) -> Staircase:
    """`first` at the fraction `start` of the run, then at every further `every` until `stop` the
    level of a cubic ramp from there to `last` (Zhu and Gupta 2018, in few steps).

    >>> from zoo import stepwise
    >>> [round(level, 4) for _, level in stepwise(0.3, 0.1, 0.0, 0.5, 0.25).levels]
    [0.3, 0.125, 0.1]
    """
    many = round((stop - start) / every)
    left = [1 - i / many for i in range(many + 1)]
    return Staircase(
        tuple(
            (start + (1 - rest) * (stop - start), last + (first - last) * rest**3) for rest in left
        )
    )


def never(step: int, total: int) -> None:
    """None at every step: nothing is masked.

    >>> from zoo import never
    >>> never(3, 10) is None
    True
    """
    return None


def check_fits(schedule: Schedule, total: int) -> None:
    """Raise ConfigError unless the last training step of a run of `total` steps has the level at
    which the schedule ends, which is read from a run so long that every schedule fits."""
    last, wanted = settled(schedule, total), settled(schedule, 100_000)
    if last == wanted:
        return
    enough = next((n for n in range(total, 10_000) if settled(schedule, n) == wanted), None)
    mend = f"give at least {enough} steps" if enough else "let it end before the run does"
    raise ConfigError(
        f"the schedule cannot fit {total} steps: it is at {_text(last)} instead of"
        f" {_text(wanted)} in the last one; {mend}"
    )


def _text(level: float | None) -> str:
    return "no level" if level is None else f"{level:.4g}"


def settled(schedule: Schedule, total: int) -> float | None:
    """The level of the last training step of a run of `total` steps that has one."""
    if isinstance(schedule, Staircase):  # it would be asked about nearly every step
        return schedule.last(total)
    for step in range(total - 1, -1, -1):
        level = schedule(step, total)
        if level is not None:
            return level
    return None
