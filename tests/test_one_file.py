"""A method is one file: what it registers appears everywhere, and nothing else changes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.tools import fidelity

ROOT = Path(__file__).resolve().parent.parent

NEWCOMER = '''"""Movement on the cube root of scores' magnitudes (Newcomer 2031)."""

from dataclasses import replace

from zoo import Method, Ramp, Request, Value, Values, learned, register_method, share
from zoo import all_but_embeddings, straight_through, topk_local

SOURCE = "Newcomer 2031, Table 9"


def newcomer_recipe(request: Request) -> tuple[Values, Values]:
    """The newcomer's recipe."""
    train = {
        "batch": Value(24, SOURCE),
        "epochs": Value(2, SOURCE),
        "max_length": Value(64, SOURCE),
        "warmup": share(100, 1000, SOURCE),
        "lr_weights": Value(2e-5, SOURCE),
        "lr_head": Value(2e-5, SOURCE),
        "lr_scores": Value(3e-2, SOURCE),
        "clip": Value(1.0, SOURCE),
        "betas": Value([0.9, 0.98], SOURCE),
        "epsilon": Value(1e-6, SOURCE),
        "weight_decay": Value(0.0, SOURCE),
        "evaluate_every": Value(100, SOURCE),
    }
    return train, {"start": share(100, 1000, SOURCE), "stop": share(700, 1000, SOURCE)}


@register_method(
    "newcomer", recipe=newcomer_recipe, label="The Newcomer", family="newcomers", order=35
)
def newcomer(density: float, *, start: float, stop: float) -> Method:
    """Newcomer pruning: learned scores as nobody learned them before (Newcomer 2031, Eq. 1)."""
    return Method(
        score=learned,
        gate=straight_through,
        mask=topk_local,
        level=Ramp(1.0, density, start, stop, 3),
        trains=all_but_embeddings,
    )
'''


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / "newcomer.py"
    path.write_text(f"{NEWCOMER}\n# {tmp_path}: a file is loaded once in a process\n")
    return path


def test_it_is_listed_in_its_family_and_order(plugin, run):
    code, out, _ = run("--list", "--plugin", str(plugin))
    lines = [line.strip() for line in out.split("tasks\n")[0].splitlines()]
    families = ["controls", "magnitude", "regularisation", "newcomers", "movement"]
    at = [lines.index(family) for family in families]
    assert code == 0 and at == sorted(at)
    assert lines[lines.index("newcomers") + 1].startswith("newcomer  ")


def test_its_plan_shows_its_values_with_their_source(plugin, run):
    code, out, _ = run(
        *("--suite", "smoke", "--methods", "newcomer", "--dry-run", "--plugin", str(plugin))
    )
    values = out[out.index("newcomer") :]
    assert code == 0
    assert "Newcomer 2031, Table 9" in values and "1e-06" in values and "0.98" in values


def test_it_trains_and_is_in_the_table(plugin, run, tmp_path):
    code, _, err = run(
        *("--suite", "smoke", "--methods", "newcomer,movement", "--max-steps", "4"),
        *("--plugin", str(plugin)),
    )
    assert code == 0, err
    page = (tmp_path / "results" / "smoke" / "LEADERBOARD.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")]
    assert rows.index("The Newcomer") < rows.index("movement")


def test_it_is_in_the_fidelity_page(plugin, tmp_path):
    assert fidelity.main(["--plugin", str(plugin), "--out", str(tmp_path)]) == 0
    page, before = ((folder / "fidelity.md").read_text() for folder in (tmp_path, ROOT / "docs"))
    own = page[page.index("## newcomer") :].split("\n## ")[0]
    assert "Newcomer pruning" in own and "Newcomer 2031, Table 9" in own
    assert "## newcomer" not in before
    assert len(page) - len(before) < 2 * len(own) + 500  # nothing else changed


def test_the_same_file_in_the_package_is_a_built_in_method(plugin, tmp_path):
    """Put into methods/, it needs no other line."""
    shutil.copytree(ROOT / "methods", tmp_path / "methods")
    shutil.copy(plugin, tmp_path / "methods")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from run_benchmark import main; sys.exit(main(['--list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "newcomer          Newcomer pruning" in done.stdout
