"""The page of equations and sources is what registry and recipes give."""

import re
import subprocess
import sys
from pathlib import Path

from zoo.fidelity import PAGE, by_value, conflicts, lines_of, main, page
from zoo.recipes import Value
from zoo.registry import methods
from zoo.trial import load_all


def test_the_page_is_up_to_date(capsys):
    assert main(["--check"]) == 0, "run python -m zoo.fidelity"


def test_a_page_that_is_not_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zoo.fidelity.PAGE", tmp_path / "fidelity.md")
    assert main(["--check"]) == 6
    assert "run python -m zoo.fidelity" in capsys.readouterr().err
    assert main([]) == 0 and main(["--check"]) == 0


def test_every_method_and_every_value_has_a_place():
    text = page()
    assert PAGE.read_text() == text
    for entry in methods:
        assert f"\n## {entry.name}" in text
    for number, source in re.findall(r"^(\d+)\. (.*)$", text, re.M):
        assert source, number
    assert all(all(row) and len(row) == 4 for row in conflicts())


def test_values_say_where_they_are_others():
    one, two = Value(1, "a"), Value(2, "b")
    settings = {
        (0.5, False): {"x": one, "y": one},
        (0.1, False): {"x": one, "y": two},
        (0.5, True): {"x": one, "y": one, "z": one},
        (0.1, True): {"x": one, "y": two, "z": one},
    }
    assert list(by_value(settings)) == [
        ("x", "1", "a"),
        ("y", "1 at 50 %; 2 at 10 %", "a; b"),
        ("z", "1 with distillation", "a"),
    ]


def test_truth_values_are_printed_as_they_are():
    values = {"asked": Value(True, "a"), "refused": Value(False, "b")}
    assert [line.split() for line in lines_of({(0.5, False): values})] == [
        ["asked", "yes", "a"],
        ["refused", "no", "b"],
    ]


def test_a_dry_run_may_be_cut_by_its_reader(checkpoint, sst2, tmp_path):
    command = [sys.executable, "run_benchmark.py", "--suite", "high_sparsity", "--dry-run"]
    command += ["--model", str(checkpoint), "--data-dir", str(sst2), "--tasks", "sst2"]
    command += ["--densities", "0.5", "--methods", "smp_l", "--results", str(tmp_path)]
    root = Path(__file__).resolve().parent.parent
    said = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    said.stdout.readline()
    said.stdout.close()
    assert said.stderr.read() == b""
    assert said.wait() == 141  # 128 + SIGPIPE, as a shell has it


def test_a_dry_run_prints_every_value_with_its_source(run, checkpoint, sst2):
    """Against what the planned trials hold."""
    for recipe in ("released", "paper"):
        code, out, _ = run(
            *("--suite", "high_sparsity", "--model", str(checkpoint), "--data-dir", str(sst2)),
            *("--tasks", "sst2", "--methods", "dense,movement,smp_s", "--densities", "0.5,0.1"),
            *("--seeds", "3", "--recipe", recipe, "--dry-run"),
        )
        assert code == 0 and "seeds 3 " in out
        blocks = out.split(f"on sst2, recipe {recipe}\n")[1:]
        assert len(blocks) == 3
        lines = [line for line in blocks[2].splitlines() if re.match(r"  \S", line)]
        smp = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
        assert smp["lr_scores"].startswith("0.02 ") and smp["penalty"].startswith("400 ")
        assert smp["teacher_weight"].startswith("0.5" if recipe == "released" else "1 ")
        assert ("mlm_label_words" in smp["head"]) == (recipe == "released")
        assert all(len(line.split()) >= 3 for line in lines)


def test_results_say_where_their_values_come_from(run, checkpoint, sst2, tmp_path):
    options = ("--model", str(checkpoint), "--data-dir", str(sst2), "--tasks", "sst2")
    code, _, said = run(
        *("--suite", "smoke", *options, "--methods", "smp_l", "--densities", "0.5"),
        *("--distill", "on"),
    )
    assert code == 0, said
    results, _, _ = load_all(tmp_path / "results" / "smoke")
    assert {result.trial.method for result in results} == {"dense", "smp_l"}
    for result in results:
        values = {**result.trial.train, **result.trial.hyper}
        told = result.environment["sources"]
        assert set(values) <= set(told) and all(told.values())
    page = (tmp_path / "results" / "smoke" / "leaderboard.html").read_text()
    assert "<td>SMP released code (run.sh, run_squad.sh, smp_trainer.py)</td>" in page
