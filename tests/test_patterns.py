"""Patterns and allocations: exact counts, the tie rule, and what is refused."""

import itertools
import math

import pytest
import torch

from zoo import (
    Allocated,
    Blocks,
    ConfigError,
    Method,
    NofM,
    Owl,
    Ramp,
    Score,
    above_threshold,
    eq4,
    erk,
    keep_in_rows,
    learned,
    magnitude,
    pattern_of,
    shared_by_outliers,
    stored,
    straight_through,
    topk_by_row,
    topk_in_all,
    topk_in_type,
    topk_local,
    with_allocation,
    with_pattern,
)
from zoo.parts.scores import norm, total

TO_HALF = Ramp(1.0, 0.5, 0.2, 0.8, 3)
PITFALL = torch.tensor([[0.9, 0.1, 0.5, 0.7, 0.2, 0.3, 0.2, 0.2]])


def in_order(score: list[float], k: int) -> list[int]:
    """The k best by a stable sort of (-score, index): another route to the tie rule."""
    order = sorted(range(len(score)), key=lambda i: (-score[i], i))
    return [int(i in order[:k]) for i in range(len(score))]


@pytest.mark.parametrize("k", [1, 3, 7, 8, 9])
def test_rows_keep_exactly_k_with_ties_to_the_lowest_index(k):
    scores = torch.randint(0, 4, (50, 8), generator=torch.Generator().manual_seed(k)).float()
    scores[0] = math.nan
    expected = [in_order([-math.inf if x != x else x for x in row], k) for row in scores.tolist()]
    assert keep_in_rows(scores, k).int().tolist() == expected


@pytest.mark.parametrize(
    ("kept", "group", "expected"),
    [
        (2, 4, [1, 0, 0, 1, 1, 1, 0, 0]),
        (1, 2, [1, 0, 0, 1, 0, 1, 1, 0]),
        (4, 8, [1, 0, 1, 1, 0, 1, 0, 0]),
    ],
)
def test_pitfall_43_n_of_m_keeps_the_best_of_each_group_of_inputs(kept, group, expected):
    assert NofM(kept, group)({"a": PITFALL}, kept / group)["a"].int().tolist() == [expected]


def test_n_of_m_agrees_with_a_sort_of_each_group():
    scores = torch.randint(0, 3, (64, 24), generator=torch.Generator().manual_seed(1)).float()
    for kept, group in ((1, 2), (2, 4), (1, 4), (3, 4), (4, 8)):
        mask = NofM(kept, group)({"a": scores}, kept / group)["a"]
        groups = scores.reshape(-1, group).tolist()
        assert mask.int().reshape(-1, group).tolist() == [in_order(g, kept) for g in groups]


def test_pitfall_44_n_of_m_is_reached_from_above_with_exact_counts():
    """At .75 the two best of each group are safe and the two best of the others stay too."""
    mask = NofM(2, 4)({"a": PITFALL}, 0.75)["a"]
    assert mask.int().tolist() == [[1, 0, 1, 1, 1, 1, 1, 0]]
    scores = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    for level in (1.0, 0.9, 0.61, 0.5):
        mask = NofM(2, 4)({"a": scores}, level)["a"]
        assert int(mask.sum()) == int(level * 256)
        assert bool((mask.reshape(-1, 4).sum(1) >= 2).all())
    assert bool(NofM(2, 4)({"a": scores}, 1.0)["a"].all())


def test_pitfall_43_n_of_m_refuses_a_ragged_width_by_name_and_too_low_a_density():
    with pytest.raises(ConfigError, match="encoder.x has 6 inputs, which pattern 2:4 cannot"):
        NofM(2, 4)({"encoder.x": torch.ones(4, 6)}, 0.5)
    with pytest.raises(ConfigError, match=r"more than a density of 0\.3"):
        NofM(2, 4)({"a": PITFALL}, 0.3)
    with pytest.raises(ConfigError, match="keeps N of every M"):
        NofM(4, 4)


