"""The board's error and power by simulation: docs/statistics.md at a reduced size."""

import math

import pytest

from leaderboard.ranks import ALPHA
from leaderboard.simulate import KINDS, PAGE, over_examples, simulate

BOARDS = 150
NOISE = 3 * math.sqrt(ALPHA * (1 - ALPHA) / BOARDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unequal"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_methods_are_called_different_in_five_percent_at_most(kind, seeds):
    found = simulate(kind, 3, seeds, BOARDS)
    assert found.error <= ALPHA + NOISE
    assert found.left_out <= ALPHA + NOISE
    assert list(found.power) == sorted(found.power)


def test_what_is_better_is_seen():
    """Three standard deviations on three tasks: nearly always with three seeds."""
    assert simulate("normal", 3, 3, BOARDS).power[2] > 0.85
    assert simulate("normal", 3, 5, BOARDS).power[1] > 0.85
    assert simulate("bimodal", 3, 10, BOARDS).power[1] > 0.7
    assert simulate("normal", 1, 5, 20).power == (0.0, 0.0, 0.0)  # one task cannot conclude


def test_intervals_cover():
    found = simulate("normal", 3, 5, BOARDS)
    assert found.mean > 0.9 and found.difference > 0.9
    both, alone = over_examples(5, 0.08, 60)
    assert both > 0.85 and alone > 0.85


def test_the_page_has_a_line_for_every_case():
    lines = PAGE.read_text().splitlines()
    assert sum(line.startswith(tuple(f"| {kind}" for kind in KINDS)) for line in lines) == 24
