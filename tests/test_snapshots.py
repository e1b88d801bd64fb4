"""Snapshots: a trial that was ended anywhere gives the result of one that was not."""

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import run_benchmark
from tests.helpers import finished, given_for, results_of, start_command
from zoo import Cell, Score, learned, register_method
from zoo.engine import snapshots
from zoo.engine.build import Resources
from zoo.engine.snapshots import KEPT, STATE, TENSORS, TRAINING, Snapshots
from zoo.engine.train import run_trial
from zoo.errors import Terminated
from zoo.records.result import Cost, Result
from zoo.records.storage import SUMS, seal
from zoo.records.trial import Trial
from zoo.registry import methods

STEPS = 9
GIVEN = {"batch": 20, "evaluate_every": 2, "steps": STEPS}
"""Three steps are an epoch: most steps end in the middle of one."""


@pytest.fixture
def kept(resources, tmp_path) -> Resources:
    """Resources with a snapshot after every step."""
    return replace(resources, snapshots=str(tmp_path / "training"), snapshot_minutes=0.0)


def trial_of(planner, resources, name: str, **given: Any) -> Trial:
    """A trial with dropout and, where methods prune, with a teacher, which has run."""
    facts = methods[name].facts
    values = tuple({**GIVEN, **dict(given_for(name, 30.0)), **given}.items())
    cell = Cell(name, "sst2", 0.3 if facts.prunes else 1.0, facts.prunes, 0, values)
    *teachers, last = planner.jobs([cell])
    for job in teachers:
        run_trial(job.trial, replace(resources, keep_outputs=True, snapshots=""))
    return last.trial


def ended_after(monkeypatch, trial: Trial, resources: Resources, step: int) -> None:
    """Run a trial whose process ends after a step, a snapshot written."""
    written = Snapshots.after_step

    def end(self: Snapshots, trainer: Any) -> None:
        written(self, trainer)
        if trainer.taken == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Snapshots, "after_step", end)
        run_trial(trial, resources)


def told(result: Result) -> Result:
    """A result without its times."""
    return replace(result, cost=Cost(0.0, 0.0, 0))


def disturbed() -> None:
    """Whatever else a new process has drawn."""
    torch.manual_seed(time.time_ns() % 1000)
    np.random.seed(time.time_ns() % 1000)
    random.seed(time.time_ns())


@pytest.mark.parametrize("name", [entry.name for entry in methods])
def test_a_trial_goes_on_bit_for_bit(planner, resources, kept, monkeypatch, name):
    """After steps in the middle of an epoch and of a ramp, at an evaluation, and once again."""
    trial = trial_of(planner, resources, name)
    whole = run_trial(trial, resources)
    for step in (1, 4, 8):
        ended_after(monkeypatch, trial, kept, step)
        disturbed()
    folder = Path(kept.snapshots) / trial.id
    assert [path.name for path in sorted(folder.iterdir())] == ["000000007", "000000008"]
    result = run_trial(trial, kept)
    assert told(result) == told(whole)
    assert result.curve == whole.curve and len(whole.curve) == 5
    assert result.cost.seconds > result.cost.evaluation_seconds > 0


def test_statistics_passes_and_precision_go_on_too(planner, resources, kept, monkeypatch):
    """Scores that observe, several passes a step, bfloat16."""

    def moving(layer: Any, upstream: torch.Tensor) -> None:
        layer.score.mul_(0.9).add_(upstream.abs())

    with_statistics = replace(learned, observe=moving)
    assert isinstance(with_statistics, Score)

    @register_method("snapshot_statistics", recipe="movement")
    def made(density: float, *, start: float, stop: float) -> Any:
        from methods.magnitude import magnitude

        return replace(magnitude(density, start=start, stop=stop), score=with_statistics)

    try:
        for given in ({}, {"accumulation": 4}):
            trial = trial_of(planner, resources, "snapshot_statistics", **given)
            trial = replace(trial, train=replace(trial.train, precision="bfloat16"))
            whole = run_trial(trial, resources)
            ended_after(monkeypatch, trial, kept, 5)
            assert told(run_trial(trial, kept)) == told(whole)
    finally:
        del methods._entries["snapshot_statistics"]


def test_layers_that_data_chose_go_on_too(planner, resources, kept, monkeypatch):
    trial = trial_of(planner, resources, "drop_layers", rule="block_influence", examples=12)
    whole = run_trial(trial, resources)
    ended_after(monkeypatch, trial, kept, 4)
    assert told(run_trial(trial, kept)) == told(whole)


