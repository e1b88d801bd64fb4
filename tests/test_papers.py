"""The papers' own tables: their rows and columns, our figures, and what they print beside them."""

from pathlib import Path

import pytest

from leaderboard.collect import collect
from leaderboard.papers import LAYOUTS, PRINTED
from leaderboard.view import View
from tests.helpers import a_result, a_trial
from zoo.records.storage import save

METRICS = {"mnli": ("acc_m", "acc_mm"), "squad": ("em", "f1"), "sst2": ("acc",)}


def fill(
    folder: Path, methods, densities, tasks=("mnli", "squad"), distill=(False,), **changes
) -> dict:
    """Three seeds of each; the papers' tables of the first table."""
    base = {"scale": "base", "model": "bert-base-uncased"} | changes
    trials = [a_trial(method="dense", density=1.0, task=task, **base) for task in tasks]
    for task in tasks:
        for method in methods:
            for density in densities:
                for flag in distill:
                    wanted = {"method": method, "density": density, "task": task, "distill": flag}
                    trials += [a_trial(**wanted, seed=seed, **base) for seed in range(3)]
    for trial in trials:
        score = 60.0 + 10 * trial.density + trial.seed
        save(a_result(trial, metrics=dict.fromkeys(METRICS[trial.task], score)), folder)
    board = collect(folder)
    found = View(board, board.tables[0]).grids
    return {name: grid for name, grid in found.items() if "-table-" in name}


def rows(grid) -> dict[tuple[str, ...], list[str]]:
    """By method, distillation and density the texts of the other entries."""
    texts = [[str(entry) for entry in row] for row in grid.rows]
    return {tuple(row[:3]): row[3:] for row in texts}


def test_table_1_has_both_halves_sizes_and_every_metric(tmp_path):
    found = fill(tmp_path / "s", ("movement", "smp_l"), (0.5, 0.1), distill=(False, True))
    grid = found["smp-table-1"]
    assert list(grid.header[3:]) == [
        *("New per task", "Trainable", "mnli acc_m", "mnli acc_mm", "squad em", "squad f1")
    ]
    got = rows(grid)
    assert got["smp_l", "no", "10"][2] == "62.0 ± 1.0 (3/3 at 10.00 %)"
    assert got[f"SMP-L{PRINTED}", "no", "10"] == [
        *("0M", "85M", "82 ± 0.27", "82.3", "75", "84.3 ± 0.36")
    ]
    assert got[f"CAP{PRINTED}", "yes", "50"][:3] == ["42.5M", "170M", "83.8"]
    assert got["dense", "", "100"][2] == "70.0 (1/1 at 100.00 %)"
    order = [tuple(map(str, row[:3])) for row in grid.rows]
    assert order.index(("smp_l", "no", "10")) < order.index(("movement", "yes", "50"))
    assert order.index(("smp_l", "yes", "10")) < order.index((f"SMP-L{PRINTED}", "yes", "10"))


def test_table_2_averages_what_is_there(tmp_path):
    found = fill(tmp_path / "s", ("smp_l", "smp_s"), (0.8, 0.1), tasks=("mnli", "sst2"))
    grid = found["smp-table-2"]
    assert grid.header[-1] == "Average" and "mnli acc_mm" not in grid.header
    got = rows(grid)
    assert got["smp_l", "no", "80"][-1] == "69.0"
    assert got[f"SMP{PRINTED}", "no", "80"][-1] == "83.9"  # the paper's, over its eight tasks
    assert not any(key[2] == "10" for key in got)


def test_the_metric_is_the_printed_one(tmp_path):
    """SQuAD stands with EM first, and in SMP's ablations with F1 alone."""
    found = fill(tmp_path / "s", ("smp_l", "smp_l_no_penalty"), (0.1,))
    assert list(found["smp-table-5"].header[3:]) == ["mnli acc_m", "squad f1"]
    assert rows(found["smp-table-5"])[f"SMP-L without R{PRINTED}", "no", "10"][0] == "80.1"


def test_spreads_that_are_printed_alone(tmp_path):
    found = fill(tmp_path / "s", ("smp_l", "smp_s"), (0.1,))
    got = rows(found["smp-table-6"])
    assert got["smp_s", "no", "10"][0] == "62.0 ± 1.0 (3/3 at 10.00 %)"
    assert got[f"SMP-S{PRINTED}", "no", "10"][0] == "± 0.25"


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        (("random",), set()),
        (("smp_l", "smp_s"), {"smp-table-6"}),
        (("smp_l", "smp_s", "smp_g"), {"smp-table-3", "smp-table-6"}),
        (("smp_l", "smp_l_new_head"), {"smp-table-4"}),
        (("magnitude", "movement"), {"movement-table-2"}),
    ],
)
def test_only_tables_whose_methods_ran_are_made(tmp_path, methods, names):
    assert set(fill(tmp_path / "s", methods, (0.1,))) == names


def test_another_model_has_nothing_printed_beside_it(tmp_path):
    found = fill(tmp_path / "s", ("movement", "smp_l"), (0.1,), model="minilm")
    assert not any(PRINTED in row[0] for row in found["smp-table-1"].rows)


def test_every_layout_has_a_name_of_its_own():
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS) == 9
