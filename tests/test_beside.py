"""--beside: other checkpoints, fine-tuned without pruning beside a suite on a larger one."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.helpers import WORDS, finished, results_of, save_checkpoint, start_command
from zoo.errors import ConfigError
from zoo.inputs.checkpoint import find_checkpoint
from zoo.runs.beside import dense_cells, every_job, with_checkpoints
from zoo.runs.suites import Cell

GRID = ("--methods", "dense,movement", "--seeds", "0,1", "--densities", "0.5")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two checkpoints beside the usual one: of one layer, and of one layer and other words."""
    folder = tmp_path_factory.mktemp("beside")
    save_checkpoint(folder / "one", layers=1)
    save_checkpoint(folder / "words", layers=1, words=[*WORDS, "bird"])
    return folder / "one", folder / "words"


@pytest.fixture
def local(checkpoint, sst2):
    """Options of a suite on the usual checkpoint, cut to a few steps."""
    return (
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)),
        *("--tasks", "sst2", "--max-steps", "4", *GRID),
    )


def by_model(folder: Path) -> dict[tuple[str, str, int], dict]:
    """The results in a folder by model, method and seed."""
    found = {}
    for result in results_of(folder).values():
        trial = result["trial"]
        found[trial["model"], trial["method"], trial["seed"]] = result
    return found


def test_each_checkpoint_has_dense_trials_of_its_own(run, local, small, checkpoint, tmp_path):
    one, words = map(str, small)
    folder = tmp_path / "results" / "smoke"
    code, out, err = run(*local, "--beside", f"{one},{words}", "--dry-run")
    assert code == 0 and not folder.exists(), err
    assert "beside it, without pruning: one (" in out and "50.00 % of its prunable weights" in out
    assert "8 trials: 0 done, 8 to run" in out and out.count("  (words)") == 2
    assert "dense of one on sst2, recipe released" in out
    code, out, err = run(*local)
    assert code == 0 and "4 trials: 0 done, 4 to run" in out, err
    code, out, err = run(*local, "--beside", one)
    assert code == 0 and "6 trials: 4 done, 2 to run" in out, err
    code, out, err = run(*local, "--beside", f"{one},{words}", "--jobs", "2")
    assert code == 0 and "8 trials: 6 done, 2 to run" in out, err
    found = by_model(folder)
    dense = {(name, "dense", seed) for name in ("small", "one", "words") for seed in (0, 1)}
    assert set(found) == dense | {("small", "movement", seed) for seed in (0, 1)}
    for name, given in (("one", one), ("words", words), ("small", str(checkpoint))):
        own, result = find_checkpoint(given), found[name, "dense", 0]
        assert result["trial"]["model_sha"] == own.sha
        matrices = result["remaining"]["matrices"].values()
        assert sum(matrix["total"] for matrix in matrices) == own.prunable_weights
        assert result["environment"]["options"][:2] == ["--model", name]
        assert result["judgement"]["apart"] is True
    same = {"model": "", "model_sha": ""}
    trials = [found[name, "dense", 0]["trial"] | same for name in ("small", "one", "words")]
    assert trials[0] == trials[1] == trials[2]
    for path in folder.glob("*.json"):
        assert str(small[0].parent) not in path.read_text()


def test_they_are_the_trials_of_a_run_on_that_checkpoint(run, local, small, tmp_path):
    """So that the command of a row finds its result, and a run of its own is not repeated."""
    options = ["--methods", "dense", "--model", str(small[0])]
    assert run(*local, *options)[0] == 0
    code, out, err = run(*local, "--beside", str(small[0]))
    assert code == 0 and "6 trials: 2 done, 4 to run" in out, err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "nowhere/",
            "--beside nowhere/: model nowhere/: neither a folder nor a hub name; a hub name is",
        ),
        ("./nowhere", "--beside ./nowhere: model ./nowhere: no such folder; give a folder or a"),
        ("", "argument --beside: is empty"),
        ("{one},{one}/", "--beside {one}/: the same checkpoint as {one}"),
        ("{large}", "--beside {large}: the same checkpoint as {large}"),
    ],
)
def test_a_wrong_checkpoint_is_one_line(run, local, small, checkpoint, given, message):
    names = {"one": small[0], "large": checkpoint}
    code, _, err = run(*local, "--beside", given.format(**names), "--dry-run")
    (line,) = err.strip().splitlines()
    assert code == 2 and line.startswith("error: ") and message.format(**names) in line


def test_what_its_plan_refuses_names_the_checkpoint(planner, small, monkeypatch):
    both = with_checkpoints(planner, [str(small[0])])
    cells = [Cell("dense", "sst2", 1.0, False, 0)]

    def refuse(self, wanted):
        if self.model == str(small[0]):
            raise ConfigError("too short")
        return []

    monkeypatch.setattr(type(planner), "jobs", refuse)
    with pytest.raises(ConfigError, match=r"^--beside .*one: too short$"):
        every_job(both, cells, lambda model: [])


def test_cells_are_the_suites_own_or_what_would_teach():
    given = (("batch", 8), ("max_length", 16))
    own = Cell("dense", "sst2", 1.0, False, 0, given)
    pruned = [Cell("movement", "sst2", 0.1, True, seed, given) for seed in (0, 1)]
    taught = Cell("dense", "sst2", 1.0, False, 1, (("max_length", 16),))
    assert dense_cells([own, *pruned, *pruned]) == [own, taught]


def test_values_are_chosen_for_them_with_the_same_effort(run, local, small, tmp_path):
    options = ("--beside", str(small[0]), "--tune", "2", "--seeds", "0", "--methods", "dense")
    code, _, err = run(*local, *options)
    assert code == 0, err
    found = by_model(tmp_path / "results" / "smoke")
    assert {name: len(found[name, "dense", 0]["candidates"]) for name in ("small", "one")} == {
        "small": 2,
        "one": 2,
    }


def test_a_run_that_is_killed_goes_on(here):
    save_checkpoint(here / "one", layers=1)
    options = (*GRID, "--executor", "inline", "--beside", "one")
    process = start_command(here, "killed", *options)
    while len(results_of(here / "killed" / "smoke")) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    process.communicate()
    before = set(results_of(here / "killed" / "smoke"))
    out = finished(start_command(here, "killed", *options))
    done, left = map(int, re.search(r"6 trials: (\d) done, (\d) to run", out).groups())
    assert len(before) <= done < 6 and done + left == 6  # its judge may end a trial after it
    finished(start_command(here, "whole", *options))
    again, whole = (results_of(here / name / "smoke") for name in ("killed", "whole"))
    assert set(again) == set(whole) and len(whole) == 6
    for name, result in whole.items():
        assert again[name]["digests"] == result["digests"]
        assert again[name]["metrics"] == result["metrics"]


def test_ray_gives_each_trial_its_checkpoint(here):
    save_checkpoint(here / "one", layers=1)
    options = ("--methods", "dense", "--seeds", "0", "--beside", "one", "--max-steps", "4")
    finished(start_command(here, "ray", *options))
    (large, small) = sorted(results_of(here / "ray" / "smoke").values(), key=_weights)[::-1]
    assert _weights(large) == 2 * _weights(small)
    assert json.dumps(small).count(str(here)) == 0


def _weights(result: dict) -> int:
    return sum(matrix["total"] for matrix in result["remaining"]["matrices"].values())
