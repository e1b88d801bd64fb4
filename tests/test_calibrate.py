"""Calibration of a scale: the same effort for every method, on seeds that no suite uses."""

import csv
import math
from dataclasses import replace

import pytest

from tasks.scales import tiny
from tests.helpers import a_remaining, a_result, a_trial
from zoo import Cell, Scale
from zoo.registry import methods, suites
from zoo.runs.plan import Planner
from zoo.runs.values import CALIBRATED, choices, penalty_runs
from zoo.tools import calibrate

TINY = tiny()
PENALTY_DRIVEN = [entry.name for entry in methods if entry.facts.drives == "penalty"]


@pytest.fixture
def laboratory(tmp_path) -> calibrate.Laboratory:
    """Calibrates the laboratory; runs nothing here."""
    return calibrate.Laboratory(TINY, tmp_path)


def test_every_method_has_six_candidates(laboratory):
    names = calibrate.own_recipes()
    assert {len(set(laboratory.candidates(name))) for name in names} == {6}


def test_candidates_vary_what_a_method_trains(laboratory):
    def names(method: str) -> set[str]:
        return {name for given in laboratory.candidates(method) for name, _ in given}

    weights, scores = {"lr_weights", "lr_head"}, {"lr_scores"}
    assert names("dense") == names("random") == names("magnitude") == weights
    assert names("l0") == names("soft_movement") == weights | scores
    assert names("movement") == names("cap_lite") == weights  # the rate of scores changes nothing
    assert names("smp_l") == names("smp_g") == scores | {"penalty"}
    assert names("smp_t") == scores


def test_no_suite_uses_the_seeds_of_the_calibration():
    used = {cell.seed for entry in suites for cell in entry.make(TINY)}
    assert not used & set(calibrate.SEEDS)


def test_metrics_at_the_density_are_interpolated_in_a_ladder():
    assert calibrate.metric_at_target([(0.0025, 40.0), (1.0, 80.0)]) == pytest.approx(60.0)
    assert calibrate.metric_at_target([(0.02, 40.0), (0.05, 50.0)]) == 50.0
    for out_of_reach in ([(0.2, 70.0), (0.9, 80.0)], [(0.0, 33.0), (0.2, 60.0)], [(0.0, 33.0)], []):
        assert calibrate.metric_at_target(out_of_reach) == 0.0
    points = [(0.9, 90.0), (0.025, 30.0), (0.2, 50.0)]
    by_hand = 30 + 20 * (math.log(0.05) - math.log(0.025)) / (math.log(0.2) - math.log(0.025))
    assert calibrate.metric_at_target(points) == pytest.approx(by_hand)


def test_the_chosen_candidate_is_the_best_of_all_that_were_tried(laboratory):
    with TINY.choices.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(calibrate.own_recipes())
    for method in calibrate.own_recipes():
        tried = [row for row in rows if row["method"] == method]
        assert len(tried) == 6, method
        given = {
            tuple((n, float(row[n])) for n in ("lr_weights", "lr_scores", "penalty") if row[n])
            for row in tried
        }
        wanted = {
            tuple((n, v) for n, v in candidate if n != "lr_head")
            for candidate in laboratory.candidates(method)
        }
        assert given == wanted, method
        best = max(float(row["score"]) for row in tried)
        (chosen,) = (row for row in tried if row["chosen"] == "yes")
        assert float(chosen["score"]) == best


def test_the_teacher_does_not_depend_on_a_students_values(laboratory):
    """Every candidate and every run of a ladder learns from the teacher that the suites use."""
    planner = Planner(TINY, "released", TINY.model)
    usual = planner.jobs([Cell("dense", "tiny_span", 1.0, False, calibrate.SEEDS[0])])[0].trial.id
    cells = [
        c
        for given in laboratory.candidates("cap_lite")
        for c in laboratory.candidate_cells("cap_lite", given)
    ]
    for method in PENALTY_DRIVEN:
        cells += laboratory.ladder_cells(method, (), calibrate.LONG, True, calibrate.SEEDS)
    own = [cell for cell in cells if (cell.task, cell.seed) == ("tiny_span", calibrate.SEEDS[0])]
    students = [job.trial for job in planner.jobs(own) if not job.teaches]
    assert len(students) == len(own) and {trial.teacher for trial in students} == {usual}


