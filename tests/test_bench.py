"""The bench: what it prints and writes, and that it refuses to time two different things."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import DEVICES
from zoo import TrialError, mean_sigmoid_gradient
from zoo.registry import methods
from zoo.tools import arms
from zoo.tools.arms import Bench, check_same
from zoo.tools.bench import main
from zoo.tools.synthetic import Geometry


def test_ratios_beside_the_dense_step(tmp_path, capsys):
    path = tmp_path / "timings.json"
    names = "random,smp_l,smp_l:distilled,smp_l:as_written_distilled"
    size = ["--model-size", "tiny", "--batch", "4", "--tokens", "12"]
    asked = ["--methods", names, "--pairs", "2", "--steps", "1", "--json", str(path)]
    assert main([*size, *asked]) == 0
    out = capsys.readouterr().out
    record = json.loads(path.read_text())
    assert [timing["arm"] for timing in record["timings"]] == names.split(",")
    assert record["geometry"] == {"size": "tiny", "batch": 4, "tokens": 12, "density": 0.1}
    for timing in record["timings"]:
        assert 0 < timing["low"] <= timing["ratio"] <= timing["high"]
        assert f"| {timing['arm']} " in out
    assert record["environment"]["device"] in out


def test_the_timed_step_is_the_one_that_was_asked_for(tmp_path):
    trainer = Bench(Geometry("tiny", 4, 12, 0.1), tmp_path, 1).arm("smp_l")
    assert trainer.run.data.train.lengths.tolist() == 256 * [12]
    trainer.step()
    kept = trainer.run.masked.remaining().density
    assert kept == pytest.approx(trainer.run.method.level(trainer.taken, arms.STEPS), abs=1e-3)
    assert 0.05 < kept < 0.5  # steps from the middle of a run


def test_arms_are_all_methods_and_variants_of_those_that_can_be_written_out(tmp_path):
    """Variants: distilled, as written, both. Only frozen weights with top-k of each matrix qualify."""
    bench = Bench(Geometry("tiny", 4, 12, 0.1), tmp_path, 1)
    assert bench.written() == ["smp_l"]
    plain = [entry.name for entry in methods]
    variants = ["smp_l:distilled", "smp_l:as_written", "smp_l:as_written_distilled"]
    assert bench.arms() == plain + variants


def test_two_different_steps_are_not_timed(tmp_path, monkeypatch):
    """A gradient of the penalty that is wrong by a tenth is found before anything is timed."""
    check_same(tmp_path / "same")
    wrong = lambda score, matrices: 1.1 * mean_sigmoid_gradient(score, matrices)  # noqa: E731
    original = arms.build

    def altered(trial, resources, device):
        run = original(trial, resources, device)
        run.masked.method = replace(run.method, penalty=replace(run.method.penalty, gradient=wrong))
        return run

    monkeypatch.setattr(arms, "build", altered)
    with pytest.raises(TrialError, match="differ at encoder"):
        check_same(tmp_path / "other")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("movment", "unknown arm 'movment'; did you mean 'movement'?"),
        ("smp_l:distiled", "unknown arm 'smp_l:distiled'; did you mean 'smp_l:distilled'?"),
        ("movement:as_written", "unknown arm 'movement:as_written'"),
    ],
)
def test_an_unknown_arm_is_answered_with_the_nearest(capsys, asked, message):
    assert main(["--methods", asked]) == 2
    assert message in capsys.readouterr().err


def test_a_report_is_named_by_its_device(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--methods", "smp_l", "--pairs", "1", "--steps", "1", "--report"]) == 0
    (path,) = Path("docs/runs/bench").iterdir()
    assert path.name.endswith("_tiny_8x32_float32.json") and path.name.startswith(
        ("cpu-", "nvidia-")
    )
    assert json.loads(path.read_text())["kernels"] == (DEVICES[-1] == "cuda")
    assert f"written to {path}" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_one_line(capsys):
    if not torch.cuda.is_available():
        assert main(["--device", "cuda"]) == 5
        assert "torch sees no GPU" in capsys.readouterr().err
