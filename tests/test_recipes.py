"""Recipes against the published figures, and errors where no value is known."""

from dataclasses import replace

import pytest

from methods.published import SMP_STEPS
from tasks.scales import base, tiny
from tests.helpers import write_sst2
from zoo import (
    Cell,
    ConfigError,
    Method,
    Request,
    Scale,
    Value,
    grid,
    register_method,
    register_scale,
    register_task,
)
from zoo.records.trial import training_names
from zoo.registry import methods, scales, suites, tasks
from zoo.runs.plan import Planner
from zoo.runs.values import (
    CALIBRATED,
    GIVEN,
    NoPenalty,
    choices,
    penalty_for,
    penalty_runs,
    recipe_of,
    resolve,
)
from zoo.tools.fidelity import BERT

BASE, TINY = base(), tiny()
OWN_RECIPES = [entry.name for entry in methods if callable(entry.recipe)]


def plain(
    method: str = "smp_l",
    task: str = "mnli",
    density: float = 0.03,
    distill: bool = False,
    version: str = "released",
    **changes,
) -> dict:
    """The values of a cell at the papers' scale, for BERT-base or a changed checkpoint."""
    cell = Cell(method, task, density, distill, 0)
    found = resolve(cell, BASE, version, replace(BERT, **changes))
    return {name: value.value for name, value in (found.train | found.hyper).items()}


# The published figures --------------------------------------------------------------------------


@pytest.mark.parametrize("method", OWN_RECIPES)
def test_every_value_has_a_source(method):
    for task in ("mnli", "qqp", "squad"):
        for distill in (False, True):
            for version in ("released", "paper"):
                cell = Cell(method, task, 0.1, distill, 0)
                found = resolve(cell, BASE, version, BERT)
                assert all(found.sources.values())
                assert set(found.train) <= training_names()


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
def test_the_step_at_which_smp_reaches_its_density_as_released(task, density, ends):
    assert plain(task=task, density=density)["stop"] * SMP_STEPS[task] == pytest.approx(ends)


def test_smp_trains_twice_as_long_on_squad_at_3_percent():
    got = plain(task="squad", density=0.03)
    assert got["epochs"] == 20
    assert got["stop"] * 55340 == pytest.approx(22650)
    assert got["penalty_stop"] * 55340 == pytest.approx(27660)


def test_the_differences_between_smps_paper_and_its_released_code():
    released, paper = plain(), plain(version="paper")
    assert (released["head"], paper["head"]) == ("mlm_label_words", "label_words")
    assert released["penalty_stop"] == 1.0 and paper["penalty_stop"] == paper["stop"]
    assert paper["stop"] * 73632 == pytest.approx(3500)
    assert plain(task="squad", version="paper")["stop"] * 10 * 1384 == pytest.approx(3500)
    assert plain(task="rte", version="paper")["stop"] == 0.9  # 60 epochs of 39 steps are too few
    assert plain(version="paper", density=0.8)["stop"] == pytest.approx(7 / 12)
    assert (plain(task="squad")["batch"], plain(task="squad", version="paper")["batch"]) == (32, 64)


def test_a_checkpoint_without_mlm_head_gets_another_head_and_a_note():
    headless = replace(BERT, has_mlm_head=False)
    found = resolve(Cell("smp_l", "mnli", 0.03, False, 0), BASE, "released", headless)
    assert found.hyper["head"].value == "label_words"
    assert "no MLM head" in found.hyper["head"].source
    (note,) = found.notes
    assert "has no MLM head; the head is the paper's label_words" in note
    assert not resolve(Cell("smp_l", "mnli", 0.03, False, 0), BASE, "paper", headless).notes


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
    got = plain("smp_s", task, density, distill)
    assert got["score_temperature"] == temperature


def test_smps_schedule_is_linear_for_roberta():
    assert plain(model_type="roberta")["power"] == 1


