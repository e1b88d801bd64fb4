"""Comparisons within a table: who is better beyond noise, and where nothing may be said."""

import base64
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leaderboard import write
from leaderboard.cells import cells
from leaderboard.collect import collect
from leaderboard.compare import families, reference_of
from leaderboard.formats import comma_separated, csv_text, latex, latex_text, markdown
from leaderboard.ranks import ALPHA, rank_p
from leaderboard.view import View
from tests.helpers import a_remaining, a_result, a_trial
from tests.test_leaderboard import rows
from tests.test_right_values import values as laboratory
from zoo.records.facts import MethodFacts
from zoo.records.packed import pack_bits, unpack_bits
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


def verdicts(folder: Path, reference: str = "magnitude"):
    (table,) = collect(folder).tables
    (family,) = families(table, table, reference)
    return {v.row.method: v for v in family.verdicts}


def by_task(folder: Path, reference: str = "magnitude"):
    (table,) = collect(folder).tables
    return {c.row.method: c for c in cells(table, table, reference)}


def test_a_difference_against_scipy(tmp_path):
    folder = fill(tmp_path / "s")
    ours, theirs = SCORES["movement"], SCORES["magnitude"]
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    for found in (by_task(folder)["movement"], verdicts(folder)["movement"]):
        got = found.difference
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_p_is_holms_over_the_methods_that_prune(tmp_path):
    """Controls take no part: two methods are compared, 5 seeds against 5 on one task."""
    found = verdicts(fill(tmp_path / "s"))
    assert found["movement"].p == pytest.approx(2 * 2 / 252)
    assert found["smp_s"].p == found["movement"].p
    assert found["random"].p is None and found["random"].why_not == "a control"
    assert found["magnitude"].p is None and found["magnitude"].why_not == "the reference"


def test_other_seeds_and_other_numbers_of_them_are_compared(tmp_path):
    folder = fill(tmp_path / "s", {"magnitude": SCORES["magnitude"]})
    for seed in range(5, 8):
        save(a_result(a_trial(method="movement", seed=seed), metrics={"acc": 80.0 + seed}), folder)
    assert verdicts(folder)["movement"].p == pytest.approx(2 / 56)
    alone = fill(tmp_path / "n", {"movement": SCORES["movement"]})
    assert verdicts(alone)["movement"].p is None


def test_a_single_seed_is_not_judged_and_is_shown(tmp_path):
    one = {"magnitude": SCORES["magnitude"][:1], "movement": SCORES["movement"][:1]}
    folder = fill(tmp_path / "s", one)
    assert verdicts(folder)["movement"].why_not == "fewer than 2 seeds on every task"
    found = by_task(folder)["movement"]
    assert found.difference is None and 0 < found.one_seed < 0.001  # McNemar's, for these two
    assert rows(write(folder, figures=False).read_text())["movement", "10"][3].startswith("80.0 (1")


def test_examples_are_drawn_anew_with_the_seeds(tmp_path):
    found = by_task(fill(tmp_path / "s"))
    assert found["movement"].crossed.low > 5 and found["movement"].crossed.high < 15
    assert found["magnitude"].crossed is None
    assert found["movement"].mean.high - found["movement"].mean.low > 2 * 0.6  # the seeds' alone


def test_another_metric_than_right_answers_has_no_error_over_examples(tmp_path):
    """Bits are those of accuracy; they say nothing of a correlation."""
    for method in ("magnitude", "movement"):
        for seed in range(3):
            bits = np.random.default_rng(seed).random(1000) < 0.8
            correct = {"validation": pack_bits(bits)}
            trial = a_trial(method=method, task="cola", seed=seed)
            save(a_result(trial, metrics={"mcc": 40.0 + seed}, correct=correct), tmp_path / "s")
    found = by_task(tmp_path / "s")["movement"]
    assert found.crossed is None and found.one_seed is None
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert (found.mean.low, found.mean.high) == pytest.approx((41 - half, 41 + half))


def test_bits_come_back():
    bits = np.random.default_rng(0).random(77) < 0.5
    assert np.array_equal(unpack_bits(pack_bits(bits)), bits)
    assert unpack_bits("3:" + base64.b64encode(bytes([0b10100000])).decode()).tolist() == [
        True,
        False,
        True,
    ]


