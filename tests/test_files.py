"""The files that are written beside the page: their names, what becomes of old ones, CSV, LaTeX."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from leaderboard import write
from leaderboard.__main__ import main
from leaderboard.collect import collect
from leaderboard.formats import Grid, Quantity, comma_separated, latex
from tests.helpers import a_remaining, a_result, a_trial
from zoo.records.facts import MethodFacts
from zoo.records.result import Matrix, Remaining
from zoo.records.storage import save

LATEX = shutil.which("pdflatex") or shutil.which("tectonic")


def fill(folder: Path, methods=("magnitude", "movement"), **changes) -> Path:
    """Dense and some methods at two targets, three seeds, on two tasks."""
    for task in ("a", "b"):
        for seed in range(3):
            at = {"task": task, "seed": seed, **changes}
            dense = a_trial(method="dense", density=1.0, hyper={}, **at)
            save(a_result(dense, metrics={"acc": 90.0 + seed}, remaining=a_remaining(1.0)), folder)
            for number, method in enumerate(methods):
                for density in (0.1, 0.03):
                    trial = a_trial(method=method, density=density, **at)
                    score = 70.0 + number + seed + 20 * density
                    facts = MethodFacts(control=method == "random")
                    got = a_result(trial, metrics={"acc": score}, facts=facts)
                    save(replace(got, remaining=with_heads(density)), folder)
    return folder


def with_heads(density: float) -> Remaining:
    """Two matrices with two attention heads each, unequally pruned."""
    low, both = round(density * 500), round(density * 2000)
    matrices = {
        f"layer.0.{role}": Matrix(
            kept, 1000, layer=0, role=role, attention_heads=(0.1, kept / 1000)
        )
        for role, kept in (("Q", low), ("K", both - low))
    }
    return Remaining(density, encoder_density=density, matrices=matrices)


@pytest.fixture
def no_figures(monkeypatch):
    """They take most of the time, and the test is not about them."""
    monkeypatch.setattr("leaderboard.files.draw", lambda series, folder: ({}, ""))


def names(folder: Path) -> set[str]:
    found = [*(folder / "tables").iterdir(), *(folder / "figures").iterdir()]
    return {f"{path.parent.name}/{path.name}" for path in found}


def test_another_table_changes_no_name(tmp_path):
    folder = fill(tmp_path / "s")
    write(folder)
    first = names(folder)
    assert "tables/tiny-mmmmmm-released-plain-methods.csv" in first
    assert "figures/tiny-mmmmmm-released-plain-seeds.png" in first
    kept = {name: (folder / name).read_bytes() for name in first}
    fill(folder, recipe="paper")  # sorts before the other
    write(folder)
    assert first < names(folder)
    assert {name: (folder / name).read_bytes() for name in first} == kept


def test_what_a_run_no_longer_has_is_removed_and_a_check_sees_it(tmp_path, capsys):
    folder = fill(fill(tmp_path / "s"), recipe="paper")
    assert main([str(folder)]) == 0
    tables = [folder / "tables" / name for name in ("related-methods.tex", "user-verdicts.csv")]
    figures = [folder / "figures" / name for name in ("training-curves.png", "cost.png", "a.svg")]
    mine = [*tables, *figures]
    for path in mine:
        path.write_text("a user's own")
    (folder / "figures" / "tiny-mmmmmm-paper-plain-weights.png").symlink_to(mine[0])
    (folder / "tables" / "tiny-mmmmmm-paper-plain-published.csv").mkdir()
    for path in folder.glob("*.json"):
        if '"recipe": "paper"' in path.read_text():
            path.unlink()
    capsys.readouterr()
    assert main([str(folder), "--check"]) == 6
    assert main([str(folder)]) == 0
    assert main([str(folder), "--check"]) == 0
    found = names(folder)
    assert {name for name in found if "paper" in name} == {
        "figures/tiny-mmmmmm-paper-plain-weights.png",  # a link, and a folder: not ours
        "tables/tiny-mmmmmm-paper-plain-published.csv",
    }
    assert all(path.read_text() == "a user's own" for path in mine)
    (folder / "tables" / "tiny-mmmmmm-paper-plain-methods.csv").write_text("left over")
    capsys.readouterr()
    assert main([str(folder), "--check"]) == 6
    assert "paper-plain-methods.csv" in capsys.readouterr().err


def test_a_page_with_another_reference_is_checked_with_it(tmp_path, no_figures):
    folder = str(fill(tmp_path / "s"))
    assert main([folder, "--reference", "movement"]) == 0
    assert main([folder, "--reference", "movement", "--check"]) == 0
    assert main([folder, "--check"]) == 6


def test_every_figure_is_drawn(tmp_path):
    """A figure that raises would only be named on the page."""
    many = [f"method_{number}" for number in range(20)]
    page = write(fill(tmp_path / "s", methods=(*many, "random"))).read_text()
    assert "could not be drawn" not in page
    drawn = re.findall(r"!\[.*\]\((.*)\)", page)
    assert any("-heads-" in path for path in drawn) and any("-seeds" in path for path in drawn)
    svg = (tmp_path / "s" / "figures" / "tiny-mmmmmm-released-plain-quality.svg").read_text()
    assert all(f"<!-- {name} -->" in svg for name in many)


def test_csv_holds_numbers(tmp_path):
    """Every column but names has numbers alone, in every table."""
    folder = fill(tmp_path / "s")
    write(folder, figures=False)
    for path in (folder / "tables").glob("*.csv"):
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
        texts = {
            column
            for row in found
            for column, value in row.items()
            if value and not re.fullmatch(r"-?[\d.]+(e-?\d+)?", value)
        }
        words = ("Method", "Task", "Metric", "Distilled", "Dominated by")
        assert {c for c in texts if not c.endswith(" note")} <= set(words), path.name
    with (folder / "tables" / "tiny-mmmmmm-released-plain-methods.csv").open(newline="") as file:
        row = next(
            r for r in csv.DictReader(file) if (r["Method"], r["Target %"]) == ("movement", "10")
        )
    assert row["a acc"] == "74" and row["a acc std"] == "1" and row["a acc n"] == "3"
    assert row["Δ dense (a, b)"] == "-17"


def test_parts_and_notes_are_columns_of_their_own():
    grid = Grid(
        ["Method", "x"],
        [
            ["a", Quantity(1.0, "1.0 ± 0.5", parts=[("std", 0.5)])],
            ["b", "the reference"],
            ["c", "-"],
        ],
    )
    assert comma_separated(grid).splitlines() == [
        "Method,x,x std,x note",
        "a,1,0.5,",
        "b,,,the reference",
        "c,,,",
    ]


def test_latex_tables_have_the_columns_and_methods_that_are_asked_for(tmp_path, capsys, no_figures):
    folder = fill(tmp_path / "s")
    words = ["--columns", "Mean over tasks; Δ magnitude", "--methods", "movement"]
    assert main([str(folder), *words]) == 0
    found = (folder / "tables" / "tiny-mmmmmm-released-plain-verdicts.tex").read_text()
    assert "Method & Mean over tasks & $\\Delta$ magnitude \\\\" in found
    assert found.count("movement") == 2 and "\\\\\nmagnitude" not in found
    assert "\\caption{Who is better, over all tasks: scale tiny" in found
    assert "\\label{tab:tiny-mmmmmm-released-plain-verdicts}" in found
    assert main([str(folder), *words, "--check"]) == 0
    capsys.readouterr()
    assert main([str(folder), "--columns", "Mean over task"]) == 2
    assert "did you mean 'Mean over tasks'?" in capsys.readouterr().err
    assert main([str(folder), "--methods", "movment"]) == 2
    assert "did you mean 'movement'?" in capsys.readouterr().err


@pytest.mark.skipif(not LATEX, reason="no LaTeX here: the tables were NOT compiled")
def test_latex_compiles(tmp_path):
    folder = fill(tmp_path / "s")
    write(folder, figures=False)
    tables = sorted((folder / "tables").glob("*.tex"))
    odd = Grid(["Method", "a_b & c"], [["x ± ▽ ‡ ≤ × − Δ \\ ~ ^ { } # $ %", "<y>"]])
    text = "\n".join([*(path.read_text() for path in tables), latex(odd, "odd_", "tab:odd")])
    head = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}"
    (tmp_path / "all.tex").write_text(f"{head}\n{text}\n\\end{{document}}\n")
    words = [LATEX, "all.tex"] if "tectonic" in LATEX else [LATEX, "-halt-on-error", "all.tex"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_latex_is_well_formed(tmp_path):
    """Without a LaTeX: braces balance, every row has as many cells as columns, and nothing but the
    escapes that are known stands in it."""
    folder = fill(tmp_path / "s")
    write(folder, figures=False)
    for path in (folder / "tables").glob("*.tex"):
        text = path.read_text()
        assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
        columns = len(re.search(r"begin\{tabular\}\{(l[rl]*)\}", text).group(1))
        lines = [line for line in text.splitlines() if line.endswith("\\\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {columns}
        assert text.isascii(), sorted({c for c in text if not c.isascii()})


def test_several_folders_make_one_page(tmp_path, capsys, no_figures):
    a, b = fill(tmp_path / "a"), fill(tmp_path / "b", methods=("magnitude", "smp_s"))
    assert main([str(a), str(b)]) == 2
    assert "--out says where" in capsys.readouterr().err
    assert main([str(a), str(b), "--out", str(tmp_path / "both")]) == 0
    page = (tmp_path / "both" / "LEADERBOARD.md").read_text()
    assert page.startswith("# a + b") and "Warning" not in page
    board = collect(a, b)
    (table,) = board.tables
    assert {row.method for row in table.rows} == {"dense", "magnitude", "movement", "smp_s"}
    assert all(len(group.results) == 3 for group in table.groups.values())  # none twice
    with (tmp_path / "both" / "results.csv").open(newline="") as file:
        suites = {(row["method"], row["suite"]) for row in csv.DictReader(file)}
    assert {("movement", "a"), ("smp_s", "b"), ("magnitude", "a")} <= suites
    assert main([str(a), str(b), "--out", str(tmp_path / "both"), "--check"]) == 0
    save(a_result(a_trial(method="magnitude", task="a"), metrics={"acc": 1.0}), b)
    page = write_both(a, b, tmp_path / "both")
    assert "a-magnitude-0.1-seed0" in page and re.search(
        "has other metrics in .*b than in .*a", page
    )


def write_both(a: Path, b: Path, out: Path) -> str:
    assert main([str(a), str(b), "--out", str(out)]) == 0
    return (out / "LEADERBOARD.md").read_text()


HEADER = "source,table,method,name,model,distill,density,task,metric,mean,std,seeds,note\n"
SPLIT = HEADER.replace("note", "note,split")


def test_printed_numbers_of_ones_own(tmp_path, capsys, no_figures):
    folder = fill(tmp_path / "s", scale="base", model="my-bert")
    numbers = tmp_path / "mine.csv"
    numbers.write_text(HEADER + "My paper,2,Mv,movement,my-bert,no,0.1,a,acc,60.0,0.1,3,mine\n")
    words = [str(folder), "--published", str(numbers)]
    assert main(words) == 0
    assert main([*words, "--check"]) == 0
    (found,) = (folder / "tables").glob("*-published.csv")
    with found.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["Paper"] == "60" and row["Ours"] == "74" and row["Verdict"] == "above"
    assert row["Source"] == "My paper, 2; mine"
    numbers.write_text(SPLIT + "My paper,2,Mv,movement,my-bert,no,0.1,a,acc,60.0,,,,test\n")
    assert main(words) == 0
    (found,) = (folder / "tables").glob("*-published*.csv")
    assert found.name.endswith("-published-test.csv") and "not compared" in found.read_text()
    for bad, message in (
        ("source,mean\nx,1\n", "no column table, method"),
        (HEADER + "p,1,m,movement,b,no,0.1,a,acc,sixty,,,\n", "line 2: could not convert"),
        (HEADER + "p,1,m,movement,b,no,10,a,acc,60,,,\n", "density must be a fraction"),
        (HEADER + "p,1,m,movement,b,maybe,0.1,a,acc,60,,,\n", "distill must be one of"),
        (HEADER + "p,1,m\n", "line 2"),
        (SPLIT + "p,1,m,movement,b,no,0.1,a,acc,60,,,,train\n", "split must be one of dev, test"),
    ):
        numbers.write_text(bad)
        capsys.readouterr()
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert main([str(folder), "--published", str(tmp_path / "none.csv")]) == 2
