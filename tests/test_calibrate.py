"""The laboratory's calibration: the same effort for every method, on seeds of its own."""

import csv
import math

import pytest

from zoo import calibrate, recipes
from zoo.plan import Planner
from zoo.registry import suites
from zoo.suites import TINY, Cell


def test_every_method_has_as_many_candidates():
    assert {len(set(calibrate.candidates(method))) for method in recipes.FAMILIES} == {6}


def test_no_suite_uses_its_seeds():
    used = {cell.seed for entry in suites for cell in entry.make(TINY)}
    assert not used & set(calibrate.SEEDS)


def test_metrics_at_ten_percent_are_read_between_the_runs_of_a_ladder():
    assert calibrate.at_density([(0.01, 40.0), (1.0, 80.0)]) == pytest.approx(60.0)
    assert calibrate.at_density([(0.02, 40.0), (0.05, 50.0)]) == 50.0
    for out_of_reach in ([(0.2, 70.0), (0.9, 80.0)], [(0.0, 33.0), (0.2, 60.0)], [(0.0, 33.0)], []):
        assert calibrate.at_density(out_of_reach) == 0.0
    points = [(0.9, 90.0), (0.05, 30.0), (0.2, 50.0)]
    by_hand = 30 + 20 * (math.log(0.1) - math.log(0.05)) / (math.log(0.2) - math.log(0.05))
    assert calibrate.at_density(points) == pytest.approx(by_hand)


def test_what_was_chosen_is_the_best_of_what_was_tried():
    with recipes.LABORATORY_FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for method in recipes.FAMILIES:
        tried = [row for row in rows if row["method"] == method]
        assert len(tried) == 6, method
        given = {
            tuple((n, float(row[n])) for n in ("lr_weights", "lr_scores", "penalty") if row[n])
            for row in tried
        }
        wanted = {
            tuple((n, v) for n, v in candidate if n != "lr_head")
            for candidate in calibrate.candidates(method)
        }
        assert given == wanted, method
        best = max(float(row["score"]) for row in tried)
        (chosen,) = (row for row in tried if row["chosen"] == "yes")
        assert float(chosen["score"]) == best


def test_teachers_share_nothing_that_is_a_students_own():
    """Every candidate and every run of a ladder learns from the teacher that the suites use."""
    planner = Planner(TINY, "released", TINY.model, None)
    usual = planner.jobs([Cell("dense", "tiny_span", 1.0, False, calibrate.SEEDS[0])])[0].trial.id
    cells = [
        c
        for given in calibrate.candidates("cap_lite")
        for c in calibrate.candidate_cells("cap_lite", given)
    ]
    for method in recipes.PENALTY_DRIVEN:
        cells += calibrate.ladder_cells(method, (), calibrate.LONG, True, calibrate.SEEDS)
    mine = [cell for cell in cells if (cell.task, cell.seed) == ("tiny_span", calibrate.SEEDS[0])]
    students = [job.trial for job in planner.jobs(mine) if not job.teaches]
    assert len(students) == len(mine) and {trial.teacher for trial in students} == {usual}
