"""Exact selection: against a stable sort, with and without its bracket."""

import numpy as np
import pytest
import torch

from zoo import keep, keep_among, keep_each
from zoo.parts import selection
from zoo.parts.selection import bracket, kth_largest

POOL = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, np.inf, -np.inf, np.nan, 0.5, 2.0, 3e38, np.pi]


def by_sorting(scores: list[torch.Tensor], k: int) -> list[torch.Tensor]:
    """The k largest by a stable sort: score, then the first tensor, then the lowest flat index."""
    flat = torch.cat([score.flatten() for score in scores]).numpy().copy()
    flat[np.isnan(flat)] = -np.inf
    mask = np.zeros(len(flat), bool)
    mask[np.argsort(-flat.astype(np.float64), kind="stable")[:k]] = True
    parts = torch.from_numpy(mask).split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def some_scores(rng: np.random.Generator) -> torch.Tensor:
    """A small matrix: few distinct values, all equal, or almost no ties."""
    shape = rng.integers(1, 12, 2)
    kind = rng.integers(4)
    if kind == 0:
        values = rng.normal(size=shape) * 10.0 ** rng.integers(-42, 30)
    elif kind == 1:
        values = np.full(shape, rng.choice(POOL))
    else:
        values = rng.choice(rng.choice(POOL, rng.integers(1, 8)), shape)
    return torch.from_numpy(values.astype(rng.choice(["f4", "f8"])))


@pytest.mark.parametrize("block", range(10))
@pytest.mark.parametrize("sample", [16, selection.SAMPLE])
def test_ten_thousand_cases_equal_a_stable_sort(block, sample, monkeypatch):
    """A sample of 16 makes brackets that miss and brackets whose ends tie; both routes agree."""
    monkeypatch.setattr(selection, "SAMPLE", sample)
    monkeypatch.setattr(selection, "DEVIATIONS", 0.5)
    rng = np.random.default_rng(block)
    for _ in range(500):
        first = some_scores(rng)
        scores = [first] + [some_scores(rng).to(first.dtype) for _ in range(rng.integers(0, 3))]
        k = int(rng.integers(0, sum(score.numel() for score in scores) + 2))
        expected = by_sorting(scores, k)
        for mine, theirs in zip(keep_among(scores, k), expected, strict=True):
            assert torch.equal(mine, theirs)
        if 0 < k <= sum(score.numel() for score in scores):
            whole = [score.flatten() for score in scores]
            for mine, theirs in zip(selection._by_topk(whole, k), expected, strict=True):
                assert torch.equal(mine, theirs.flatten())


def test_a_bracket_that_misses_falls_back_to_a_full_selection(monkeypatch):
    """Only numbers inside the bracket are partitioned, and all of them where it misses."""
    found = []
    whole = selection._by_partition
    monkeypatch.setattr(
        selection, "_by_partition", lambda parts, k: found.append(len(parts[0])) or whole(parts, k)
    )
    score = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep(score, 5000), by_sorting([score], 5000)[0])
    assert (
        found and max(found) < 10_000
    )  # the bracket held: only numbers inside it were partitioned
    found.clear()
    for low, high in ((7.0, 8.0), (-8.0, -7.0), (0.3, 0.3)):
        ends = (np.float32(low), np.float32(high))
        monkeypatch.setattr(selection, "bracket", lambda parts, k, ends=ends: ends)
        assert torch.equal(keep(score, 5000), by_sorting([score], 5000)[0])
        assert found.pop() == 160_000


@pytest.mark.parametrize("density", [0.8, 0.5, 0.1, 0.03])
def test_the_bracket_holds_the_kth_largest_and_is_narrow(density):
    """On matrices of BERT's sizes, with columns of different scale."""
    draw = torch.Generator().manual_seed(1)
    for rows, columns in ((768, 768), (3072, 768), (768, 3072)):
        score = torch.randn(rows, columns, generator=draw) * torch.rand(columns, generator=draw)
        flat, k = score.flatten().numpy(), int(density * score.numel())
        low, high = bracket([flat], k)
        assert low <= kth_largest([flat], k) <= high
        assert ((flat >= low) & (flat <= high)).mean() < 0.06


def test_half_precision_and_views_are_ranked_alike():
    score = torch.randn(30, 40, generator=torch.Generator().manual_seed(2))
    for other in (score.bfloat16(), score.half(), score.T):
        assert torch.equal(keep(other, 100), by_sorting([other.float().contiguous()], 100)[0])


def test_whole_numbers_of_every_size_are_ranked():
    score = torch.arange(60).view(6, 10) % 17
    for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        assert torch.equal(keep(score.to(kind), 25), by_sorting([score.float()], 25)[0])


def test_several_threads_choose_what_one_chooses():
    draw = torch.Generator().manual_seed(4)
    scores = [torch.randn(shape, generator=draw).round(decimals=1) for shape in [(60, 70)] * 9]
    counts = list(range(100, 1000, 100))
    torch.set_num_threads(3)  # conftest sets one again for the next test
    masks, together = keep_each(scores, counts), keep_among(scores, 5000)
    for score, k, mask in zip(scores, counts, masks, strict=True):
        assert torch.equal(mask, by_sorting([score], k)[0])
    assert all(map(torch.equal, together, by_sorting(scores, 5000)))
