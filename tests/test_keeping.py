"""--save: which trained models are kept, and trials that run again for theirs."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers import a_result, a_trial
from zoo.runs.keeping import MODELS, Keeper


@pytest.fixture
def local(checkpoint, sst2):
    """Options of a suite on the small checkpoint and data."""
    return (
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)),
        *("--tasks", "sst2", "--max-steps", "5"),
    )


def models(folder: Path) -> list[str]:
    """The names of the models that were kept."""
    return sorted(path.name for path in (folder / "models").glob("[!.]*"))


def test_all_models_are_kept_and_a_lost_one_is_made_again(run, local, tmp_path):
    folder = tmp_path / "results" / "smoke"
    options = (*local, "--methods", "dense,smp_s", "--seeds", "0,1")
    code, out, err = run(*options)
    assert code == 0 and not (folder / "models").exists(), err
    assert "models:" not in out
    code, out, err = run(*options, "--save", "all", "--dry-run")
    assert code == 0 and not (folder / "models").exists(), err
    assert "models: 4 are kept, about 4 MB in all, in models/ of the suite's folder" in out
    assert out.count("runs again, its model was not kept") == 4
    before = {p.name: json.loads(p.read_text()) for p in folder.glob("sst2-*.json")}
    code, out, err = run(*options, "--save", "all")
    assert code == 0 and models(folder) == sorted(Path(name).stem for name in before), err
    for name, result in before.items():
        again = json.loads((folder / name).read_text())
        assert again["metrics"] == result["metrics"] and again["digests"] == result["digests"]
    assert "4 trials: 4 done, 0 to run" in run(*options, "--save", "all")[1]
    shutil.rmtree(folder / "models" / models(folder)[0])
    assert "4 trials: 3 done, 1 to run" in run(*options, "--save", "all")[1]
    assert len(models(folder)) == 4


def test_of_the_seeds_of_a_row_the_best_is_kept(run, local, tmp_path):
    folder = tmp_path / "results" / "smoke"
    options = (*local, "--methods", "dense,movement", "--seeds", "0,1,2", "--save", "best")
    code, out, err = run(*options)
    assert code == 0 and "models: 2 are kept" in out, err
    kept = models(folder)
    assert len(kept) == 2
    results = {p.stem: json.loads(p.read_text()) for p in folder.glob("sst2-*.json")}
    for method in ("dense", "movement"):
        metrics = {n: r["metrics"]["acc"] for n, r in results.items() if f"-{method}-" in n}
        (name,) = [name for name in kept if name in metrics]
        assert metrics[name] == max(metrics.values())
    assert "6 trials: 6 done, 0 to run" in run(*options)[1]
    shutil.rmtree(folder / "models")
    assert "6 trials: 4 done, 2 to run" in run(*options)[1]
    assert models(folder) == kept


def test_a_better_seed_takes_the_place_of_another(tmp_path):
    keeper = Keeper("best", tmp_path)
    scores = [80.0, 90.0, 85.0, 90.0]
    for seed, score in enumerate(scores):
        result = a_result(a_trial(seed=seed), metrics={"acc": score})
        (tmp_path / "models" / result.trial.id).mkdir(parents=True)
        keeper(result)
    other = a_result(a_trial(density=0.5, seed=0), metrics={"acc": 1.0})
    (tmp_path / "models" / other.trial.id).mkdir()
    keeper(other)
    assert models(tmp_path) == sorted([a_trial(seed=1).id, other.trial.id])
    assert not keeper.lacks(other)
    shutil.rmtree(tmp_path / "models")
    assert keeper.lacks(other)
    assert not Keeper("none", tmp_path).lacks(other) and Keeper("all", tmp_path).lacks(other)


def test_what_was_kept_before_stays(tmp_path):
    """Neither a dry run nor `best` removes what `all` kept; `best` goes on where it stopped."""
    one, other = (a_result(a_trial(seed=seed)) for seed in (0, 1))
    for result in (one, other):
        (tmp_path / MODELS / result.trial.id).mkdir(parents=True)
    for looking in (True, False):
        keeper = Keeper("best", tmp_path, looking=looking)
        keeper(one), keeper(other)
        assert len(list((tmp_path / MODELS).glob("[!.]*"))) == 2
    clean = tmp_path / "clean"
    first = Keeper("best", clean)
    (clean / MODELS / one.trial.id).mkdir()
    first(one)
    again = Keeper("best", clean)  # interrupted, and started anew
    (clean / MODELS / other.trial.id).mkdir()
    again(one), again(other)
    assert len(list((clean / MODELS).glob("[!.]*"))) == 1
    Keeper("all", clean)
    (clean / MODELS / "another").mkdir()
    last = Keeper("best", clean)
    assert last.spared >= {"another"}