def on_three_tasks(folder: Path, scores) -> Path:
    for task in ("a", "b", "c"):
        fill(folder, scores, task=task)
    return folder


def test_the_top_group_is_bold(tmp_path):
    """What is not told apart from the best by the corrected test, and nothing else."""
    folder = on_three_tasks(
        tmp_path / "s", {n: SCORES[n] for n in ("magnitude", "movement", "smp_s")}
    )
    assert {name for name, v in verdicts(folder).items() if v.top} == {"movement", "smp_s"}
    page = write(folder, figures=False).read_text()
    assert "| **movement** " in page and "| **smp_s** " in page and "| **magnitude** " not in page
    said = (
        "smp_s 80.5 (+10.2) has the best mean, and movement 80.4 (+10.2) is not shown to be worse"
    )
    assert said in page
    assert "better than magnitude: " in page


def test_controls_are_in_no_top_group(tmp_path):
    scores = {"random": SCORES["movement"], "magnitude": SCORES["magnitude"]}
    found = verdicts(on_three_tasks(tmp_path / "s", scores))
    assert not found["random"].top and found["random"].difference.value > 9


def test_a_page_says_where_nothing_can_be_concluded(tmp_path):
    folder = fill(tmp_path / "s", {n: s[:3] for n, s in SCORES.items() if n != "random"})
    page = write(folder, figures=False).read_text()
    assert "these seeds and tasks can show no difference (the smallest possible p is 0.2)" in page


def test_nobody_is_left_out_in_silence(tmp_path):
    """A method on one of two tasks is judged there, and the sentence says so."""
    folder = fill(tmp_path / "s", {n: SCORES[n] for n in ("magnitude", "movement")}, task="a")
    fill(folder, {"magnitude": SCORES["magnitude"]}, task="b")
    found = verdicts(folder)["movement"]
    assert found.tasks == ["a"] and found.p == pytest.approx(2 / 252)
    assert "judged on some tasks only: movement" in write(folder, figures=False).read_text()


def test_a_method_over_its_target_is_named_in_the_sentence(tmp_path):
    """All of its runs kept too much: it cannot be judged, and whoever leads leads of the others."""
    folder = fill(tmp_path / "s", {n: SCORES[n] for n in ("magnitude", "movement")})
    for seed in range(5):
        trial = a_trial(method="smp_t", seed=seed)
        save(a_result(trial, metrics={"acc": 99.0}, remaining=a_remaining(0.2)), folder)
    page = write(folder, figures=False).read_text()
    assert "leads of those on all tasks" in page or "best mean of those on all tasks" in page
    assert "too few runs at the target to be judged: smp_t" in page


def test_one_method_under_two_names_is_not_told_apart():
    """The laboratory's seeds of each method, split in two in every way: 5 % at most differ."""
    found = []
    for name in ("magnitude", "movement", "l0", "soft_movement", "smp_l", "smp_s", "smp_g"):
        for density in ("0.1", "0.03"):
            by_seed = laboratory(name, density)
            for chosen in combinations(range(5), 2):
                ours = [[v for i, v in enumerate(task) if i in chosen] for task in by_seed]
                rest = [[v for i, v in enumerate(task) if i not in chosen] for task in by_seed]
                found.append(rank_p(ours, rest) <= ALPHA)
    assert len(found) == 140 and sum(found) / len(found) <= ALPHA


def test_the_reference_is_the_wanted_one_or_the_first_that_prunes(tmp_path):
    (table,) = collect(fill(tmp_path / "a")).tables
    assert reference_of(table, "magnitude") == "magnitude"
    assert reference_of(table, "movement") == "movement"
    without = {name: SCORES[name] for name in ("random", "movement", "smp_s")}
    (table,) = collect(fill(tmp_path / "b", without)).tables
    assert reference_of(table, "magnitude") == "movement"


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
        assert len({len(row) for row in read}) == 1 and len(read[0]) >= len(grid.header)
        assert len(read) == len(grid.rows) + 1
        assert not any(
            cell[:1] in tuple("=+@") and not _number(cell) for row in read for cell in row
        )
        tex = latex(grid, text, "tab:a").splitlines()
        assert len(tex) == len(grid.rows) + 12
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
