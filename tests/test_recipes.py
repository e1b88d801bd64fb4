"""Recipes against the published figures, and what is said where none is known."""

import pytest

from zoo.errors import ConfigError
from zoo.plan import Planner
from zoo.recipes import FAMILIES, SMP_STEPS, Request, penalty_for, penalty_runs, resolve
from zoo.registry import suites
from zoo.suites import TINY


def request(method="smp_l", task="mnli", density=0.03, **changes) -> Request:
    values = {"recipe": "released", "scale": "base", "model_type": "bert", "has_mlm_head": True}
    names = {"method": method, "task": task, "task_name": task, "density": density}
    return Request(**(values | names | {"distill": False} | changes))


def plain(**changes) -> dict:
    train, hyper = resolve(request(**changes))
    return {name: v.value for name, v in (train | hyper).items()}


def test_every_value_has_a_source():
    for method in FAMILIES:
        for task in ("mnli", "qqp", "squad"):
            for distill in (False, True):
                for recipe in ("released", "paper"):
                    train, hyper = resolve(
                        request(method, task, 0.1, distill=distill, recipe=recipe)
                    )
                    assert all(v.source for v in (train | hyper).values())


@pytest.mark.parametrize(
    ("task", "density", "ends"),
    [
        ("mnli", 0.03, 43632),
        ("qqp", 0.1, 38232),
        ("squad", 0.1, 22670),
        ("mnli", 0.8, 3500),
        ("mnli", 0.7, 5250),
        ("sst2", 0.8, 3500),
        ("squad", 0.8, 5000),
    ],
)
def test_where_smp_reaches_its_density_as_released(task, density, ends):
    assert plain(task=task, density=density)["stop"] * SMP_STEPS[task] == pytest.approx(ends)


def test_squad_at_3_percent_trains_twice_as_long():
    got = plain(task="squad", density=0.03)
    assert got["epochs"] == 20
    assert got["stop"] * 55340 == pytest.approx(22650)
    assert got["penalty_stop"] * 55340 == pytest.approx(27660)


def test_paper_and_released_disagree_where_they_do():
    released, paper = plain(), plain(recipe="paper")
    assert (released["head"], paper["head"]) == ("mlm_label_words", "label_words")
    assert released["penalty_stop"] == 1.0 and paper["penalty_stop"] == paper["stop"]
    assert paper["stop"] * 73632 == pytest.approx(3500)
    assert plain(task="squad", recipe="paper")["stop"] * 10 * 1384 == pytest.approx(3500)
    assert plain(task="rte", recipe="paper")["stop"] == 0.9  # 60 epochs of 39 steps are too few
    assert plain(recipe="paper", density=0.8)["stop"] == pytest.approx(7 / 12)
    assert (plain(task="squad")["batch"], plain(task="squad", recipe="paper")["batch"]) == (32, 64)


def test_a_checkpoint_without_mlm_head_gets_the_other_head_and_says_why():
    _, hyper = resolve(request(has_mlm_head=False))
    assert hyper["head"].value == "label_words"
    assert "no MLM head" in hyper["head"].source


@pytest.mark.parametrize(
    ("density", "distill", "task", "temperature"),
    [
        (0.8, False, "mnli", 4.0),
        (0.5, False, "mnli", 3.0),
        (0.5, True, "mnli", 1.0),
        (0.5, False, "squad", 4.0),
        (0.1, False, "mnli", 1.0),
    ],
)
def test_the_temperature_of_smp_s(density, distill, task, temperature):
    got = plain(method="smp_s", density=density, distill=distill, task=task)
    assert got["score_temperature"] == temperature


def test_roberta_has_a_linear_schedule():
    assert plain(model_type="roberta")["power"] == 1


def test_mixes_of_distillation():
    movement = plain(method="movement", distill=True)
    assert (movement["task_weight"], movement["teacher_weight"], movement["temperature"]) == (
        0.1,
        0.9,
        2.0,
    )
    smp = plain(distill=True)
    assert (smp["task_weight"], smp["teacher_weight"]) == (0.5, 0.5)


def test_movement_as_in_the_run_log():
    got = plain(method="movement", task="squad", density=0.1)
    assert (got["batch"], got["epochs"], got["lr_weights"], got["lr_scores"]) == (
        16,
        10,
        3e-5,
        1e-2,
    )
    assert got["start"] * 55330 == pytest.approx(5400)
    assert (1 - got["stop"]) * 55330 == pytest.approx(10800)
    assert plain(method="movement", task="qqp", density=0.1)["lr_weights"] == 3e-6
    l0 = plain(method="l0", task="qqp", density=0.1)
    assert (l0["lr_scores"], l0["epochs"]) == (1e-2, 6)
    assert l0["warmup"] * 68226 == pytest.approx(11000)
    assert plain(method="cap_lite", task="qqp", density=0.1)["lr_weights"] == 3e-5
    assert plain(method="smp_l")["lr_head"] == 3e-5  # where its head trains


def test_a_penalty_lies_between_its_neighbours():
    """MNLI without distillation, 10 %: between lambda 200 (12.78 %) and 300 (5.89 %)."""
    assert 200 < penalty_for(request("soft_movement", density=0.1)).value < 300
    points = penalty_runs()["base", "soft_movement", "mnli", False]
    remaining, penalty = points[3]
    assert penalty_for(request("soft_movement", density=remaining)).value == pytest.approx(penalty)


def test_a_penalty_outside_the_runs_names_the_range():
    with pytest.raises(
        ConfigError, match=r"reach from 1\.77% to 90\.04% remaining weights, not 95\.00%"
    ):
        penalty_for(request("soft_movement", density=0.95))
    with pytest.raises(ConfigError, match="no run is known that gives its penalty"):
        penalty_for(request("l0", task="rte"))


def test_unknown_recipe_names():
    with pytest.raises(ConfigError, match=r"no recipe for method 'x'.*register_method"):
        resolve(request("x"))
    with pytest.raises(ConfigError, match=r"no recipe for task 'x'.*register_task"):
        resolve(request(task="x"))


@pytest.mark.parametrize("name", [entry.name for entry in suites])
def test_every_suite_can_be_planned_on_the_laboratory(name):
    """Whatever its cells need is known: penalties, schedules that fit, teachers."""
    jobs = Planner(TINY, "released", TINY.model, None).jobs(suites[name].make(TINY))
    assert len({job.trial.id for job in jobs}) == len(jobs) > 0
