"""Comparisons within a table: who is better beyond noise, and where nothing may be said."""

import base64
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leaderboard import write
from leaderboard.collect import collect
from leaderboard.compare import best_entries, compare, reference_of
from leaderboard.formats import comma_separated, csv_text, latex, latex_text, markdown
from leaderboard.view import View
from tests.helpers import a_result, a_trial
from tests.test_leaderboard import rows
from zoo.records.packed import pack_bits, unpack_bits
from zoo.records.result import Failure, MethodFacts
from zoo.records.storage import save

SCORES = {
    "magnitude": (70.0, 71.0, 70.5, 69.5, 70.2),
    "movement": (80.0, 81.0, 80.4, 79.8, 80.9),
    "smp_s": (80.1, 81.2, 80.2, 79.9, 81.0),
    "random": (50.0, 51.0),
}


def fill(folder: Path, scores=SCORES, **changes) -> Path:
    for method, found in scores.items():
        for seed, score in enumerate(found):
            trial = a_trial(method=method, seed=seed, **changes)
            bits = np.random.default_rng(seed).permutation(1000) < round(10 * score)
            correct = {"validation": pack_bits(bits)}
            save(a_result(trial, metrics={"acc": score}, correct=correct), folder)
    return folder


def by_method(folder: Path, reference: str = "magnitude"):
    (table,) = collect(folder).tables
    return {c.row.method: c for c in compare(table, table, reference)}


def test_a_comparison_against_scipy(tmp_path):
    found = by_method(fill(tmp_path / "s"))
    ours, theirs = SCORES["movement"], SCORES["magnitude"]
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    got = found["movement"]
    assert (got.reference.low, got.reference.high) == pytest.approx((expected.low, expected.high))
    assert got.p == pytest.approx(2 / 252)
    assert got.corrected == pytest.approx(2 * 2 / 252)  # two methods were compared
    assert got.seeds_needed == 2 and got.dense is None
    assert found["smp_s"].corrected == got.corrected


def test_where_no_comparison_may_be_made(tmp_path):
    found = by_method(fill(tmp_path / "s"))
    assert found["magnitude"].why_not == "the reference" and found["magnitude"].p is None
    assert found["random"].why_not == "fewer than 3 seeds" and found["random"].reference is None
    other = fill(tmp_path / "o", {"magnitude": SCORES["magnitude"][:4]})
    for seed in range(1, 5):
        save(a_result(a_trial(method="movement", seed=seed), metrics={"acc": 80.0 + seed}), other)
    assert by_method(other)["movement"].why_not == "other seeds"
    assert (
        by_method(fill(tmp_path / "n", {"movement": SCORES["movement"]}))["movement"].why_not
        == "no magnitude at this target"
    )


def test_examples_are_compared_on_the_seeds_that_both_have(tmp_path):
    found = by_method(fill(tmp_path / "s"))
    assert found["random"].examples is not None  # two seeds are enough for this one
    assert found["movement"].examples.difference.low > 0
    assert found["movement"].examples.p < 1e-4
    assert found["magnitude"].examples is None


def test_bits_come_back():
    bits = np.random.default_rng(0).random(77) < 0.5
    assert np.array_equal(unpack_bits(pack_bits(bits)), bits)
    assert unpack_bits("3:" + base64.b64encode(bytes([0b10100000])).decode()).tolist() == [
        True,
        False,
        True,
    ]


def test_only_what_is_better_than_all_others_beyond_noise_is_bold(tmp_path):
    close = {name: SCORES[name] for name in ("magnitude", "movement", "smp_s")}
    (table,) = collect(fill(tmp_path / "close", close)).tables
    assert best_entries(table) == set()
    clear = {name: SCORES[name] for name in ("magnitude", "movement")}
    folder = fill(tmp_path / "clear", clear)
    (table,) = collect(folder).tables
    assert [(row.method, task, metric) for row, task, metric in best_entries(table)] == [
        ("movement", "t", "acc")
    ]
    page = write(folder, figures=False).read_text()
    assert rows(page)["movement", "10"][5] == "**80.4 ± 0.5 (5/5)**"
    assert "**" not in rows(page)["magnitude", "10"][5]


