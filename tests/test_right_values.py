"""What the laboratory's first five-seed results come to, recomputed independently of the board.

fixtures/laboratory.csv holds kept weights (in 100,000ths) and right answers (of 1,000) of the
methods that prune, at 10 and 3 %, without distillation; fixtures/answers.csv the answers of two.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leaderboard.collect import RowKey, Table, collect
from leaderboard.compare import families
from leaderboard.crossed import crossed
from leaderboard.ranks import against
from leaderboard.statistics import welch
from leaderboard.targets import at_target
from tests.helpers import a_remaining, a_result, a_trial
from zoo.records.packed import pack_bits, unpack_bits
from zoo.records.storage import save
from zoo.registry import methods

FIXTURES = Path(__file__).with_name("fixtures")
TASKS = ("inference", "paraphrase", "span")
FAMILY = ("magnitude", "l0", "movement", "soft_movement", "smp_l", "smp_s", "smp_g")


def read(name: str) -> list[dict[str, str]]:
    """The rows of a fixture."""
    with (FIXTURES / name).open(newline="") as file:
        return list(csv.DictReader(file))


def values(method: str, density: str) -> list[list[float]]:
    """The metric of every seed by task, whatever it kept."""
    rows = [r for r in read("laboratory.csv") if (r["method"], r["density"]) == (method, density)]
    return [[int(r["right"]) / 10 for r in rows if r["task"] == task] for task in TASKS]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    """The same results as a table of the board."""
    folder = tmp_path_factory.mktemp("laboratory") / "s"
    for row in read("laboratory.csv"):
        trial = a_trial(
            **{k: row[k] for k in ("method", "task")},
            density=float(row["density"]),
            seed=int(row["seed"]),
        )
        right = int(row["right"])
        result = a_result(
            trial,
            metrics={"acc": right / 10},
            majority={"inference": {"acc": 33.4}, "paraphrase": {"acc": 50.0}}.get(row["task"], {}),
            remaining=a_remaining(int(row["kept"]) / 1e5),
            correct={"validation": pack_bits(np.arange(1000) < right)},
            facts=methods[row["method"]].facts,
        )
        save(result, folder)
    (found,) = collect(folder).tables
    return found


def test_l0_is_far_above_magnitude_at_3_percent():
    """+31.3, +11.9 and +33.6 over all five seeds, each with an exact p of .0079."""
    ours, theirs = values("l0", "0.03"), values("magnitude", "0.03")
    for a, b, expected in zip(ours, theirs, (31.3, 11.9, 33.6), strict=True):
        found = welch(a, b)
        assert found is not None and found.value == pytest.approx(expected, abs=0.05)
        assert found.low > 0
        assert stats.mannwhitneyu(a, b, method="exact").pvalue == pytest.approx(0.0079, abs=1e-4)


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        ("0.1", {"l0": 1e-4, "smp_g": 0.002, "smp_l": 0.015, "smp_s": 0.028, "movement": 0.65}),
        ("0.03", {"l0": 2e-4, "soft_movement": 1e-4, "movement": 0.040, "smp_l": 0.040}),
    ],
)
def test_the_primary_test_rejects(density, expected):
    """p of the blocked rank test, which was first computed by permuting at random."""
    p = against("magnitude", {name: values(name, density) for name in FAMILY})
    for name, wanted in expected.items():
        assert p[name] == pytest.approx(wanted, rel=0.1, abs=0.005), name
    assert (p["movement"] < 0.05) == (density == "0.03")


def test_the_board_says_so(table):
    """Who is told apart from magnitude at each target, and which are the best."""
    high, low = families(table, table, "magnitude")
    assert (high.density, low.density) == (0.1, 0.03)
    verdicts = {v.row.method: v for v in low.verdicts}
    assert [v.row.method for v in low.verdicts if v.top] == ["soft_movement", "l0"]
    for name in ("l0", "soft_movement"):
        assert verdicts[name].p < 0.001 and verdicts[name].difference.low > 20
    assert verdicts["smp_l"].wins < 0.5 and verdicts["smp_l"].p < 0.05  # worse
    assert verdicts["random"].p is None and verdicts["random"].why_not == "a control"
    assert {v.row.method: v.collapsed for v in high.verdicts}["smp_l"] == 1
    above = {v.row.method: v for v in high.verdicts}["smp_l"]
    assert above.wins > 0.5 and above.difference.value < 0  # one collapsed seed


def test_runs_of_a_penalty_are_read_at_the_target(table):
    """Ten l0 runs at these targets kept fewer weights; none of them vanishes."""
    row = RowKey(0.1, "l0")
    assert [len(at_target(table, row, task).readings) for task in TASKS] == [5, 5, 5]
    soft = at_target(table, RowKey(0.1, "soft_movement"), "paraphrase")
    assert len(soft.readings) == 5 and not soft.over  # 10.15 to 13.99 % kept, read at 10 %
    assert {round(100 * r.kept, 1) for r in soft.readings} == {10.0, 10.1}
    over = at_target(table, RowKey(0.03, "l0"), "inference").over
    assert sorted(round(100 * r.remaining.density, 2) for r in over) == [3.24, 3.26, 3.28]


def test_seeds_and_examples_together():
    """smp_l - magnitude, paraphrase, 10 %: -9.4 (-29.3 to +1.3), one of five seeds at chance."""
    answers = {"smp_l": [], "magnitude": []}
    for row in read("answers.csv"):
        answers[row["method"]].append(unpack_bits(row["correct"]))
    found = crossed(answers["smp_l"], answers["magnitude"])
    assert found is not None and found.value == pytest.approx(-9.4, abs=0.05)
    assert found.low == pytest.approx(-29.3, abs=1.0) and found.high == pytest.approx(1.3, abs=0.4)
