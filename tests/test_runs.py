"""The project's own results: committed pages are what the committed result files give."""

import json
from pathlib import Path

import pytest

from leaderboard.collect import collect
from leaderboard.files import check
from zoo.records.reading import PLAN
from zoo.records.storage import load_folder

RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs"
FOLDERS = sorted({path.parent for path in RUNS.rglob(f"{PLAN}*.json")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_pages_are_what_their_results_give(folder):
    found = load_folder(folder)
    assert found.results and not found.failures and not found.unreadable
    check(collect(folder), folder)


def test_no_run_is_without_its_plan():
    assert {path.parent for path in RUNS.rglob("LEADERBOARD.md")} == set(FOLDERS) != set()


def test_the_performance_page_shows_what_the_bench_wrote():
    lines = (RUNS.parent / "performance.md").read_text().splitlines()
    files = sorted((RUNS / "bench").glob("*.json"))
    assert len(files) == 5
    for file in files:
        for timing in json.loads(file.read_text())["timings"]:
            starts = f"| `{timing['arm']}` ", f"| {timing['arm']} "
            rows = [line for line in lines if line.startswith(starts)]
            ratio = "{ratio:.2f} ({low:.2f} to {high:.2f})".format(**timing)
            assert any(ratio in row for row in rows), (file.name, timing["arm"])
