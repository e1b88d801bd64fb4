"""README.md: its table is what the committed results give.

A change that is meant writes it anew: REWRITE_README=1 python -m pytest tests/test_readme.py
"""

import os
import re
from pathlib import Path
from statistics import fmean

from leaderboard.collect import collect
from leaderboard.formats import compact, markdown
from leaderboard.view import View

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ROOT / "docs" / "runs" / "laboratory" / "high_sparsity"
COLUMNS = ("Target %", "Kept %", "Mean over tasks", "Δ magnitude", "p (Holm)")
PLACE = re.compile(r"(<!-- table: [^\n]* -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def table() -> str:
    """The verdicts without distillation, and what the controls reach that prune nothing."""
    board = collect(SHOWN)
    view = next(View(board, t) for t in board.tables if not t.key.distill)
    dense, head, scratch = (
        fmean(next(iter(r.metrics.values())) for r in board.results if r.trial.method == name)
        for name in ("dense", "head_only", "scratch")
    )
    controls = (
        f"Means over tasks; the dense model reaches {dense:.1f}, a trained head on the frozen model"
        f" {head:.1f}, training\nfrom random weights {scratch:.1f}."
    )
    return f"\n{compact(markdown(view.verdicts.only(COLUMNS, ())))}\n\n{controls}\n\n"


def test_the_table_is_what_the_results_give():
    path = ROOT / "README.md"
    text = path.read_text()
    assert PLACE.search(text)
    fresh = PLACE.sub(lambda found: found[1] + table() + found[3], text)
    if os.environ.get("REWRITE_README"):
        path.write_text(fresh)
    assert fresh == path.read_text()


def test_what_it_names_exists():
    """Links to files, and the number of conflicts."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links and all((ROOT / link).exists() for link in links if "//" not in link)
    conflicts = (ROOT / "docs" / "conflicts.md").read_text()
    number = sum(line.startswith("| ") for line in conflicts.splitlines()) - 2
    assert f"the {number} points where" in text.replace("\n", " ")
