"""What counts at a target: by hand."""

import math

import numpy as np
import pytest

from leaderboard.collect import RowKey, Table, collect
from leaderboard.targets import How, at_target, collapses, ratio
from tests.helpers import a_remaining, a_result, a_training, a_trial
from zoo.records.facts import MethodFacts
from zoo.records.packed import pack_bits
from zoo.records.storage import save


def table_of(folder, *runs, method="l0") -> Table:
    """A table of (target, seed, kept, accuracy)."""
    for target, seed, kept, accuracy in runs:
        trial = a_trial(method=method, density=target, seed=seed)
        remaining = a_remaining(kept)
        save(a_result(trial, metrics={"acc": accuracy}, remaining=remaining), folder)
    (table,) = collect(folder).tables
    return table


@pytest.mark.parametrize(
    ("kept", "counts"), [(0.1, True), (0.05, True), (0.102, True), (0.1024, True), (0.1026, False)]
)
def test_a_run_counts_that_kept_no_more_than_was_asked(tmp_path, kept, counts):
    table = table_of(tmp_path / "s", (0.1, 0, kept, 80.0), method="smp_g")
    found = at_target(table, RowKey(0.1, "smp_g"), "t")
    assert (len(found.readings), len(found.over)) == ((1, 0) if counts else (0, 1))
    assert found.values("acc") == [80.0] * counts


def test_a_penalty_is_read_between_its_two_runs_of_a_seed(tmp_path):
    """Linear in the logarithm of what was kept."""
    runs = ((0.1, 0, 0.12, 90.0), (0.03, 0, 0.025, 70.0), (0.1, 1, 0.2, 99.0))
    table = table_of(tmp_path / "s", *runs)
    found = at_target(table, RowKey(0.1, "l0"), "t")
    (reading,) = found.readings
    share = math.log(0.1 / 0.025) / math.log(0.12 / 0.025)
    assert reading.metrics["acc"] == pytest.approx(70 + share * 20)
    assert (reading.how, reading.kept, len(reading.runs)) == (How.BETWEEN, 0.1, 2)
    assert [run.trial.seed for run in found.over] == [1]  # no run of seed 1 kept fewer


def test_a_run_at_the_target_is_taken_as_it_is(tmp_path):
    table = table_of(tmp_path / "s", (0.1, 0, 0.099, 90.0), (0.03, 0, 0.12, 95.0))
    (reading,) = at_target(table, RowKey(0.1, "l0"), "t").readings
    assert (reading.how, reading.metrics["acc"], reading.kept) == (How.RUN, 90.0, 0.099)


def test_without_a_run_above_the_nearest_below_counts(tmp_path):
    table = table_of(tmp_path / "s", (0.1, 0, 0.08, 90.0), (0.03, 0, 0.02, 70.0))
    (reading,) = at_target(table, RowKey(0.1, "l0"), "t").readings
    assert (reading.how, reading.metrics["acc"], reading.kept) == (How.BELOW, 90.0, 0.08)


def test_a_run_that_lost_everything_is_no_end_of_a_line(tmp_path):
    table = table_of(tmp_path / "s", (0.1, 0, 0.2, 90.0), (0.03, 0, 0.0, 50.0))
    (reading,) = at_target(table, RowKey(0.1, "l0"), "t").readings
    assert (reading.how, reading.metrics["acc"]) == (How.BELOW, 50.0)


def test_the_ratio_has_two_decimals():
    assert ratio(a_result(remaining=a_remaining(0.10223)), 0.1) == 1.02


def test_collapsed_seeds_are_those_at_the_constant_answer(tmp_path):
    for seed, right in enumerate((500, 520, 560, 900)):
        bits = np.arange(1000) < right
        correct = {"validation": pack_bits(bits)}
        save(a_result(a_trial(seed=seed), metrics={"acc": right / 10}, correct=correct), tmp_path)
    (table,) = collect(tmp_path).tables
    readings = at_target(table, RowKey(0.1, "movement"), "t").readings
    assert collapses(readings, "acc") == [True, True, *[False] * (len(readings) - 2)]
    assert collapses(readings, "f1") == []


def test_another_setting_changes_no_reading(tmp_path):
    """Runs with another learning rate make variants, whose names hold the penalty; the line through
    a seed's runs stays."""
    folder = tmp_path / "s"
    facts = MethodFacts(drives="penalty")

    def run(density: float, kept: float, score: float, penalty: float, **changes) -> None:
        trial = a_trial(method="l0", density=density, hyper={"penalty": penalty}, **changes)
        got = a_result(trial, metrics={"acc": score}, facts=facts, remaining=a_remaining(kept))
        save(got, folder)

    run(0.1, 0.2, 80.0, 1.0)
    run(0.03, 0.02, 40.0, 5.0)
    (table,) = collect(folder).tables
    row = next(row for row in table.rows if row.density == 0.1)
    (before,) = at_target(table, row, "t").readings
    assert before.how is How.BETWEEN
    for density, penalty in ((0.1, 1.0), (0.03, 5.0)):
        run(density, density, 10.0, penalty, train=a_training(lr_scores=0.5))
    (table,) = collect(folder).tables
    rows = [row for row in table.rows if row.density == 0.1]
    found = [at_target(table, row, "t").readings[0] for row in rows]
    assert len(rows) == 2 and before.metrics in [reading.metrics for reading in found]
