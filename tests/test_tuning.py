"""--tune N: the same number of candidates for every method, chosen apart from what judges."""

import csv
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboard.collect import collect
from leaderboard.ranks import ALPHA, against
from leaderboard.tuning import candidate_grid
from zoo import Among, Cell, ConfigError, Times
from zoo.parts.ranges import RATES, applicable
from zoo.parts.recipes import Value
from zoo.records.storage import load_folder
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.runs import tuning
from zoo.runs.searches import SEARCHES, Halving, Random, Space, Tried
from zoo.runs.tuning import Tuner

RANGES = {"lr_weights": Times(0.25, 4), "shape": Among("a", "b", "c")}


def space(number: int = 8, shared: str = "t 0.1", **ranges) -> Space:
    ranges = ranges or RANGES
    values = {name: "a" if isinstance(one, Among) else 0.01 for name, one in ranges.items()}
    return Space(values, ranges, number, shared, 400)


# Ranges and searches ----------------------------------------------------------------------------


def test_a_factor_is_log_uniform_and_has_the_recipes_value_inside():
    places = np.linspace(0, 1, 9)
    drawn = [Times(0.25, 4).draw(0.02, place) for place in places]
    assert drawn[0] == 0.005 and drawn[4] == 0.02 and drawn[8] == 0.08
    assert np.ptp(np.diff(np.log(drawn))) < 0.01
    for low, high in ((0, 4), (2, 4), (0.5, 0.9), (1, 1), (0.5, float("inf"))):
        with pytest.raises(ConfigError, match="Times needs"):
            Times(low, high)
    for values in (("a", "a"), ("a",), ([1], [2])):
        with pytest.raises(ConfigError, match="two different"):
            Among(*values)
    assert [Times(0.25, 4).draw(10, place) for place in (0.0, 0.5, 1.0)] == [2, 10, 40]
    assert Times(0.25, 4).draw(1, 0.0) == 1


def test_what_a_registration_gives_as_ranges_is_checked():
    for ranges in ([Times(0.5, 2)], {"lr_weights": 2.0}, {"steps": Times(0.5, 2)}):
        with pytest.raises(ConfigError, match="method odd"):
            methods.register("odd", recipe="movement", ranges=ranges)


def test_more_candidates_begin_with_the_same_ones_and_the_first_is_the_recipes():
    few, many = space(4).random(), space(16).random()
    assert many[:4] == few and few[0] == {"lr_weights": 0.01, "shape": "a"}
    assert len({one["lr_weights"] for one in many}) == 16
    assert {one["shape"] for one in space(64).random()} == {"a", "b", "c"}
    assert space(4, "another task").random()[1:] != few[1:]


def test_methods_get_the_same_draws_for_a_range_of_the_same_name():
    alone = space(8, lr_weights=Times(0.25, 4)).random()
    beside = space(8, lr_weights=Times(0.25, 4), lr_scores=Times(0.5, 2)).random()
    assert [one["lr_weights"] for one in alone] == [one["lr_weights"] for one in beside]


def test_without_ranges_there_is_nothing_to_search():
    assert Space({}, {}, 8, "", 100).random() == [{}]


def test_a_rate_of_zero_and_a_value_that_is_not_there_are_not_searched():
    values = {"lr_weights": Value(1e-3, ""), "lr_scores": Value(0.0, "")}
    assert applicable(RATES, values) == {"lr_weights": RATES["lr_weights"]}


def finish(search, score) -> list[int]:
    """Run a search with a made-up metric; returns how many candidates it asked for each time."""
    asked = []
    while wishes := search.ask():
        asked.append(len(wishes))
        found = [Tried(w.values, score(w.values), 0.1, True, w.steps) for w in wishes]
        search.tell(found)
    return asked


def near_four_hundredths(values) -> float:
    return 100 - 10 * abs(np.log(values["lr_weights"] / 0.04))


def test_a_random_search_asks_for_all_candidates_at_once():
    search = Random(space(8))
    assert finish(search, near_four_hundredths) == [8] and len(search.tried) == 8


def test_halving_trains_the_better_half_for_longer():
    search = Halving(space(8))
    assert finish(search, near_four_hundredths) == [8, 4, 2]
    assert [t.steps for t in search.tried] == [100] * 8 + [200] * 4 + [None] * 2
    last = {t.values["lr_weights"] for t in search.tried if t.steps is None}
    best = sorted(space(8).random(), key=near_four_hundredths)[-2:]
    assert last == {one["lr_weights"] for one in best}


