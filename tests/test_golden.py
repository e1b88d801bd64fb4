"""What becomes of awkward results, held against pages small enough to read: tests/golden.

A change that is meant writes them anew: REWRITE_GOLDEN=1 python -m pytest tests/test_golden.py
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leaderboard import prose
from leaderboard.collect import collect
from leaderboard.formats import markdown
from leaderboard.verdicts import sentence
from leaderboard.view import View
from tests.helpers import a_remaining, a_result, a_training, a_trial
from zoo.records.arrays import Answers
from zoo.records.packed import pack_bits, pack_classes
from zoo.records.result import Divergence, Environment, Failure, Plan, Steps
from zoo.records.storage import save, save_plan
from zoo.records.trial import Trial

GOLDEN = Path(__file__).parent / "golden"
SCORES = {"magnitude": 80.0, "movement": 84.0}


def five_seeds(folder: Path, but: Callable[[Trial], bool] = lambda trial: False) -> list[Trial]:
    """Dense and two methods with five seeds each, all planned; those where `but` holds not run."""
    planned = [a_trial(method="dense", density=1.0, seed=seed, hyper={}) for seed in range(5)]
    planned += [a_trial(method=name, seed=seed) for name in SCORES for seed in range(5)]
    for trial in planned:
        if not but(trial):
            score = SCORES.get(trial.method, 90.0) + 0.3 * trial.seed
            save(a_result(trial, metrics={"acc": score}, correct={}), folder)
    save_plan(Plan(tuple(planned)), folder)
    return [trial for trial in planned if but(trial)]


def last_of_movement(trial: Trial) -> bool:
    return trial.method == "movement" and trial.seed == 4


def partial(folder: Path) -> None:
    """One planned seed of movement has not run: counted, and named."""
    five_seeds(folder, last_of_movement)


def failed(folder: Path) -> None:
    """One seed of movement failed: shown, and counted as chance in the strict score."""
    (trial,) = five_seeds(folder, last_of_movement)
    save(Failure(trial, "out of memory"), folder)


def diverged(folder: Path) -> None:
    """One seed of movement diverged: shown, and counted as chance in the strict score."""
    (trial,) = five_seeds(folder, last_of_movement)
    stop = Divergence(7, "nan")
    save(a_result(trial, status="diverged", metrics={"acc": None}, diverged=stop), folder)


def shortened(folder: Path) -> None:
    """Runs that were cut stand in a table of their own that says so."""
    five_seeds(folder)
    for seed in range(3):
        trial = a_trial(seed=seed, train=a_training(max_steps=5))
        save(a_result(trial, steps=Steps(taken=5, planned=5, recipe=300)), folder)


def unpaired(folder: Path) -> None:
    """Movement ran with other seeds than magnitude: no p, and why."""
    five_seeds(folder, lambda trial: trial.method == "movement")
    for seed in range(5, 10):
        save(a_result(a_trial(seed=seed), metrics={"acc": 84.0 + 0.3 * seed}, correct={}), folder)


def conflicting(folder: Path) -> None:
    """Seeds of one cell with two settings are two rows, not seeds of each other."""
    five_seeds(folder)
    for seed in range(2):
        save(
            a_result(a_trial(seed=seed, hyper={"start": 0.5}), metrics={"acc": 70.0}, correct={}),
            folder,
        )


def bimodal(folder: Path) -> None:
    """One seed of five at the level of a constant answer: counted, named, median and range."""
    five_seeds(folder, lambda trial: trial.method == "movement")
    for seed, right in enumerate((849, 851, 503, 846, 850)):
        correct = {"validation": pack_bits(np.arange(1000) < right)}
        result = a_result(a_trial(seed=seed), metrics={"acc": right / 10}, correct=correct)
        save(result, folder)


def interpolated(folder: Path) -> None:
    """A method that drives a penalty: at its run, between two, at the nearest below, and over."""
    five_seeds(folder, lambda trial: trial.method == "movement")
    kept = {0: (0.1, 0.03), 1: (0.12, 0.04), 2: (0.08, 0.02), 3: (0.2, 0.11), 4: (0.15, 0.05)}
    for seed, densities in kept.items():
        for target, density in zip((0.1, 0.03), densities, strict=True):
            trial = a_trial(method="l0", density=target, seed=seed, hyper={})
            metrics = {"acc": 70 + 100 * density}
            made = a_result(trial, metrics=metrics, remaining=a_remaining(density), correct={})
            save(made, folder)


def correlated(folder: Path) -> None:
    """Matthews correlation with stored answers: its own interval, not that of accuracy."""
    truth = np.arange(1000) % 10 < 7
    for method, wrong in (("magnitude", 250), ("movement", 150)):
        for seed in range(5):
            flipped = np.random.default_rng(seed).permutation(1000) < wrong + 5 * seed
            said = np.where(flipped, ~truth, truth)
            result = a_result(
                a_trial(method=method, task="cola", seed=seed),
                metrics={"mcc": 100 * float(np.corrcoef(said, truth)[0, 1])},
                majority={"mcc": 0.0},
                correct={"validation": pack_bits(~flipped)},
                answers={"validation": Answers("classes", pack_classes(said.astype(int)))},
            )
            save(result, folder)


def two_devices(folder: Path) -> None:
    """A mean over runs on two kinds of processors is marked."""
    five_seeds(folder, last_of_movement)
    environment = Environment({"torch": "2.13.0"}, "cuda NVIDIA H100")
    made = a_result(a_trial(seed=4), metrics={"acc": 85.2}, correct={}, environment=environment)
    save(made, folder)


CASES = (
    partial,
    failed,
    diverged,
    shortened,
    unpaired,
    conflicting,
    bimodal,
    interpolated,
    correlated,
    two_devices,
)


def shown(folder: Path) -> str:
    """Titles, the tables of methods and of comparisons, and troubles."""
    board = collect(folder)
    parts = []
    for table in board.tables:
        found = View(board, table).all_grids
        parts += [f"## {prose.title(table)}", markdown(found["methods"])]
        parts += [sentence(family) for family in View(board, table).families]
        names = ("verdicts", "over-target", "by-task")
        parts += [markdown(found[n]) for n in names if n in found]
    troubles = "\n".join(f"- {line}" for line in prose.troubles(board))
    return "\n\n".join([*parts, troubles]).rstrip() + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_awkward_results_are_shown_as_written_down(case, tmp_path):
    case(tmp_path / "suite")
    path, text = GOLDEN / f"{case.__name__}.md", shown(tmp_path / "suite")
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_page_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == {case.__name__ for case in CASES}
