"""python -m leaderboard.simulate: how often the board's statistics are wrong, and what they see.

Boards of eight methods and a reference are drawn from known distributions: the error of the primary
test and of the top group when all methods are equal, their power when one is better, the coverage
of the intervals. The table is docs/statistics.md; a test repeats it with fewer boards.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leaderboard.crossed import crossed
from leaderboard.formats import Grid, markdown
from leaderboard.ranks import ALPHA, against, top_group
from leaderboard.statistics import (
    Estimate,
    difference_over_tasks,
    interval,
    mean_over_tasks,
    of_examples,
)
from zoo.ends import command, leave
from zoo.records.storage import write_whole

PAGE = Path(__file__).resolve().parent.parent / "docs" / "statistics.md"
METHODS = 8
"""Methods of a family, beside the reference."""
SEEDS, TASKS, SHIFTS = (3, 5, 10), (1, 3), (1.0, 2.0, 3.0)
EXAMPLES = 1000
SPREADS = (0.08, 0.4)
"""How much seeds vary, in the logarithm of the odds: a point or so, and five or so."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mean 0, standard deviation 1."""
    return rng.standard_normal(shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """1 minus an exponential: mean 0, standard deviation 1, a tail of bad seeds."""
    return 1 - rng.exponential(1.0, shape)


def bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One seed in five collapses, by 40 standard deviations of the others."""
    return np.where(rng.random(shape) < 0.2, -32.0, 8.0) + rng.standard_normal(shape)


def unequal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Every other method, the first axis, varies four times as much as the reference."""
    spread = np.where(np.arange(shape[0]) % 2, 4.0, 1.0)
    return rng.standard_normal(shape) * spread.reshape(-1, *([1] * (len(shape) - 1)))


KINDS: dict[str, Draw] = {f.__name__: f for f in (normal, skewed, bimodal, unequal)}


@dataclass(frozen=True)
class Rates:
    """Fractions of boards, for one kind of scores, number of tasks and of seeds.

    `error`: any of the eight equal methods is called different; `power` by shift in standard
    deviations: the one method that is better is called so; `left_out`: the top group of equal
    methods lacks any of them; `mean`, `difference`: the intervals of a mean and of a difference
    over tasks cover the truth.
    """

    kind: str
    tasks: int
    seeds: int
    error: float
    power: tuple[float, ...]
    left_out: float
    mean: float
    difference: float


def simulate(kind: str, tasks: int, seeds: int, boards: int) -> Rates:
    """Rates of one case."""
    rng = np.random.default_rng([tasks, seeds, *kind.encode()])
    shape = (METHODS + 1, tasks, seeds)
    wrong = left_out = mean = difference = 0
    power = [0] * len(SHIFTS)
    for _ in range(boards):
        board = KINDS[kind](rng, shape)
        values = named(board)
        wrong += min(against("0", values).values()) <= ALPHA
        left_out += 0 < len(top_group(values)) <= METHODS
        mean += _covers(mean_over_tasks(values["0"]))
        difference += _covers(difference_over_tasks(values["2"], values["0"]))
        for i, shift in enumerate(SHIFTS):
            moved = board.copy()
            moved[2] += shift
            power[i] += against("0", named(moved))["2"] <= ALPHA
    counts = (wrong, left_out, mean, difference, *power)
    error, outside, *rest = (count / boards for count in counts)
    return Rates(kind, tasks, seeds, error, tuple(rest[2:]), outside, rest[0], rest[1])


def named(board: np.ndarray) -> dict[str, list[list[float]]]:
    """The methods of a board by number; "0" is the reference."""
    return {str(i): method.tolist() for i, method in enumerate(board)}


def _covers(found: Estimate | None, truth: float = 0.0) -> bool:
    return found is not None and found.low <= truth <= found.high


def over_examples(seeds: int, spread: float, boards: int) -> tuple[float, float]:
    """Coverage of the crossed interval of a difference, and of the interval of a mean over seeds
    and examples. The truth: examples are of different difficulty, seeds differ by `spread` in the
    logarithm of the odds."""
    rng = np.random.default_rng([seeds, round(100 * spread)])
    both = alone = 0
    for _ in range(boards):
        level = np.array([1.5, 1.2])[:, None, None]
        level = level + spread * rng.standard_normal((2, seeds, 1))
        hard = rng.standard_normal(EXAMPLES)
        right = rng.random((2, seeds, EXAMPLES)) < _sigmoid(level + hard)
        mean = 100 * _expected(1.5, spread)
        difference = mean - 100 * _expected(1.2, spread)
        both += _covers(crossed(list(right[0]), list(right[1])), difference)
        found = interval((100 * right[0].mean(1)).tolist(), of_examples(right[0]))
        alone += _covers(found, mean)
    return both / boards, alone / boards


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _expected(level: float, spread: float) -> float:
    """The mean accuracy at a level, over examples and seeds."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(40)
    whole = math.sqrt(1 + spread**2)
    return float((_sigmoid(level + whole * nodes) * shares).sum() / shares.sum())


def page(boards: int) -> str:
    """docs/statistics.md."""
    rates = [simulate(kind, t, n, boards) for kind in KINDS for t in TASKS for n in SEEDS]
    header = ["Scores", "Tasks", "Seeds", "Error", *(f"Power at {s:g} sd" for s in SHIFTS)]
    header += ["Top group lacks one", "Mean covered", "Difference covered"]
    rows = [
        [r.kind, str(r.tasks), str(r.seeds)]
        + [f"{v:.3f}" for v in (r.error, *r.power, r.left_out, r.mean, r.difference)]
        for r in rates
    ]
    examples = [
        [f"{spread:g}", str(n), *(f"{v:.3f}" for v in over_examples(n, spread, boards // 4))]
        for spread in SPREADS
        for n in SEEDS
    ]
    names = ["Seeds vary by", "Seeds", "Difference covered", "Mean covered"]
    return TEXT.format(
        boards=boards, rates=markdown(Grid(header, rows)), examples=markdown(Grid(names, examples))
    )


TEXT = """# How often the board is wrong, and what it can see

Generated by `python -m leaderboard.simulate` ({boards:,} boards a line; a test repeats it with
fewer). A board has eight methods and a reference. *Error*: any of the eight is called different
(Holm over the exact blocked rank test) though all are equal; it may be at most .05. *Power*: one
method is better by so many standard deviations, on every task, and is called so. *Top group lacks
one*: of nine equal methods one is left out. *Covered*: the 95 % interval holds the truth.

Scores: `normal`; `skewed` (a tail of bad seeds); `bimodal` (one seed in five collapses); `unequal`
(every other method varies four times as much).

{rates}

One task with three or five seeds cannot conclude: the smallest p there is .1 and .0079, and Holm
multiplies it by eight. With several tasks three seeds can. Where spreads are very unequal the error
can be .07. Intervals over collapsed seeds cover less than they say, which no interval from five
numbers mends: look at the seeds, which every page shows.

Over examples too: the crossed bootstrap of a difference, and the interval of a mean over seeds and
examples; 1,000 examples of different difficulty, a quarter of the boards. Seeds vary by so much in
the logarithm of the odds: 0.08 is a point of accuracy or so, 0.4 five.

{examples}

The primary test uses neither of these two.
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.simulate", description=__doc__)
    parser.add_argument("--boards", type=int, default=2000, help="boards a line (default: 2000)")
    parser.add_argument("--out", type=Path, default=PAGE, help="default: docs/statistics.md")
    options = parser.parse_args(argv)
    write_whole(options.out, page(options.boards).encode())
    return 0


if __name__ == "__main__":
    leave(main())
