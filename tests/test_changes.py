"""python -m leaderboard compare: what changed, and what is a regression."""

from leaderboard.__main__ import main
from leaderboard.changes import compare_folders
from tests.helpers import a_result, a_trial
from zoo.records.storage import save

SEEDS = 4


def fill(folder, by_method, seeds=SEEDS, **changes):
    for method, score in by_method.items():
        for task in ("a", "b"):
            for seed in range(seeds):
                trial = a_trial(method=method, task=task, seed=seed, **changes)
                save(a_result(trial, metrics={"acc": score + 0.5 * seed}), folder)
    return folder


def test_a_regression_has_an_exit_code(tmp_path, capsys):
    old = fill(tmp_path / "old", {"magnitude": 70.0, "movement": 80.0, "smp_s": 60.0, "l0": 50.0})
    new = fill(tmp_path / "new", {"magnitude": 70.0, "movement": 75.0, "smp_s": 65.0, "smp_g": 1.0})
    assert main(["compare", str(old), str(new)]) == 7
    said = capsys.readouterr().out
    assert "Worse: movement at 10 % (tiny, released, without distillation)." in said
    assert "Better: smp_s at 10 %" in said
    assert "Only in" in said and "l0 at 10 %" in said and "smp_g at 10 %" in said
    assert "24 trials are in both folders; 16 of them have other metrics." in said
    by_name = {c.row.method: c for c in compare_folders(old, new).changes}
    assert by_name["magnitude"].verdict == "equal, seed by seed"
    movement = by_name["movement"]
    assert movement.difference.value == -5.0 and movement.difference.high < 0
    assert movement.p < 0.01
    assert main(["compare", str(new), str(old)]) == 7  # smp_s became worse
    assert main(["compare", str(old), str(old)]) == 0


def test_other_models_and_data_are_compared_by_meaning(tmp_path):
    old = fill(tmp_path / "old", {"movement": 80.0})
    new = fill(tmp_path / "new", {"movement": 70.0}, model_sha="x" * 64, data_sha="y" * 64)
    found = compare_folders(old, new)
    assert found.common == 0 and [c.verdict for c in found.changes] == ["worse"]


def test_few_seeds_are_said_and_no_regression(tmp_path, capsys):
    old = fill(tmp_path / "old", {"movement": 80.0}, seeds=2)
    new = fill(tmp_path / "new", {"movement": 20.0}, seeds=2)
    assert main(["compare", str(old), str(new)]) == 0
    assert "too few seeds to tell" in capsys.readouterr().out
    one = fill(tmp_path / "one", {"movement": 20.0}, seeds=1)
    assert compare_folders(old, one).changes == []
    assert compare_folders(old, one).unjudged == [
        "movement at 10 % (tiny, released, without distillation)"
    ]


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    old = fill(tmp_path / "old", {"movement": 80.0})
    (tmp_path / "empty").mkdir()
    for words in ([str(old), str(tmp_path / "empty")], [str(old), str(tmp_path / "none")]):
        assert main(["compare", *words]) == 2
        assert capsys.readouterr().err.startswith("error: ")