def test_damaged_and_foreign_snapshots_are_named_and_not_used(
    planner, resources, kept, monkeypatch
):
    trial = trial_of(planner, resources, "smp_s")
    whole = run_trial(trial, resources)
    ended_after(monkeypatch, trial, kept, 6)
    last, before = sorted((Path(kept.snapshots) / trial.id).iterdir(), reverse=True)
    content = bytearray((last / TENSORS).read_bytes())
    content[len(content) // 2] ^= 1
    (last / TENSORS).write_bytes(content)
    result = run_trial(trial, kept)
    assert told(replace(result, notes=whole.notes)) == told(whole)
    (note,) = [note for note in result.notes if "000000006" in note]
    assert "is not used: it is damaged" in note
    assert note.endswith("tensors.safetensors is not what was written")
    snapshots.remove(Path(kept.snapshots) / trial.id)
    ended_after(monkeypatch, trial, kept, 8)
    for path in (Path(kept.snapshots) / trial.id).iterdir():
        state = json.loads((path / STATE).read_text())
        state["environment"][1] = "torch 1.0"
        (path / STATE).write_text(json.dumps(state))
        (path / SUMS).unlink()
        seal(path)
    ended_after(monkeypatch, trial, kept, 2)  # which begins anew, and keeps snapshots of its own
    assert [path.name[-1] for path in sorted((Path(kept.snapshots) / trial.id).iterdir())] == [
        *"12"
    ]
    result = run_trial(trial, kept)
    assert told(replace(result, notes=whole.notes)) == told(whole)
    assert not any("snapshot" in note for note in result.notes)
    assert KEPT == 2 and before.name == "000000005"


def test_a_snapshot_that_cannot_be_written_is_a_note(planner, resources, kept, monkeypatch):
    trial = trial_of(planner, resources, "smp_s")
    monkeypatch.setattr(snapshots, "whole_folder", broken)
    result = run_trial(trial, kept)
    assert result.ok and len([n for n in result.notes if n.startswith("no snapshot")]) == STEPS - 1


def broken(target: Path) -> Any:
    raise OSError("No space left on device")


def test_a_trial_that_is_asked_to_end_writes_a_snapshot_first(planner, resources, kept):
    kept = replace(kept, snapshot_minutes=60.0)
    trial = trial_of(planner, resources, "smp_s")
    assert not snapshots.ask_to_end()  # none trains
    asked = []

    def ask(self: Any) -> str:
        asked.append(snapshots.ask_to_end())
        return ""

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Terminated):
        patched.setattr("zoo.engine.train.tell", lambda text: ask(text))
        run_trial(trial, kept)
    assert asked == [True]
    assert [p.name for p in (Path(kept.snapshots) / trial.id).iterdir()] == ["000000001"]
    assert snapshots.asked_to_end() and not snapshots.ask_to_end()
    snapshots._asked.clear()  # the process would have ended
    assert told(run_trial(trial, kept)) == told(run_trial(trial, resources))


SLOW = """
import os
import time
from dataclasses import replace
from methods.smp import smp_l
from zoo import register_method

@register_method("slow", recipe="smp_l")
def slow(density, **hyper):
    made = smp_l(density, **hyper)
    def level(step, total):
        time.sleep(float(os.environ.get("NAP", "0.5")))
        return made.level(step, total)
    return replace(made, level=level)
"""


SLOW_RUN = ("--plugin", "slow.py", "--methods", "slow", "--seeds", "0", "--executor", "inline")


@pytest.fixture(scope="module")
def untouched(here):
    """The result of a trial that nothing ended; and the plugin."""
    (here / "slow.py").write_text(SLOW)
    finished(start_command(here, "apart", *SLOW_RUN, "--checkpoint-minutes", "0", NAP="0"))
    (result,) = results_of(here / "apart" / "smoke").values()
    return result


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_machine_that_is_taken_away_loses_no_step(here, untouched, jobs):
    """SIGTERM in the middle of a trial, in this process and in a worker; the same command goes on
    and gives the result of a run without an end."""
    given = [*SLOW_RUN, "--jobs", jobs]
    process = start_command(here, f"taken{jobs}", *given)
    running = here / f"taken{jobs}" / ".cache" / "running"
    while not any("step" in path.read_text() for path in running.glob("*.txt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=90)
    assert process.returncode == 143, out + err
    suite = here / f"taken{jobs}" / "smoke"
    assert not results_of(suite)
    (snapshot,) = (suite / TRAINING).glob("*/[0-9]*")
    finished(start_command(here, f"taken{jobs}", *given, NAP="0"))
    (result,) = results_of(suite).values()
    for part in ("cost", "environment", "checksum"):
        result.pop(part)
    assert result == {name: untouched[name] for name in result}
    assert 1 < int(snapshot.name) < 12
    assert not (suite / TRAINING / snapshot.parent.name).exists()


def test_state_that_is_not_stored_and_networks_that_changed_are_notes(
    planner, resources, kept, monkeypatch
):
    trial = trial_of(planner, resources, "smp_s")
    ended_after(monkeypatch, trial, kept, 4)
    for path in (Path(kept.snapshots) / trial.id).iterdir():
        content = snapshots._read_files(path)
        tensors = {n: t for n, t in content.tensors.items() if not n.startswith("score.")}
        (path / SUMS).unlink()
        snapshots._write_files(path, snapshots.Content(tensors, content.state))
    result = run_trial(trial, kept)
    assert sum("of another network" in note for note in result.notes) == KEPT
    snapshots.remove(Path(kept.snapshots) / trial.id)
    plain = torch.optim.AdamW.step

    def with_own_state(self: Any, closure: Any = None) -> Any:
        self.state["distance"] = {"d": 1.0}
        return plain(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", with_own_state)
    result = run_trial(trial, kept)
    assert any("keeps state that belongs to no parameter" in note for note in result.notes)


def test_snapshots_lie_beside_the_results_of_their_trials(tmp_path, monkeypatch):
    """Those of candidates that --tune tries too: a result removes what is beside it."""
    seen: list[Any] = []
    monkeypatch.setattr(run_benchmark, "longest_first", lambda jobs, planner: jobs)
    monkeypatch.setattr(run_benchmark, "resources", lambda *_: Resources("model", None, "cache"))
    monkeypatch.setattr(
        run_benchmark, "executor", lambda settings: lambda *given: seen.append(given)
    )
    for minutes in (10.0, 0.0):
        settings: Any = SimpleNamespace(minutes=minutes, timeout=0.0, plugins=(), save="none")
        planner: Any = SimpleNamespace(checkpoint=None)
        state: Any = SimpleNamespace(jobs=["job"])
        run_benchmark.execute(planner, state, settings, tmp_path / "tuning", print)
    found = [given[1].snapshots for given in seen]
    assert found == [str(tmp_path / "tuning" / TRAINING), ""]
