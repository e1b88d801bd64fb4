"""What counts at a target: runs that kept no more than was asked for, and for methods that drive a
penalty the line between two runs of a seed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from leaderboard.collect import RowKey, Table
from leaderboard.statistics import CORRELATIONS, is_collapsed
from zoo.records.codec import to_json
from zoo.records.packed import unpack_bits
from zoo.records.result import AT_MOST, Metrics, Result
from zoo.records.trial import canonical


class How(Enum):
    """Where a seed's metric at a target comes from."""

    RUN = "run"
    BETWEEN = "between"
    BELOW = "below"


@dataclass(frozen=True)
class Reading:
    """One seed at a target: `kept` in [0, 1], metrics in percent, and the runs that they are from,
    two where they are interpolated."""

    seed: int
    kept: float
    metrics: Metrics
    how: How
    runs: Sequence[Result]


@dataclass(frozen=True)
class AtTarget:
    """The seeds of a row on a task: those that can be read at the target, and the runs over it that
    no lower run of their seed brings down."""

    readings: Sequence[Reading] = ()
    over: Sequence[Result] = ()

    def values(self, metric: str) -> list[float]:
        """The metric of every seed that has a value of it."""
        found = [reading.metrics.get(metric) for reading in self.readings]
        return [value for value in found if value is not None]

    @property
    def runs(self) -> list[Result]:
        """Runs at the target themselves, nothing interpolated."""
        return [r.runs[0] for r in self.readings if r.how is not How.BETWEEN]


def at_target(table: Table, row: RowKey, task: str) -> AtTarget:
    """The seeds of a row on a task; read once per table."""
    if (row, task) not in table.readings:
        table.readings[row, task] = _read(table, row, task)
    found: AtTarget = table.readings[row, task]
    return found


def _read(table: Table, row: RowKey, task: str) -> AtTarget:
    group = table.group(row, task)
    if row.density == 1 or table.facts_of(row).drives != "penalty":
        counted = [r for r in group.ok if ratio(r, row.density) <= AT_MOST]
        over = [r for r in group.ok if ratio(r, row.density) > AT_MOST]
        return AtTarget([_alone(run, How.RUN) for run in counted], over)
    others = [
        (other.variant == row.variant, result)
        for (other, where), found in table.groups.items()
        if (other.method, where) == (row.method, task)
        for result in found.ok
    ]
    readings, over = [], []
    for run in group.ok:
        own = [
            other
            for same, other in others
            if other.trial.seed == run.trial.seed and (same or _one_line(other) == _one_line(run))
        ]
        reading = _of_seed(row.density, run, own)
        readings += [reading] if reading else []
        over += [] if reading else [run]
    return AtTarget(readings, over)


def _one_line(result: Result) -> str:
    """What runs have in common that differ in their seed and their penalty alone: variants are
    named by all values, the penalty among them."""
    trial = result.trial
    hyper = {name: value for name, value in trial.hyper.items() if name != "penalty"}
    return canonical([trial.plugin_sha, to_json(trial.train), hyper, trial.teacher])


def ratio(result: Result, density: float) -> float:
    """Kept over asked, to two decimals."""
    return round(result.remaining.density / density, 2)


def _alone(run: Result, how: How) -> Reading:
    return Reading(run.trial.seed, run.remaining.density, run.metrics, how, (run,))


def _of_seed(density: float, run: Result, runs: Iterable[Result]) -> Reading | None:
    """A seed of a method that drives a penalty: its run at the target; else interpolated in log
    density between its nearest runs on both sides; else its nearest run below; else None."""
    if 2 - AT_MOST <= ratio(run, density) <= AT_MOST:
        return _alone(run, How.RUN)
    ordered = sorted(runs, key=lambda r: r.remaining.density)
    below = [r for r in ordered if ratio(r, density) <= AT_MOST]
    above = [r for r in ordered if ratio(r, density) > AT_MOST]
    if not below:
        return None
    low = below[-1]
    if not above or low.remaining.density == 0 or low.remaining.density >= density:
        return _alone(low, How.BELOW)
    high = above[0]
    share = math.log(density / low.remaining.density)
    share /= math.log(high.remaining.density / low.remaining.density)
    metrics = {
        name: a + share * (b - a)
        for name, a in low.metrics.items()
        if a is not None and (b := high.metrics.get(name)) is not None
    }
    return Reading(run.trial.seed, density, metrics, How.BETWEEN, (low, high))


def collapses(readings: Iterable[Reading], metric: str) -> list[bool]:
    """For each seed that can be judged, whether its metric is not above that of the best constant
    answer, beyond chance. Only a fraction of right answers and a correlation can be judged, with a
    constant answer to compare with and a count of examples."""
    found = [_at_constant(reading, metric) for reading in readings]
    return [one for one in found if one is not None]


def _at_constant(reading: Reading, metric: str) -> bool | None:
    """Whether a seed is at the level of a constant answer; None if that cannot be judged."""
    run, value = reading.runs[0], reading.metrics.get(metric)
    constant, bits = run.majority.get(metric), bits_of(run)
    if value is None or constant is None or bits is None:
        return None
    own = run.metrics.get(metric)
    proportion = own is not None and math.isclose(100 * bits.mean(), own, abs_tol=1e-6)
    if not proportion and metric not in CORRELATIONS:
        return None
    return is_collapsed(value, constant, len(bits), proportion=proportion)


def bits_of(result: Result) -> np.ndarray | None:
    """Whether each example of the first evaluation set was answered correctly."""
    first = next(iter(sorted(result.correct.items())), None)
    return None if first is None else unpack_bits(first[1])