def test_optuna_has_the_same_budget_and_comes_nearer():
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    search, again = (SEARCHES["optuna"](space(16)) for _ in range(2))
    assert finish(search, near_four_hundredths) == [8] + [1] * 8
    finish(again, near_four_hundredths)
    assert [t.values for t in again.tried] == [t.values for t in search.tried]  # it can go on
    first, second = search.tried[:8], search.tried[8:]
    assert max(t.rank for t in second) >= max(t.rank for t in first)


def test_optuna_gives_whole_numbers_and_what_is_among():
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    ranges = {"batch": Times(0.25, 4), "shape": Among("a", "b"), "lr_weights": Times(0.5, 2)}
    values = {"batch": 10, "shape": "neither", "lr_weights": 0.01}
    search = SEARCHES["optuna"](Space(values, ranges, 12, "t", 100))
    finish(search, near_four_hundredths)
    later = [tried.values for tried in search.tried[1:]]
    assert all(type(one["batch"]) is int and one["shape"] in ("a", "b") for one in later)
    assert search.tried[0].values == values and len(later) == 11


def test_the_place_of_a_value_is_where_it_is_drawn():
    assert Times(0.25, 4).place_of(0.02) == 0.5
    one = Times(0.8, 1.6)
    assert one.draw(400.0, one.place_of(400.0)) == 400.0
    among = Among("a", "b", "c")
    assert among.draw("b", among.place_of("b")) == "b" and among.place_of("d") is None


def test_optuna_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match="pip install optuna"):
        SEARCHES["optuna"].check()


# What is chosen ---------------------------------------------------------------------------------


@pytest.fixture
def tuner(planner, tmp_path) -> Tuner:
    return Tuner(planner, tmp_path, run=lambda *job: None, say=lambda line: None)


def chosen(tuner: Tuner, *tried: Tried):
    search = Random(space())
    search.tried = list(tried)
    return tuner._chosen(search)


def test_the_best_that_kept_no_more_than_its_target_is_chosen_of_equal_ones_the_first(tuner):
    found = chosen(
        tuner,
        Tried({"x": 1}, 50.0, 0.1, True),
        Tried({"x": 2}, 90.0, 0.2, False),  # over its target
        Tried({"x": 3}, None, None, True),  # diverged
        Tried({"x": 4}, 70.0, 0.1, True),
        Tried({"x": 5}, 70.0, 0.1, True),
        Tried({"x": 6}, 99.0, 0.1, True, steps=100),  # cut short
    )
    assert [(name, value.value) for name, value in found.given] == [("x", 4)]
    assert [one.chosen for one in found.candidates] == [False, False, False, True, False, False]


def test_where_none_counts_the_recipes_values_stay(tuner):
    found = chosen(tuner, Tried({"x": 1}, None, None, False), Tried({"x": 2}, 90.0, 0.2, False))
    assert found.given[0][1].value == 1
    assert found.given[0][1].source.startswith("the recipe's, kept among")


def test_halving_keeps_the_recipes_values_where_none_counts(tuner):
    search = Halving(space(8))
    while wishes := search.ask():
        search.tell([Tried(w.values, None, None, False, w.steps) for w in wishes[::-1]])
    found = tuner._chosen(search)
    assert {n: v.value for n, v in found.given} == search.tried[0].values
    assert sum(one.chosen for one in found.candidates) == 1


def test_a_factor_of_what_is_no_number_is_an_error():
    for value in (True, (0.9, 0.999), "linear"):
        with pytest.raises(ConfigError, match="range of x is a factor"):
            applicable({"x": Times(0.5, 2)}, {"x": Value(value, "")})


def test_ranges_are_checked_at_the_lowest_target(tuner, monkeypatch):
    """Where all weights remain, no rate of scores changes anything."""
    asked = []
    monkeypatch.setattr(Tuner, "_run", lambda self, jobs, what: asked.extend(jobs))
    units = [Cell("movement", "sst2", density, False, 0) for density in (1.0, 0.1, 0.5)]
    tuner.idle(units)
    assert {jobs[-1].trial.density for jobs in asked} == {0.1}


