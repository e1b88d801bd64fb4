"""The project's own results: committed pages are what the committed result files give."""

from pathlib import Path

import pytest

from leaderboard.__main__ import check
from leaderboard.page import REFERENCE
from zoo.trial import PLAN, load_all

RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs"
FOLDERS = sorted({path.parent for path in RUNS.rglob(f"{PLAN}*.json")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_pages_are_what_their_results_give(folder):
    results, failures, unreadable = load_all(folder)
    assert results and not failures and not unreadable
    check(folder, folder, REFERENCE)


def test_no_run_is_without_its_plan():
    assert {path.parent for path in RUNS.rglob("LEADERBOARD.md")} == set(FOLDERS) != set()
