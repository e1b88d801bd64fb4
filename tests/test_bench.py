"""The bench: what it prints and writes, and that it refuses to time two different things."""

import json
from dataclasses import replace

import pytest

from zoo import bench, losses
from zoo.bench import Geometry, check_same, main
from zoo.errors import TrialError


def test_ratios_beside_the_dense_step(tmp_path, capsys):
    path = tmp_path / "timings.json"
    arms = "random,smp_l,smp_l_taught,as_written_taught"
    size = ["--model-size", "tiny", "--batch", "4", "--tokens", "12"]
    asked = ["--methods", arms, "--pairs", "2", "--steps", "1", "--json", str(path)]
    assert main([*size, *asked]) == 0
    out = capsys.readouterr().out
    record = json.loads(path.read_text())
    assert [timing["arm"] for timing in record["timings"]] == arms.split(",")
    assert record["geometry"] == {"size": "tiny", "batch": 4, "tokens": 12, "density": 0.1}
    for timing in record["timings"]:
        assert 0 < timing["low"] <= timing["ratio"] <= timing["high"]
        assert f"| {timing['arm']} " in out
    assert record["environment"]["device"] in out


def test_what_is_timed_is_what_was_asked_for(tmp_path):
    made = bench.Bench(Geometry("tiny", 4, 12, 0.1), tmp_path, 1)
    trainer = made.arm("smp_l")
    assert trainer.run.data.train.lengths.tolist() == 256 * [12]
    trainer.step()
    kept = trainer.run.masked.remaining().density
    assert kept == pytest.approx(trainer.run.method.level(trainer.taken, bench.STEPS), abs=1e-3)
    assert 0.05 < kept < 0.5  # steps from the middle of a run


def test_other_steps_are_not_timed(tmp_path, monkeypatch):
    """A gradient of the penalty that is wrong by a tenth is found before anything is timed."""
    check_same(tmp_path / "same")
    whole = losses.mean_sigmoid_gradient
    wrong = lambda score, matrices: 1.1 * whole(score, matrices)  # noqa: E731
    original = bench.build

    def altered(trial, place):
        run = original(trial, place)
        run.masked.method = replace(run.method, penalty=replace(run.method.penalty, gradient=wrong))
        return run

    monkeypatch.setattr(bench, "build", altered)
    with pytest.raises(TrialError, match="differ at encoder"):
        check_same(tmp_path / "other")


def test_an_unknown_arm_is_named(capsys):
    assert main(["--methods", "movment"]) == 2
    assert "did you mean 'movement'" in capsys.readouterr().err
