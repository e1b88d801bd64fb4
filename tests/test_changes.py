"""python -m leaderboard compare: what changed, and what is a regression."""

from leaderboard.__main__ import main
from leaderboard.changes import compare_folders
from tests.helpers import a_result, a_trial
from zoo.records.result import Divergence, Failure
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
    assert (
        "Worse: movement at 10 % (scale tiny, recipe released, without distillation): worse."
        in said
    )
    assert "Better: smp_s at 10 %" in said
    assert "Only in" in said and "l0 at 10 %" in said and "smp_g at 10 %" in said
    assert "24 trials are in both folders; 16 of them have other metrics." in said
    by_name = {c.name.split()[0]: c for c in compare_folders(old, new).changes}
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
    (change,) = compare_folders(old, one).changes
    assert change.verdict == "fewer than 2 seeds on every common task"
    assert main(["compare", str(old), str(one)]) == 0
    assert "fewer than 2 seeds" in capsys.readouterr().out


def test_a_second_data_set_or_model_hides_nothing(tmp_path):
    """Equal hashes go together; the other model's fall is seen."""
    old, new = (
        fill(tmp_path / "old", {"movement": 80.0}),
        fill(tmp_path / "new", {"movement": 80.0}),
    )
    fill(old, {"movement": 70.0}, model_sha="x" * 64)
    fill(new, {"movement": 20.0}, model_sha="x" * 64)
    assert [c.verdict for c in compare_folders(old, new).changes] == [
        "equal, seed by seed",
        "worse",
    ]
    fill(new, {"movement": 60.0}, model_sha="z" * 64)
    found = compare_folders(old, new)
    assert len(found.changes) == 2 and "movement at 10 %" in found.only[1][0]


def test_ranks_give_the_direction_and_the_mean_is_told(tmp_path):
    """Seven of eight seeds gain, one collapses: better in ranks, lower in the mean."""
    old = fill(tmp_path / "old", {"movement": 80.0}, seeds=8)
    new = fill(tmp_path / "new", {"movement": 84.0}, seeds=8)
    for task in ("a", "b"):
        save(a_result(a_trial(task=task, seed=7), metrics={"acc": 5.0}), new)
    (change,) = compare_folders(old, new).changes
    assert change.verdict == "better; lower in the mean" and not change.worse
    (change,) = compare_folders(new, old).changes
    assert change.verdict == "worse; higher in the mean" and change.worse


def test_divergence_failure_and_lost_tasks_are_regressions(tmp_path, capsys):
    old = fill(tmp_path / "old", {"movement": 80.0})
    stop = {"status": "diverged", "diverged": Divergence(7, "nan"), "metrics": {"acc": None}}
    for name in ("diverged", "failed", "lost"):
        new = fill(tmp_path / name, {"movement": 80.0})
        for path in new.glob("a-*.json"):
            path.unlink()
        for seed in range(SEEDS):
            trial = a_trial(task="a", seed=seed)
            if name == "diverged":
                save(a_result(trial, **stop), new)
            elif name == "failed":
                save(Failure(trial, "out of luck"), new)
        (new / "junk.json").write_text("{")
        assert main(["compare", str(old), str(new)]) == 7
        said = capsys.readouterr().out
        assert {
            "diverged": "diverged 4 runs instead of 0",
            "failed": "failed 4 runs instead of 0",
            "lost": "nothing on a any more",
        }[name] in said
        assert "junk.json" in said


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    old = fill(tmp_path / "old", {"movement": 80.0})
    (tmp_path / "empty").mkdir()
    for words in ([str(old), str(tmp_path / "empty")], [str(old), str(tmp_path / "none")]):
        assert main(["compare", *words]) == 2
        assert capsys.readouterr().err.startswith("error: ")