def test_refinements_run_at_the_densities_of_the_suites(laboratory):
    cells = list(laboratory.target_cells(["l0"]))
    assert {cell.method for cell in cells} == {"l0"}
    assert {cell.density for cell in cells} == {0.7, 0.5, 0.3, 0.1, 0.03}
    assert {cell.seed for cell in cells if cell.distill} == {calibrate.SEEDS[0]}
    assert {cell.seed for cell in cells if not cell.distill} == set(calibrate.SEEDS)


# The files --------------------------------------------------------------------------------------


def result(name: str, task: str, penalty: float, density: float, seed: int):
    """A cell of a ladder and what it gave."""
    cell = Cell(name, task, 0.1, False, seed, (("penalty", penalty),))
    trial = a_trial(method=name, task=task, seed=seed, hyper={"penalty": penalty})
    return cell, a_result(trial, remaining=a_remaining(density))


def test_measured_penalties_replace_those_of_the_same_methods_alone(tmp_path):
    path = tmp_path / "penalties.csv"
    rows = ("method,task,distill,penalty,remaining", "l0,a,no,7,50.0000", "other,a,yes,1,9.0000")
    path.write_text("\n".join(("an older source", *rows)) + "\n")
    scale = Scale("mine", tasks=("a",), model="", about="", penalties=path)
    measured = ((10.0, 0.40, 0), (10.0, 0.42, 1), (100.0, 0.05, 0))
    runs = [result("l0", "a", penalty, kept, seed) for penalty, kept, seed in measured]
    calibrate.save_penalties(scale, ["l0"], runs)
    assert path.read_text().splitlines() == [
        CALIBRATED,
        rows[0],
        "other,a,yes,1,9.0000",
        "l0,a,no,10,41.0000",
        "l0,a,no,100,5.0000",
    ]
    points = penalty_runs(path).points
    assert points["l0", "a", False] == [(pytest.approx(0.41), 10.0), (pytest.approx(0.05), 100.0)]


def test_of_equal_candidates_the_first_is_chosen(tmp_path, capsys):
    every = [(("lr_weights", rate), ("lr_head", rate)) for rate in (1e-3, 2e-3, 4e-3)]
    metrics = dict(zip(every, (70.0, 90.0, 90.0), strict=True))
    found = {
        Cell("dense", "a", 1.0, False, 0, given): a_result(metrics={"acc": metrics[given]})
        for given in every
    }
    rows = list(calibrate.compared("dense", every, found))
    assert rows == [
        ["dense", 1e-3, "", "", "70.00", "no"],
        ["dense", 2e-3, "", "", "90.00", "yes"],
        ["dense", 4e-3, "", "", "90.00", "no"],
    ]
    path = tmp_path / "choices.csv"
    header = ["method", "lr_weights", "lr_scores", "penalty", "score", "chosen"]
    calibrate.write(path, "", header, rows)
    assert calibrate.read(path) == (header, [[str(cell) for cell in row] for row in rows])
    assert choices(path) == {"dense": {"lr_weights": 2e-3}}


def test_a_run_that_diverged_counts_as_zero():
    assert calibrate.first_metric(a_result(metrics={"acc": None, "f1": 3.0})) == 0.0
    assert calibrate.first_metric(a_result(metrics={"acc": 4.0, "f1": 3.0})) == 4.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "base"], "scale base keeps no chosen values"),
        (["--scale", "tiny", "--methods", "movment"], "did you mean 'movement'?"),
        (["--scale", "tny"], "did you mean 'tiny'?"),
    ],
)
def test_wrong_options_are_answered_on_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("sys.argv", ["calibrate", *arguments])
    assert calibrate.main() == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_candidate_trains_with_its_own_values(laboratory):
    """And not with those that were chosen before."""
    given = laboratory.candidates("movement")[0]
    cell = next(iter(laboratory.candidate_cells("movement", given)))
    train = laboratory.planner(choosing=True).plan(replace(cell, task="tiny_span")).trial.train
    assert (train.lr_weights, train.lr_head) == tuple(v for _, v in given)