def test_the_weights_of_distillation():
    movement = plain("movement", distill=True)
    assert (movement["task_weight"], movement["teacher_weight"], movement["temperature"]) == (
        0.1,
        0.9,
        2.0,
    )
    smp = plain(distill=True)
    assert (smp["task_weight"], smp["teacher_weight"]) == (0.5, 0.5)


def test_movement_trains_as_in_its_run_log():
    got = plain("movement", "squad", 0.1)
    assert (got["batch"], got["epochs"], got["lr_weights"], got["lr_scores"]) == (
        16,
        10,
        3e-5,
        1e-2,
    )
    assert got["start"] * 55330 == pytest.approx(5400)
    assert (1 - got["stop"]) * 55330 == pytest.approx(10800)
    assert plain("movement", "qqp", 0.1)["lr_weights"] == 3e-6
    l0 = plain("l0", "qqp", 0.1)
    assert (l0["lr_scores"], l0["epochs"]) == (1e-2, 6)
    assert l0["warmup"] * 68226 == pytest.approx(11000)
    assert plain("cap_lite", "qqp", 0.1)["lr_weights"] == 3e-5
    assert plain("smp_l")["lr_head"] == 3e-5  # for methods whose head trains


# Penalties --------------------------------------------------------------------------------------


def penalty(method: str, task: str, density: float, scale: Scale = BASE, of: str = "") -> float:
    """The penalty of a cell whose recipes are those of the task `of`."""
    found = penalty_for(method, Cell(method, task, density, False, 0), of or task, scale)
    assert found is not None
    return found.value


def test_a_penalty_lies_between_those_of_its_neighbours():
    """MNLI without distillation, 10 %: between lambda 200 (12.66 %) and 300 (5.76 %)."""
    assert 200 < penalty("soft_movement", "mnli", 0.1) < 300
    runs = penalty_runs(BASE.penalties)
    remaining, known = runs.points["soft_movement", "mnli", False][3]
    assert penalty("soft_movement", "mnli", remaining) == pytest.approx(known)


def test_a_penalty_is_log_linear_in_the_density(tmp_path):
    path = tmp_path / "penalties.csv"
    header = "method,task,distill,penalty,remaining"
    rows = ("l0,mnli,no,1,80", "l0,mnli,no,100,20", "l0,mnli,no,0,90")
    path.write_text("\n".join(("a log of 3 runs", header, *rows)) + "\n")
    mine = Scale("mine", tasks=("mnli",), model="", about="", penalties=path)
    assert penalty("l0", "mnli", 0.5, mine) == pytest.approx(10.0)  # half-way from 10^0 to 10^2
    assert penalty("l0", "mnli", 0.35, mine) == pytest.approx(10**1.5)
    assert penalty("l0", "mnli", 0.85, mine) == pytest.approx(0.5)  # linear beside a zero
    assert penalty("l0", "my_task", 0.5, mine, of="mnli") == pytest.approx(10.0)
    found = penalty_for("l0", Cell("l0", "mnli", 0.5, False, 0), "mnli", mine)
    assert found.source == "a log of 3 runs, log-linear between runs"
    assert penalty_for("smp_t", Cell("smp_t", "mnli", 0.5, False, 0), "mnli", mine) is None


def test_a_method_that_shares_a_recipe_has_penalties_of_its_own():
    """RPP trains as magnitude does; its penalties were measured in the laboratory alone."""
    there = values("rpp", TINY, "tiny_inference", density=0.5)
    assert (
        there.train["lr_weights"] == values("magnitude", TINY, "tiny_inference").train["lr_weights"]
    )
    assert there.hyper["penalty"].value == pytest.approx(9.4, abs=0.2)
    with pytest.raises(NoPenalty, match="method rpp on mnli: no run is known"):
        values("rpp", BASE)


def test_a_density_outside_the_known_runs_is_rejected_with_their_range():
    with pytest.raises(
        NoPenalty, match=r"reach from 1\.77% to 90\.04% remaining weights, not 95\.00%"
    ):
        penalty("soft_movement", "mnli", 0.95)
    with pytest.raises(NoPenalty, match="method l0 on rte: no run is known that gives its penalty"):
        penalty("l0", "rte", 0.1)


