"""Results that contradict themselves are refused, and those that contradict others are left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboard import prose, write
from leaderboard.__main__ import main
from leaderboard.changes import compare_folders
from leaderboard.collect import collect
from leaderboard.contradictions import contradictions, most_say
from tests.helpers import a_remaining, a_result, a_trial
from zoo.engine.evaluate import shares
from zoo.inputs.task import Evaluation
from zoo.records.arrays import Answers, Distribution, planes_of, right_of
from zoo.records.consistent import check_consistent
from zoo.records.packed import pack_bits, pack_classes, pack_sketch, pack_values
from zoo.records.result import Best, Divergence, Matrix, Parameters, Point, Result, Steps
from zoo.records.storage import load_folder, load_result, result_path, save

EIGHT = pack_bits(np.arange(10) < 8)
"""Ten examples, eight of them right."""


def right(number: int, of: int = 10) -> dict[str, str]:
    """The bits of one split."""
    return {"validation": pack_bits(np.arange(of) < number)}


def scored(trial=None, *, bits: int, metric: float, of: int = 10, **changes) -> Result:
    """A result with so many right answers, and an accuracy."""
    return a_result(trial, metrics={"acc": metric}, correct=right(bits, of), **changes)


def test_the_results_of_the_helper_are_consistent():
    check_consistent(a_result())
    check_consistent(scored(bits=8, metric=80.0, shares={"validation": "acc"}))
    check_consistent(
        a_result(metrics={"acc": None}, status="diverged", diverged=Divergence(3, "inf"))
    )


NO_MASK = Parameters(trainable=5, values=10, other=5, mask_bits=0, new=15, artifact_bytes=60)
HALVES = Distribution((-1.0, 1.0), (50_000, 50_000), (10_000, 1))
SAME = {"validation": "acc"}
CASES = {
    "remaining.density is 0.1, but remaining.matrices keep 10 of 10, which is 1": {
        "remaining": replace(a_remaining(0.1), matrices={"m": Matrix(10, 10, 0, "Q")})
    },
    "remaining.matrices has no matrix": {"remaining": replace(a_remaining(0.1), matrices={})},
    "the sum of distribution.kept is 10001, but that of remaining.matrices is 10000": {
        "distribution": HALVES
    },
    "the sum of distribution.all is 99999, but that of remaining.matrices is 100000": {
        "distribution": Distribution((-1.0, 1.0), (99_999,), (10_000,))
    },
    "parameters.new is 14, but values, other and mask_bits make 15": {
        "parameters": replace(NO_MASK, new=14)
    },
    "parameters.artifact_bytes is 61, but values, other and mask_bits make 60": {
        "parameters": replace(NO_MASK, artifact_bytes=61)
    },
    "steps must rise from taken to recipe, got 301 taken, 300 planned, 300 of the recipe": {
        "steps": Steps(301, 300, 300)
    },
    "steps must rise from taken to recipe, got 5 taken, 301 planned, 300 of the recipe": {
        "steps": Steps(5, 301, 300)
    },
    "metrics.acc is 100, but correct.validation has 8 right of 10, which is 80": {
        "metrics": {"acc": 100.0},
        "correct": right(8),
        "shares": SAME,
    },
    "the number of answers.validation is 9, but that of correct.validation is 10": {
        "correct": right(8),
        "answers": {"validation": Answers("overlap", pack_values(np.zeros(9)))},
    },
    "steps.taken is 300, but curve ends at 299": {
        "curve": (Point(299, 0.1, 0.5, 0.1, {"acc": 80.0}),)
    },
    "the steps of curve must rise": {"curve": 2 * (Point(300, 0.1, 0.5, 0.1, {"acc": 80.0}),)},
    "remaining.density is 0.1, but curve ends at 0.2": {
        "curve": (Point(300, 0.1, 0.5, 0.2, {"acc": 80.0}),)
    },
    "metrics.acc is 80, but curve ends at 79.9": {
        "curve": (Point(300, 0.1, 0.5, 0.1, {"acc": 79.9}),)
    },
    "metrics.f1 is none, but curve ends at 70": {
        "curve": (Point(300, 0.1, 0.5, 0.1, {"acc": 80.0, "f1": 70.0}),)
    },
    "best.metrics.acc is 99, but curve at step 300 has 80": {"best": Best(1, 300, {"acc": 99.0})},
    "best.step is 200, but curve has no evaluation there": {"best": Best(1, 200, {"acc": 80.0})},
}


@pytest.mark.parametrize("message", CASES)
def test_a_result_that_contradicts_itself_is_refused(tmp_path, message):
    made = a_result(**CASES[message])
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_consistent(made)
    with pytest.raises(ValueError, match=message):
        save(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_rounding_is_no_contradiction():
    check_consistent(scored(bits=1, of=3, metric=100 / 3 + 1e-9, shares=SAME))
    with pytest.raises(ValueError, match="metrics.acc is 33.33, but .* which is 33.33333333"):
        check_consistent(scored(bits=1, of=3, metric=33.33, shares=SAME))


def test_what_is_undefined_or_cut_short_is_no_contradiction():
    lost = {"status": "diverged", "diverged": Divergence(5, "nan"), "steps": Steps(5, 300, 300)}
    early = (Point(3, 0.5, 0.5, 0.6, {"acc": 50.0}),)
    best = Best(0, None, {"acc": None})
    check_consistent(a_result(metrics={"acc": None}, curve=early, best=best, **lost))
    check_consistent(a_result(metrics={"acc": None}, correct=right(8), shares=SAME))
    last = Point(300, 0.1, 0.5, 0.1, {"acc": 80.0})  # a split that is missing here
    check_consistent(a_result(metrics={"acc": 80.0, "acc_mm": None}, curve=(last,)))
    check_consistent(a_result(steps=Steps(5, 5, 300)))


def test_a_forged_file_is_named_apart_and_its_trial_left_to_run(tmp_path):
    """kept = total with a density of 0.1, in a file without a checksum."""
    save(a_result(a_trial(seed=1)), tmp_path)
    path = save(a_result(), tmp_path)
    content = json.loads(path.read_text())
    del content["checksum"]
    (matrix,) = content["remaining"]["matrices"].values()
    matrix["kept"] = matrix["total"]
    path.write_text(json.dumps(content))
    page = write(tmp_path, figures=False).read_text()
    assert f"Warning: {path.name} cannot be read" in page and "1 results" in page
    assert "remaining.density is 0.1, but remaining.matrices keep 100000 of 100000" in page
    with pytest.raises(ValueError, match="remaining.density is 0.1"):
        load_result(path)


def test_the_share_of_right_answers_is_found_where_a_metric_is_it():
    half = np.array([True, False])
    found = {
        "a": Evaluation({"f1": 66.7, "acc": 50.0}, half),
        "b": Evaluation({"mcc": None, "f1": 66.7}, half),
        "c": Evaluation({"pearson": 50.0}, None),
        "d": Evaluation({"acc": None}, half[:0]),
    }
    assert shares(found) == {"a": "acc"}


# Arrays -----------------------------------------------------------------------------------------


def test_right_answers_are_counted_without_the_padding():
    assert right_of(EIGHT, "x") == (10, 8)
    assert right_of("10://8=", "x") == (10, 10)  # all padding bits are set
    assert right_of("0:", "x") == (0, 0)


@pytest.mark.parametrize(
    "text",
    ["", "10", "10:", "10:AA==", "10:AAAA", "10:AAA=:AAA=", "-1:", "²:AA==", "1:A?==", "1e1:AAA="],
)
def test_what_is_no_array_of_bits_is_refused(text):
    with pytest.raises(ValueError, match="x holds no"):
        planes_of(text, "x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Answers("classes", "9:AAA"), "said holds no base64"),
        (lambda: Answers("classes", "8:" + ":".join(9 * ["AA=="])), "said holds no bits"),
        (lambda: Answers("values", "AAA=", "AAAAAA=="), "said and truth have other lengths"),
        (lambda: Answers("overlap", "AA=="), "said holds no whole number of values"),
        (lambda: Distribution((0.0, 1.0), (1, 2), (1,)), "all and kept must have as many bins"),
        (lambda: Distribution((0.0, 1.0), (1, 2), (1, 3)), r"kept must be in \[0, all\]"),
        (lambda: Distribution((1.0, 1.0), (1,), (1,)), "range must be two numbers, the smaller"),
        (lambda: Distribution((0.0, 1.0), (1,), (1,), (), "AA=="), "score_range must be two"),
        (
            lambda: Distribution((0.0, 1.0), (1, 1), (1, 1), (0.0, 1.0), "AAAA"),
            "scores have 3 bytes for 2 bins",
        ),
        (lambda: Matrix(1, 2, -1, "Q"), r"layer must be in \[0, 500\), got -1"),
        (lambda: Matrix(1, 2, 0, "Q", (1.5,)), r"attention_heads must be in \[0, 1\]"),
        (lambda: Matrix(1, 2, 0, "Q", 501 * (0.5,)), "there are more than 500 attention_heads"),
        (lambda: a_result(sketch="AAAA"), "sketch holds no whole number of values"),
        (lambda: a_result(status="fine"), "status must be ok or diverged, got 'fine'"),
    ],
)
def test_arrays_that_cannot_be_unpacked_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_packed_is_accepted():
    Answers("classes", pack_classes(np.array([0, 3, 255])))
    Answers("values", pack_values(np.zeros(3)), pack_values(np.zeros(3)))
    Answers("of a later version", "?")
    a_result(sketch=pack_sketch(np.zeros(256)))


# Several results --------------------------------------------------------------------------------


def several(folder: Path, *made: Result) -> Path:
    for result in made:
        save(result, folder)
    return folder


def test_an_accuracy_against_its_bits_is_left_out_where_other_results_tell(tmp_path):
    """In results without `shares`, as earlier versions wrote them."""
    fair = [
        scored(a_trial(seed=seed), bits=5 + seed, metric=50.0 + 10 * seed) for seed in (0, 1, 2)
    ]
    forged = scored(a_trial(seed=3), bits=8, metric=100.0)
    folder = several(tmp_path / "s", *fair, forged)
    assert load_folder(folder).unreadable == []
    board = collect(folder)
    assert [r.trial.seed for r in board.results] == [0, 1, 2]
    (file,) = board.left_out
    assert file.path == result_path(forged.trial, folder)
    assert file.reason == (
        "metrics.acc is 100, but correct.validation has 80 % right, which is that metric in 3 other"
        " results"
    )


def test_one_that_is_left_out_is_named_on_every_page_and_on_the_terminal(tmp_path, capsys):
    fair = [scored(a_trial(seed=seed), bits=5, metric=50.0) for seed in (0, 1)]
    folder = several(tmp_path / "s", *fair, scored(a_trial(seed=2), bits=50, of=100, metric=50.0))
    name = f"{a_trial(seed=2).id}.json"
    assert main([str(folder)]) == 0
    line = (
        f"left out: {name}: correct.validation has 100 examples, but other results of t 10;"
        " move it away to run its trial again\n"
    )
    assert capsys.readouterr().err == line
    page = (folder / "LEADERBOARD.md").read_text()
    assert f"Warning: {name} is left out" in page and "2 results" in page
    assert "but other results of t 10" in (folder / "leaderboard.html").read_text()
    assert compare_folders(folder, folder).unreadable == 2 * [str(folder / name)]


def test_where_as_many_say_one_thing_as_another_none_counts():
    one, other = scored(bits=5, metric=50.0), scored(a_trial(seed=1), bits=5, of=20, metric=25.0)
    assert set(contradictions([one, other])) == {one.trial.id, other.trial.id}
    assert most_say([1, 2, 2]) == 2 and most_say([1, 2]) is None and most_say([3]) == 3


def test_other_data_other_plugins_and_other_splits_are_no_contradiction():
    one = scored(bits=5, metric=50.0)
    for change in ({"data_sha": "e" * 64}, {"task": "u"}, {"plugin_sha": "x"}, {"choosing": True}):
        assert contradictions([one, scored(a_trial(**change), bits=5, of=20, metric=25.0)]) == {}
    assert contradictions([one, a_result(a_trial(seed=1), correct={"test": EIGHT})]) == {}


def test_metrics_that_are_equal_by_chance_are_no_share():
    """EM and F1 of runs that answer nothing are 0; F1 is not the share of exact answers."""
    nothing = [
        a_result(a_trial(seed=seed), metrics={"f1": 0.0, "em": 0.0}, correct=right(0))
        for seed in range(5)
    ]
    some = [
        a_result(a_trial(seed=seed), metrics={"f1": 55.0, "em": 50.0}, correct=right(5))
        for seed in (5, 6)
    ]
    assert contradictions([*nothing, *some]) == {}
    forged = a_result(a_trial(seed=7), metrics={"f1": 55.0, "em": 99.0}, correct=right(5))
    assert set(contradictions([*nothing, *some, forged])) == {forged.trial.id}


def test_a_task_without_a_share_of_right_answers_is_not_judged():
    found = [
        a_result(a_trial(seed=s), metrics={"mcc": 10.0 * s}, correct=right(5)) for s in range(6)
    ]
    assert contradictions(found) == {}


def test_other_matrices_than_the_seeds_of_a_method_have_are_left_out():
    fair = [a_result(a_trial(seed=seed)) for seed in (0, 1)]
    (matrix,) = fair[0].remaining.matrices.values()
    other = replace(fair[0].remaining, matrices={"m": replace(matrix, layer=1)})
    odd = a_result(a_trial(seed=2), remaining=other)
    assert contradictions([*fair, odd]) == {
        odd.trial.id: "remaining.matrices are not those of other results of movement"
    }
    assert contradictions([*fair, replace(odd, trial=a_trial(method="l0"))]) == {}


def test_committed_results_do_not_contradict_each_other():
    runs = Path(__file__).resolve().parent.parent / "docs" / "runs"
    folders = sorted({path.parent for path in runs.rglob("plan-*.json")})
    board = collect(*folders)
    assert len(board.results) > 400 and prose.excluded(board) == []