def test_halving_of_a_method_that_drives_a_penalty_is_refused(tuner, monkeypatch):
    halved = replace(tuner.planner, conditions=Conditions(tune=4, search="halving"))
    given = (("penalty", 10.0),)
    with pytest.raises(ConfigError, match="halving cannot compare candidates of l0"):
        replace(tuner, planner=halved).check([Cell("l0", "sst2", 0.1, False, 0, given)])


def test_an_end_that_training_refuses_names_its_range(tuner, monkeypatch):
    monkeypatch.setitem(methods["magnitude"].ranges, "warmup", Times(0.25, 20))
    with pytest.raises(ConfigError, match=r"ranges of magnitude give warmup .*must be in \[0, 1\)"):
        tuner.check([Cell("magnitude", "sst2", 0.1, False, 0)])


def test_a_range_of_a_value_that_a_method_does_not_take_is_an_error(tuner, monkeypatch):
    entry = methods["magnitude"]
    monkeypatch.setitem(entry.ranges, "tempo", Times(0.5, 2))
    with pytest.raises(ConfigError, match="unknown range of a value 'tempo'"):
        tuner.ranges(Cell("magnitude", "sst2", 0.1, False, 0))


def test_a_value_that_the_suite_sets_is_not_searched(tuner):
    free = Cell("magnitude", "sst2", 0.1, False, 0)
    fixed = Cell("magnitude", "sst2", 0.1, False, 0, (("lr_weights", 1e-4),))
    assert set(tuner.ranges(free)) == {"lr_weights", "lr_head"}
    assert set(tuner.ranges(fixed)) == {"lr_head"}


# A whole run ------------------------------------------------------------------------------------

PLUGIN = """
from zoo import Among, Times, register_method
from methods.movement import movement

@register_method("plain_one", recipe="movement")
def plain_one(density, **hyper):
    "Without ranges."
    return movement(density, **hyper)

@register_method("ranged", recipe="movement", ranges={"lr_weights": Times(0.5, 2), "power": Among(1, 3)})
def ranged(density, *, start, stop, power=3):
    "With ranges of its own, one of them of a value that no recipe gives."
    return movement(density, start=start, stop=stop, power=power)
"""


@pytest.fixture
def tune(run, checkpoint, sst2, tmp_path):
    """Tune methods of a plugin on SST-2: (*options) -> exit code, stdout, stderr."""
    (tmp_path / "mine.py").write_text(f"# {tmp_path.name}\n{PLUGIN}")  # another file each time
    given = ["--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)]
    given += ["--tasks", "sst2", "--plugin", str(tmp_path / "mine.py"), "--max-steps", "16"]

    def call(*options: str):
        return run(*given, *options)

    return call


def test_a_plugin_is_tuned_with_its_ranges_or_with_the_defaults(tune, tmp_path):
    names = ("--methods", "plain_one,ranged", "--tune", "3")
    code, out, err = tune(*names)
    assert code == 0, err
    assert "plain_one: lr_scores is not searched" in out
    folder = tmp_path / "results" / "smoke"
    results = {r.trial.method: r for r in load_folder(folder).results}
    tried = {name: [set(c.values) for c in r.candidates] for name, r in results.items()}
    assert tried == {
        "plain_one": [{"lr_weights", "lr_head"}] * 3,
        "ranged": [{"lr_weights", "power"}] * 3,
    }
    for result in results.values():
        (best,) = (c for c in result.candidates if c.chosen)
        settings = result.trial.settings
        assert {name: settings[name] for name in best.values} == best.values
        assert best.metric == max(c.metric for c in result.candidates)
        source = result.environment.sources["lr_weights"]
        assert "among 3 candidates" in source and "examples of the training set" in source
        assert result.trial.train.tune == 3 and not result.trial.choosing
    page = (folder / "LEADERBOARD.md").read_text()
    assert "TUNED, 3 candidates each" in page and "Candidates among which" in page
    (table,) = collect(folder).tables
    assert len(candidate_grid(table).rows) == 6
    ids = {
        json.loads(p.read_text())["trial"]["choosing"] for p in (folder / "tuning").glob("*.json")
    }
    assert ids == {True}
    code, out, _ = tune(*names)  # all is there
    assert "candidates: 6 trials, 6 done, 0 to run" in out and "2 trials: 2 done" in out
    code, out, _ = tune("--methods", "plain_one,ranged", "--tune", "4")  # goes on, apart
    assert "candidates: 8 trials, 6 done, 2 to run" in out
    assert len(collect(folder).tables) == 2


def test_tuned_and_released_values_and_other_budgets_have_tables_of_their_own(tune, tmp_path):
    for more in ((), ("--tune", "2"), ("--tune", "2", "--search", "halving")):
        code, _, err = tune("--methods", "ranged", *more)
        assert code == 0, err
    words = [" ".join(table.key.words) for table in collect(tmp_path / "results" / "smoke").tables]
    assert len(words) == 3 and sum("TUNED" in one for one in words) == 2
    assert sum("candidates by halving" in one for one in words) == 1


def test_a_distilled_student_learns_from_a_teacher_that_was_tuned_like_it(tune, tmp_path):
    code, _, err = tune("--methods", "ranged", "--tune", "2", "--distill", "on")
    assert code == 0, err
    found = {r.trial.method: r.trial for r in load_folder(tmp_path / "results" / "smoke").results}
    assert found["ranged"].teacher == found["dense"].id and found["dense"].train.tune == 2


def test_a_dry_run_shows_what_would_be_searched_and_runs_nothing(tune, tmp_path):
    code, out, _ = tune("--methods", "ranged", "--tune", "5", "--dry-run")
    assert code == 0 and "1 x 5 candidates" in out and "power one of 1, 3" in out
    assert not (tmp_path / "results" / "smoke" / "tuning").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tune", "1"), "at least 2"),
        (("--search", "halving"), "give --tune too"),
        (("--tune", "4", "--search", "grid"), "grid"),
    ],
)
def test_wrong_options_are_answered_on_one_line(tune, options, message):
    code, _, err = tune("--methods", "ranged", *options)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_value_that_matters_is_not_taken_for_idle(tune):
    """The rate of scores beside a penalty, and of weights."""
    code, out, err = tune("--methods", "smp_l,magnitude", "--tune", "2")
    assert code == 0, err
    assert "smp_l: lr_scores" not in out and "lr_weights is not searched" not in out


