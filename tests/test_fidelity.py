"""The pages of equations and sources are what registry and recipes give."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import (
    Constant,
    Method,
    Penalty,
    Value,
    learned,
    mean_sigmoid,
    mean_sigmoid_gradient,
    straight_through,
)
from zoo.errors import StaleError
from zoo.records.codec import to_json
from zoo.records.storage import load_folder
from zoo.registry import methods
from zoo.runs.show import by_value, lines_of
from zoo.tools.fidelity import check, conflicts, main, pages, parts_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def test_the_pages_are_up_to_date(capsys):
    assert main(["--check"]) == 0, "run python -m zoo.tools.fidelity"


def test_an_outdated_page_is_named(tmp_path, capsys):
    folder = ["--out", str(tmp_path)]
    assert main(["--check", *folder]) == 6
    assert "fidelity.md is out of date; run python -m zoo.tools" in capsys.readouterr().err
    assert main(folder) == 0 and main(["--check", *folder]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"fidelity.md", "conflicts.md"}
    (tmp_path / "conflicts.md").write_text("something else")
    with pytest.raises(StaleError, match=r"conflicts\.md is out of date"):
        check(tmp_path)


def test_every_method_and_every_source_is_on_the_page():
    text = pages()["fidelity.md"]
    assert (DOCS / "fidelity.md").read_text() == text
    for entry in methods:
        assert f"\n## {entry.name}" in text
    for number, source in re.findall(r"^(\d+)\. (.*)$", text, re.M):
        assert source, number


def test_every_conflict_is_on_its_page():
    text = pages()["conflicts.md"]
    assert (DOCS / "conflicts.md").read_text() == text
    assert len(conflicts()) > 20
    assert all(all(row) and len(row) == 4 for row in conflicts())
    assert all(f"| {row[0]} |" in text for row in conflicts())


def test_the_parts_of_a_method_are_described_with_their_settings():
    penalty = Penalty(mean_sigmoid, mean_sigmoid_gradient, Constant(7.0))
    method = Method(score=learned, gate=straight_through, penalty=penalty)
    found = {part: (where, what) for part, where, what in parts_of(method)}
    assert found["penalty"][0] == "`zoo.parts.penalties.mean_sigmoid`"
    assert found["its weight"][0] == "`zoo.parts.schedules.Constant`"
    assert found["its weight"][1].endswith("Here level = 7.")
    assert found["optimiser"][0] == "`zoo.parts.optimisers.adamw`"
    assert found["score"][0] == "`zoo.parts.scores.stored`"
    assert ">>>" not in " ".join(what for _, what in found.values())
    assert "score" not in [part for part, *_ in parts_of(Method())]


def test_a_value_that_differs_says_where():
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


def test_truth_values_are_printed_as_yes_and_no():
    values = {"asked": Value(True, "a"), "refused": Value(False, "b")}
    assert [line.split() for line in lines_of({(0.5, False): values})] == [
        ["asked", "yes", "a"],
        ["refused", "no", "b"],
    ]


def test_a_dry_run_ends_quietly_when_its_reader_stops(checkpoint, sst2, tmp_path):
    command = [sys.executable, "run_benchmark.py", "--suite", "high_sparsity", "--dry-run"]
    command += ["--model", str(checkpoint), "--data-dir", str(sst2), "--tasks", "sst2"]
    command += ["--densities", "0.5", "--methods", "smp_l", "--results", str(tmp_path)]
    said = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    said.stdout.readline()
    said.stdout.close()
    assert said.stderr.read() == b""
    assert said.wait() == 141  # 128 + SIGPIPE, as a shell has it


def test_a_dry_run_prints_every_value_with_its_source(run, checkpoint, sst2):
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
    results = load_folder(tmp_path / "results" / "smoke").results
    assert {result.trial.method for result in results} == {"dense", "smp_l"}
    for result in results:
        values = {**to_json(result.trial.train), **result.trial.hyper}
        sources = result.environment.sources
        assert set(values) <= set(sources) and all(sources.values())
    page = (tmp_path / "results" / "smoke" / "leaderboard.html").read_text()
    assert "<td>SMP released code (run.sh, run_squad.sh, smp_trainer.py)</td>" in page


def test_a_plugin_is_on_no_page_of_the_project(tmp_path, capsys):
    assert main(["--plugin", str(tmp_path / "mine.py")]) == 2
    assert "with --plugin give --out DIR" in capsys.readouterr().err