@pytest.mark.parametrize("scale", [BASE, TINY], ids=lambda scale: scale.name)
def test_files_of_penalties_begin_with_their_source(scale):
    first, second, *_ = scale.penalties.read_text().splitlines()
    runs = penalty_runs(scale.penalties)
    assert runs.source == first and second == "method,task,distill,penalty,remaining"
    driven = {entry.name for entry in methods if entry.facts.drives == "penalty"}
    assert {method for method, _, _ in runs.points} <= driven
    for points in runs.points.values():
        assert points == sorted(points, reverse=True)
        assert all(0 <= remaining <= 1 and value >= 0 for remaining, value in points)


# Which value is taken ---------------------------------------------------------------------------


def values(method: str, scale: Scale, task: str = "mnli", given=(), density: float = 0.1):
    """The values of a cell of BERT-base with their sources."""
    return resolve(Cell(method, task, density, False, 0, given), scale, "released", BERT)


def test_a_suite_takes_precedence_over_the_scale_and_the_scale_over_the_recipe():
    scale = Scale("mine", tasks=(), model="", about="", values={"batch": Value(8, "my scale")})
    recipe, mine = values("movement", BASE).train, values("movement", scale).train
    assert (recipe["batch"].value, mine["batch"].value) == (32, 8)
    assert mine["batch"].source == "my scale" and mine["clip"] == recipe["clip"]
    given = values("movement", scale, given=(("batch", 4), ("power", 1)))
    assert given.train["batch"] == Value(4, GIVEN) and given.hyper["power"] == Value(1, GIVEN)


def test_steps_of_a_scale_replace_epochs_and_given_epochs_replace_steps():
    scale = Scale("mine", tasks=(), model="", about="", values={"steps": Value(9, "mine")})
    train = values("movement", scale).train
    assert train["steps"].value == 9 and "epochs" not in train
    given = values("movement", scale, given=(("epochs", 2),)).train
    assert given["epochs"].value == 2 and "steps" not in given


def test_a_scale_aims_its_penalties_below_the_target():
    """The penalty for a density at the laboratory is that of the aim's share of it elsewhere."""
    there = replace(TINY, aim=1.0)
    aimed = penalty_for("l0", Cell("l0", "tiny_span", 0.1, False, 0), "squad", TINY)
    same = penalty_for("l0", Cell("l0", "tiny_span", 0.1 * TINY.aim, False, 0), "squad", there)
    assert aimed.value == same.value and "at 0.9 of the target" in aimed.source


def test_chosen_learning_rates_replace_those_of_the_recipe():
    chosen = choices(TINY.choices)
    train = values("l0", TINY, "tiny_inference").train
    assert train["lr_scores"] == Value(chosen["l0"]["lr_scores"], CALIBRATED)
    assert train["lr_head"] == train["lr_weights"] == Value(chosen["l0"]["lr_weights"], CALIBRATED)
    smp = values("smp_l_new_head", TINY, "tiny_inference")  # uses the recipe of smp_l
    assert smp.hyper["penalty"].value == chosen["smp_l"]["penalty"]
    assert smp.train["lr_head"].source == TINY.values["lr_head"].source


def test_inputs_are_not_longer_than_the_model_allows():
    short = replace(BERT, positions=64)
    found = resolve(Cell("dense", "squad", 1.0, False, 0), BASE, "released", short)
    assert found.train["max_length"].value == 64
    assert "no more positions" in found.train["max_length"].source


def test_hyper_parameters_that_a_factory_does_not_take_are_left_out():
    @register_method("mine", recipe="smp_l")
    def mine(density, *, stop):
        """Mine."""
        return Method()

    assert set(values("mine", BASE).hyper) == {"stop"}
    assert set(values("mine", BASE, given=(("colour", 3),)).hyper) == {"stop", "colour"}


# Errors -----------------------------------------------------------------------------------------