# Is the comparison fair? ------------------------------------------------------------------------


def candidates() -> dict[str, np.ndarray]:
    """Per method the metrics (candidates, tasks, seeds) of a calibration of the laboratory."""
    found = defaultdict(lambda: defaultdict(dict))
    with (Path(__file__).parent / "fixtures" / "candidates.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["lr_weights"], row["lr_scores"], row["penalty"]
            of_task = found[row["method"]][key].setdefault(row["task"], {})
            of_task[row["seed"]] = float(row["metric"])
    return {
        method: np.array(
            [[sorted(seeds.values()) for seeds in one.values()] for one in own.values()]
        )
        for method, own in found.items()
    }


def told_apart(metrics: np.ndarray, seeds: int, boards: int, shared: bool) -> float:
    """How often one method that is entered twice differs from itself: candidates have the mean of
    their metrics and the spread of their seeds; both entries see the same noise of the search if it
    is `shared`, as it is with the same draws and the same seed."""
    rng = np.random.default_rng([seeds, boards, shared])
    truth = metrics.mean(2)
    spread = np.sqrt((metrics.std(2, ddof=1) ** 2).mean(0))
    wrong = 0
    for _ in range(boards):
        noise = spread * rng.standard_normal((2, *truth.shape))
        best = [(truth + noise[0 if shared else i]).argmax(0) for i in range(2)]
        values = {
            str(i): [
                (truth[one[t], t] + spread[t] * rng.standard_normal(seeds)).tolist()
                for t in range(truth.shape[1])
            ]
            for i, one in enumerate(best)
        }
        wrong += against("0", values)["1"] <= ALPHA
    return wrong / boards


def test_one_method_entered_twice_is_told_apart_in_at_most_five_percent():
    boards = 200
    rates = {m: told_apart(metrics, 5, boards, True) for m, metrics in candidates().items()}
    assert len(rates) == 6
    most = 0.05 + 2 * (0.05 * 0.95 / boards) ** 0.5
    assert all(rate <= most for rate in rates.values()), rates
    assert np.mean(list(rates.values())) <= 0.05
    apart = [told_apart(m, 5, boards, False) for m in candidates().values()]
    assert np.mean(apart) > 0.06  # what draws and seeds of one's own would do


def test_no_suite_uses_the_seed_of_candidates():
    from tasks.scales import base, tiny
    from zoo.registry import suites

    used = {c.seed for scale in (tiny(), base()) for entry in suites for c in entry.make(scale)}
    assert tuning.SEED not in used