def test_what_lost_a_seed_is_not_the_best(tmp_path):
    clear = {name: SCORES[name] for name in ("magnitude", "movement")}
    folder = fill(tmp_path / "s", clear)
    save(Failure(a_trial(method="movement", seed=7), "lost"), folder)
    (table,) = collect(folder).tables
    assert best_entries(table) == set()


def test_nothing_is_ranked_while_a_rival_has_too_few_seeds(tmp_path):
    scores = {"magnitude": SCORES["magnitude"], "movement": SCORES["movement"][:2]}
    (table,) = collect(fill(tmp_path / "s", scores)).tables
    assert best_entries(table) == set()


def test_the_reference_is_the_wanted_one_or_the_first_that_prunes(tmp_path):
    (table,) = collect(fill(tmp_path / "a")).tables
    assert reference_of(table, "magnitude") == "magnitude"
    assert reference_of(table, "movement") == "movement"
    without = {name: SCORES[name] for name in ("random", "movement", "smp_s")}
    (table,) = collect(fill(tmp_path / "b", without)).tables
    assert reference_of(table, "magnitude") == "movement"


def test_over_all_tasks(tmp_path):
    folder = fill(tmp_path / "s", task="a")
    fill(folder, task="b")
    board = collect(folder)
    grid = View(board, board.tables[0]).grids["over-tasks"]
    cells = {row[0]: [str(entry) for entry in row] for row in grid.rows}
    assert set(cells) == {"magnitude", "movement", "smp_s"}  # random has two seeds
    assert (
        cells["movement"][2].startswith("80.4 (") and cells["movement"][4] == "1.00 (1.00 to 1.00)"
    )


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a|b",
    "[x](javascript:alert(1))",
    "`code`",
    "a\nb",
    "a\r\nb",
    "\u202ex",
    "\x1b[31mred",
    "**x**",
    '=HYPERLINK("http://x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\\input{/etc/passwd}",
    "a & b",
    "100 %",
    "$x$",
    "x_y^z",
    "~",
    "#1",
    "{a}",
    "</details>",
    "&lt;",
    '"quoted", comma',
    "\ttab",
    "\0nul",
    "*/",
    "--",
    "![i](http://x/y.png)",
    "<script>alert(1)</script>",
    "]]>",
    "\\begin{document}",
    "\u2028line",
    "a\\|b",
    "|",
    "||",
    "<!-- x -->",
    "http://x.test",
    "- item",
    "| --- |",
]


def test_there_are_forty_hostile_names():
    assert len(set(HOSTILE)) == 40


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_change_no_row_column_or_tag(tmp_path, text):
    import csv
    import io

    folder = tmp_path / "s"
    for seed in range(3):
        save(a_result(a_trial(seed=seed), facts=MethodFacts(label=text)), folder)
    board = collect(folder)
    (table,) = board.tables
    for grid in View(board, table).all_grids.values():
        lines = markdown(grid).splitlines()
        assert len(lines) == len(grid.rows) + 2
        assert {line.count("|") for line in lines} == {len(grid.header) + 1}
        assert "<" not in "".join(lines).replace("|<", "")
        read = list(csv.reader(io.StringIO(comma_separated(grid))))
        assert {len(row) for row in read} == {len(grid.header)}
        assert len(read) == len(grid.rows) + 1
        assert not any(
            cell[:1] in tuple("=+@") and not _number(cell) for row in read for cell in row
        )
        tex = latex(grid).splitlines()
        assert len(tex) == len(grid.rows) + 6
        body = "".join(latex_text(text))
        assert "\\input" not in body and "\\begin" not in body


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_signed_numbers_stay_numbers_in_csv():
    assert csv_text("-2.5") == "-2.5" and csv_text("+0.5 (-0.7 to +1.8)").startswith("'+")
    assert csv_text("-") == "-" and csv_text("=1+1") == "'=1+1"