def test_a_method_without_recipe_is_rejected_with_the_choices():
    register_method("mine")(lambda density: Method())
    with pytest.raises(ConfigError) as error:
        values("mine", BASE)
    text = str(error.value)
    assert "method mine (" in text and "has no recipe: register it with register_method(" in text
    assert f"recipe=NAME), NAME one of {', '.join(OWN_RECIPES)}, or recipe=FUNCTION" in text
    assert "\n" not in text


def test_a_recipe_of_an_unknown_name_is_rejected_with_the_nearest():
    register_method("mine", recipe="movment")(lambda density: Method())
    with pytest.raises(ConfigError, match=r"'movment' names no method with a recipe.*'movement'\?"):
        values("mine", BASE)
    register_method("circular", recipe="circular")(lambda density: Method())
    with pytest.raises(ConfigError, match="'circular' names no method with a recipe"):
        values("circular", BASE)


def test_a_recipe_may_be_named_through_another_method():
    register_method("mine", recipe="smp_l_new_head")(lambda density: Method())
    assert recipe_of(methods["mine"]) == ("smp_l", methods["smp_l"].recipe)
    assert recipe_of(methods["movement"]) == ("movement", methods["movement"].recipe)


def test_a_task_without_recipes_is_rejected_with_the_choices():
    register_task("mine")(lambda: tasks["sst2"].make())
    with pytest.raises(ConfigError, match=r"unknown recipe for task 'mine'.*register_task\(\.\.\."):
        values("movement", BASE, "mine")


def test_a_recipe_function_gives_values_and_their_sources(checkpoint, tmp_path):
    def recipe(request: Request):
        train, hyper = methods["movement"].recipe(request)
        mine = {"batch": Value(request.density * 80, "mine")}
        return train | mine | {"epochs": Value(2, "mine")}, hyper | {"power": Value(1, "mine")}

    register_method("mine", recipe=recipe)(methods["movement"].make)
    write_sst2(tmp_path / "data")
    planner = Planner(BASE, "released", str(checkpoint), str(tmp_path / "data"))
    cell = Cell("mine", "sst2", 0.1, False, 0)
    with pytest.raises(ConfigError, match="method mine on sst2: batch is 8.0, not a whole number"):
        planner.plan(cell)
    planned = planner.plan(replace(cell, given=(("batch", 8),)))
    assert planned.trial.hyper["power"] == 1 and planned.trial.train.epochs == 2
    assert planned.values.sources["power"] == "mine"


# Suites and scales ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [entry.name for entry in suites])
def test_every_suite_can_be_planned_in_the_laboratory(name):
    """All that its cells need is known: penalties, schedules that fit, teachers."""
    jobs = Planner(TINY, "released", TINY.model).jobs(suites[name].make(TINY, seeds=(0,)))
    assert len({job.trial.id for job in jobs}) == len(jobs) > 0


def test_a_scale_replaces_axes_of_suites():
    @register_scale("mine")
    def mine() -> Scale:
        """Mine."""
        axes = {"masking": {"tasks": ("sst2",), "densities": (0.5,), "seeds": (7,)}}
        return Scale("mine", tasks=("sst2",), model="", about="", axes=axes)

    cells = suites["masking"].make(scales["mine"].make())
    assert {(cell.task, cell.density, cell.seed) for cell in cells} == {
        ("sst2", 1.0, 7),
        ("sst2", 0.5, 7),
    }


def test_a_grid_has_one_cell_per_seed_of_a_method_that_does_not_prune():
    axes = {"tasks": ("mnli",), "densities": (0.5, 0.1), "distill": (False, True), "seeds": (0, 1)}
    cells = grid(BASE, {"seeds": (3, 4)}, methods=("dense", "movement"), **axes)
    assert [cell for cell in cells if cell.method == "dense"] == [
        Cell("dense", "mnli", 1.0, False, seed) for seed in (3, 4)
    ]
    assert len([cell for cell in cells if cell.method == "movement"]) == 2 * 2 * 2
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
