"""Other checkpoints on the leaderboard: references at their ratio of weights, in no test."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from leaderboard import write
from leaderboard.beside import others, shown
from leaderboard.collect import collect
from leaderboard.fronts import byte_fronts, latency_fronts, latency_shapes
from leaderboard.page import markdown_page
from leaderboard.view import View
from tests.helpers import a_result, a_training, a_trial
from tests.test_forms import a_timing, fill, texts
from zoo.records.forms import STOCK, Form
from zoo.records.result import Matrix, Remaining
from zoo.records.storage import save

MINI = {"model": "google/bert-mini", "model_sha": "9" * 64}


def add(folder: Path, total: int = 25_000, seeds: int = 2, **changes) -> None:
    """Dense trials of another checkpoint on the tasks of `fill`, with so many prunable weights."""
    matrix = Matrix(kept=total, total=total, layer=0, role="D")
    whole = Remaining(1.0, encoder_density=1.0, matrices={"encoder.layer.0.output.dense": matrix})
    about = MINI | {"method": "dense", "density": 1.0, "hyper": {}} | changes
    slow = a_timing(1.0, dense_seconds=0.004, seconds=0.004, low=0.99, high=1.01)
    for task in ("a", "b"):
        for seed in range(seeds):
            metrics = {"acc": 95.0 + seed}
            form = Form(STOCK, 90_000, metrics={"acc": 95.0}, timings=(slow,))
            got = a_result(a_trial(task=task, seed=seed, **about), metrics=metrics)
            save(replace(got, remaining=whole, forms=(form,) * (not seed)), folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders with and without another checkpoint."""
    with_it = fill(tmp_path_factory.mktemp("with"))
    add(with_it)
    return with_it, fill(tmp_path_factory.mktemp("without"))


def view_of(folder: Path) -> View:
    board = collect(folder)
    (table,) = shown(board)
    return View(board, table)


def test_its_row_has_its_ratio_of_weights_and_what_was_measured(both):
    grid = view_of(both[0]).grids["beside"]
    own, mini = (dict(zip(grid.header, row, strict=True)) for row in texts(grid))
    assert own["Model"].endswith(", as above") and own["Prunable weights %"] == "100.00"
    assert mini["Model"] == "google/bert-mini" and mini["Prunable weights %"] == "25.00"
    assert mini["a acc"] == "95.5 ± 0.7 (2/2)" and mini["Mean over tasks"] == "95.5"
    assert (mini["MB"], mini["ms per call"]) == ("0.0900", "4.00")


def test_it_changes_no_row_verdict_or_rank(both):
    with_it, without = map(view_of, both)
    assert with_it.table.rows == without.table.rows
    for name in ("verdicts", "by-task", "selection"):
        assert texts(with_it.grids[name]) == texts(without.grids[name])
    assert texts(with_it.main.grid) == texts(without.main.grid)
    assert with_it.said == without.said
    assert "beside" not in without.grids and not without.others


def test_the_forms_have_its_name_and_ratio_and_no_target(both):
    view = view_of(both[0])
    names = "dense of google/bert-mini (another checkpoint)"
    for grid in (view.forms, view.grids["forms"]):
        (first, *_) = [row for row in texts(grid) if row[0] == names]
        assert first[1:3] == ["-", "25.00"]
    before = texts(view_of(both[1]).grids["forms"])
    assert [row for row in texts(view.grids["forms"]) if row[0] != names] == before


def test_the_figures_have_it_at_its_own_costs(both):
    series = view_of(both[0]).series
    (rival,) = series.quality[0].rivals
    assert (rival.name, rival.dots[0].x, rival.dots[0].y) == ("google/bert-mini", 25.0, 95.5)
    assert "bert-mini" not in {line.name for line in series.quality[0].lines}
    bytes_of, unit = byte_fronts(series)
    (spot,) = [one for one in bytes_of[0].spots if one.label == "bert-mini"]
    assert (spot.x, unit, spot.rest) == (90.0, "kB", "")
    front = latency_fronts(series, latency_shapes(series)[0])[0]
    (spot,) = [one for one in front.spots if one.label == "bert-mini"]
    assert spot.x == pytest.approx(4.0) and front.dense == pytest.approx(20.0)
    plain = view_of(both[1]).series
    costs = {(one.label, one.words): one.x for one in front.spots if one.label != "bert-mini"}
    before = latency_fronts(plain, latency_shapes(plain)[0])[0].spots
    assert costs == {(one.label, one.words): one.x for one in before}


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "paper"},
        {"scale": "base"},
        {"data_sha": "7" * 64},
        {"train": a_training(max_steps=5)},
        {"method": "scratch"},
    ],
)
def test_what_is_under_other_conditions_is_not_beside(tmp_path, changes):
    add(fill(tmp_path), **changes)
    board = collect(tmp_path)
    assert shown(board) == board.tables and len(board.tables) > 1
    assert not any(others(board, table) for table in board.tables)


def test_a_checkpoint_that_is_pruned_too_keeps_its_own_table(tmp_path):
    add(fill(tmp_path))
    matrix = Matrix(kept=2_500, total=25_000, layer=0, role="D")
    pruned = Remaining(0.1, encoder_density=0.1, matrices={"encoder.layer.0.output.dense": matrix})
    save(a_result(a_trial(task="a", **MINI), remaining=pruned), tmp_path)
    board = collect(tmp_path)
    assert len(shown(board)) == 2
    shares = [one.share for table in board.tables for one in others(board, table)]
    assert sorted(shares) == [0.25, 4.0]


def test_a_folder_of_dense_trials_alone_is_as_it_was(tmp_path):
    add(tmp_path)
    add(tmp_path, 100_000, model="large", model_sha="8" * 64)
    board = collect(tmp_path)
    assert shown(board) == board.tables and not others(board, board.tables[0])


def test_the_pages_of_a_folder_with_it(both):
    folder = both[0]
    page = write(folder).read_text()
    assert page.count("\n## scale") == 1 and "Their embeddings differ too" in page
    assert "| google/bert-mini | 25.00 |" in page
    assert "model google/bert-mini" in (folder / "COSTS.md").read_text()
    html = (folder / "leaderboard.html").read_text()
    assert "google/bert-mini (another checkpoint)" in html
    (table,) = (folder / "tables").glob("*-beside.csv")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["Prunable weights %"] for row in rows] == ["100", "25"]
    assert (folder / "results.csv").read_text().count("google/bert-mini") == 4
    assert "could not be drawn" not in page


def test_pages_without_it_say_nothing_of_it(both):
    view = view_of(both[1])
    page = markdown_page(view.board, [view], {})
    assert "checkpoint" not in page.lower().replace("no checkpoint is selected", "")
