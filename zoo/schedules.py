"""Schedules: (step, total) -> level. Steps are optimiser steps, counted from 0.

A level is what a mask function takes (a density or a threshold tau) or the weight of a penalty;
None means: keep the masks that stand. Times are fractions of the run, rounded to whole steps, so a
run of a reference's length has exactly the reference's steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zoo.errors import ConfigError

Schedule = Callable[[int, int], float | None]


@dataclass(frozen=True)
class Ramp:
    """`first` until the fraction `start` of the run, `last` from the fraction `stop` on.

    Between them last + (first - last) (1 - progress)^power: Sanh 2020, Eq. 5; SMP, Eq. 5.
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


def cubic(first: float, last: float, start: float = 0.0, stop: float = 1.0) -> Schedule:
    """The cubic ramp of gradual pruning (Zhu and Gupta 2018; Sanh 2020, Eq. 5)."""
    return Ramp(first, last, start, stop, 3)


def linear(first: float, last: float, start: float = 0.0, stop: float = 1.0) -> Schedule:
    """A straight ramp (the SMP paper's RoBERTa runs)."""
    return Ramp(first, last, start, stop, 1)


@dataclass(frozen=True)
class Constant:
    """The same level at every step."""

    level: float

    def __call__(self, step: int, total: int) -> float:
        return self.level


constant = Constant


@dataclass(frozen=True)
class Once:
    """`level` at one moment, the fraction `at` of the run; before and after, masks stand."""

    level: float
    at: float = 0.0

    def __call__(self, step: int, total: int) -> float | None:
        return self.level if step == round(self.at * total) else None


once = Once


@dataclass(frozen=True)
class Every:
    """Another schedule, looked at only every `period` steps and at the end of the run."""

    schedule: Schedule
    period: int

    def __call__(self, step: int, total: int) -> float | None:
        return self.schedule(step, total) if step % self.period == 0 or step == total else None


every = Every


def never(step: int, total: int) -> None:
    """No level ever: nothing is masked."""
    return None


def check_fits(schedule: Schedule, total: int) -> None:
    """Raise ConfigError unless the last training step runs at the level that the schedule ends at.

    The end is read off a very long run, where every schedule fits.
    """
    last, wanted = settled(schedule, total), settled(schedule, 100_000)
    if last == wanted:
        return
    enough = next((n for n in range(total, 10_000) if settled(schedule, n) == wanted), None)
    mend = f"give at least {enough} steps" if enough else "let it end before the run does"
    raise ConfigError(
        f"the schedule cannot fit {total} steps: it stands at {_text(last)} instead of"
        f" {_text(wanted)} at the last one; {mend}"
    )


def _text(level: float | None) -> str:
    return "no level" if level is None else f"{level:.4g}"


def settled(schedule: Schedule, total: int) -> float | None:
    """The level that stands at the last training step of a run of `total` steps."""
    for step in range(total - 1, -1, -1):
        level = schedule(step, total)
        if level is not None:
            return level
    return None