def test_blocks_stay_or_go_together():
    score = torch.tensor([[3.0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 9, 0], [1, 1, 0, 0]])
    sums = Blocks(2, total)({"a": score}, 0.5)["a"]
    assert sums.int().tolist() == [[0, 0, 1, 1]] * 2 + [[0, 0, 1, 1]] * 2
    roots = Blocks(2, norm)({"a": score}, 0.25)["a"]
    assert roots.int().tolist() == [[0, 0, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    with pytest.raises(ConfigError, match="a is 4 x 6, which blocks of 4 x 4 cannot cover"):
        Blocks(4)({"a": torch.ones(4, 6)}, 0.5)


def test_scopes_compete_where_they_say():
    generator = torch.Generator().manual_seed(5)
    names = [f"layer.{i}.{kind}" for i in range(3) for kind in ("x", "y")]
    scores = {n: torch.randint(0, 9, (4, 10), generator=generator).float() for n in names}
    by_type, over_all = topk_in_type(scores, 0.33), topk_in_all(scores, 0.33)
    assert list(by_type) == names
    for kind in ("x", "y"):
        own = [n for n in names if n.endswith(kind)]
        flat = torch.cat([scores[n].flatten() for n in own]).tolist()
        kept = torch.cat([by_type[n].flatten() for n in own]).int().tolist()
        assert kept == in_order(flat, int(0.33 * 120))
    flat = torch.cat([s.flatten() for s in scores.values()]).tolist()
    assert torch.cat([m.flatten() for m in over_all.values()]).int().tolist() == in_order(flat, 79)


def test_a_pattern_is_given_to_a_method_by_its_name():
    method = Method(score=magnitude, level=TO_HALF)
    assert with_pattern(method, "free") is method
    assert with_pattern(method, "row").mask is topk_by_row
    assert with_pattern(method, "matrix").mask is topk_local
    assert with_pattern(method, "4x4").mask == Blocks(4, norm)
    moved = Method(score=learned, level=TO_HALF, gate=straight_through)
    assert with_pattern(moved, "4x4").mask == Blocks(4, total)
    with pytest.raises(ConfigError, match="ask for density 0.25"):
        with_pattern(method, "1:4")
    with pytest.raises(ConfigError, match="did you mean 'global'"):
        with_pattern(method, "globl")
    with pytest.raises(ConfigError, match="keeps the highest scores"):
        with_pattern(Method(score=learned, gate=straight_through, mask=above_threshold), "row")
    with pytest.raises(ConfigError, match="keeps the highest scores"):
        with_pattern(Method(), "row")


def test_pitfall_83_erk_keeps_whole_what_would_be_above_one():
    square, wide = torch.empty(768, 768), torch.empty(3072, 768)
    scores = dict(zip("qkvoud", (*[square] * 4, wide, wide.T), strict=True))
    for level, of_square, of_wide in ((0.8, 1.0, 0.7), (0.1, 0.1333333, 0.0833333)):
        found = erk(scores, level)
        assert found["q"] == pytest.approx(of_square) and found["u"] == pytest.approx(of_wide)
        kept = sum(found[name] * s.numel() for name, s in scores.items())
        assert kept == pytest.approx(level * 12 * 768**2)


def test_pitfall_82_owl_gives_more_to_layers_of_outliers():
    scores = {f"layer.{i}.x": torch.ones(1, 100) for i in range(4)}
    for i, outliers in enumerate((4, 1, 2, 1)):
        scores[f"layer.{i}.x"][0, :outliers] = 1000.0
    found = Owl()(scores, 0.3)
    assert list(found.values()) == pytest.approx([0.406667, 0.246667, 0.3, 0.246667], abs=1e-6)
    same = {name: torch.ones(2, 2) for name in scores}
    assert Owl()(same, 0.3) == dict.fromkeys(same, 0.3)


def test_an_allocation_decides_the_density_of_each_matrix_and_the_pattern_the_rest():
    scores = {"layer.0.x": torch.rand(20, 10), "layer.1.x": torch.rand(20, 10) - 3}
    shares = eq4(scores, 0.4)
    for within in (topk_local, topk_by_row):
        masks = Allocated(eq4, within)(scores, 0.4)
        for name, mask in masks.items():
            assert torch.equal(mask, within({name: scores[name]}, shares[name])[name])
    assert sum(shares.values()) == pytest.approx(0.8)
    method = Method(score=magnitude, level=TO_HALF)
    assert with_allocation(with_pattern(method, "row"), "owl").mask == Allocated(Owl(), topk_by_row)
    with pytest.raises(ConfigError, match="needs a ranking within each matrix"):
        with_allocation(with_pattern(method, "2:4"), "erk")
    with pytest.raises(ConfigError, match="did you mean 'erk'"):
        with_allocation(method, "er")


def test_every_pattern_keeps_no_more_than_the_level():
    scores = {f"layer.{i}.x": torch.rand(8, 16) for i in range(2)}
    for text, level in itertools.product(("row", "matrix", "type", "global", "4x4"), (0.3, 0.77)):
        masks = pattern_of(text, norm)(scores, level)
        assert 0 < sum(int(m.sum()) for m in masks.values()) <= level * 256
    assert Score(read=stored).together is total


def test_pitfall_44_one_of_four_prunes_one():
    mask = NofM(1, 4)({"a": torch.tensor([[4.0, 3.0, 2.0, 1.0]])}, 0.25)["a"]
    assert mask.int().tolist() == [[1, 0, 0, 0]]


def test_pitfall_45_rows_keep_more_than_the_density():
    """BERT-base: int(density * inputs) of each row."""
    for density, expected in (
        (0.03, 2_543_616),
        (0.1, 8_432_640),
        (0.5, 42_467_328),
        (0.8, 67_912_704),
    ):
        wide, deep = torch.rand(1, 768), torch.rand(1, 3072)
        kept = topk_by_row({"wide": wide, "deep": deep}, density)
        each = {name: int(mask.sum()) for name, mask in kept.items()}
        assert 12 * ((4 * 768 + 3072) * each["wide"] + 768 * each["deep"]) == expected


def test_pitfall_50_a_threshold_prunes_one_more_and_all_ties():
    for scores in (torch.arange(8.0)[None], torch.ones(1, 8)):
        for pattern in ("row", "matrix", "2:4"):
            assert int(pattern_of(pattern, norm)({"a": scores}, 0.5)["a"].sum()) == 4


def test_pitfall_82_owl_keeps_the_total_where_layers_differ_in_size():
    shares, sizes = {"a": 4, "b": 1, "c": 2, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 3}
    found = shared_by_outliers(shares, sizes, 0.3, 0.08)
    expected = [0.424444, 0.264444, 0.317778, 0.264444]
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)
    assert sum(found[n] * sizes[n] for n in sizes) == pytest.approx(0.3 * 6)
    with pytest.raises(ConfigError, match=r"the largest that fits is 0\.045"):
        shared_by_outliers(shares, dict.fromkeys(shares, 1), 0.03, 0.08)
