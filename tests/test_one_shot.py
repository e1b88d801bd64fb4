"""Wanda and SparseGPT against brute force and closed solutions, in float64."""

import itertools

import pytest
import torch
from torch import Tensor

from methods.admm import Alternating
from methods.one_shot import by_inputs
from methods.sparsegpt import ColumnByColumn
from zoo import Choice, ConfigError, MaskFn, NofM, topk_by_row, topk_local
from zoo.registry import methods


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chosen(mask: Tensor) -> MaskFn:
    """A mask function that gives this mask, its columns one after another."""
    at = [0]

    def give(scores, level):
        width = scores["a"].shape[1]
        at[0] += width
        return {"a": mask[:, at[0] - width : at[0]]}

    return give


def damped(moments: Tensor, damping: float) -> Tensor:
    """H + damping * mean diag(H) * I."""
    return moments + damping * moments.diagonal().mean() * torch.eye(len(moments)).double()


def loss(change: Tensor, hessian: Tensor) -> Tensor:
    """The error of outputs of each row, change H change^T."""
    return ((change @ hessian) * change).sum(1)


def sequential(weight: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """Column by column, the columns behind solved anew by least squares each time: of all W whose
    columns up to j are as they are, those with the least error."""
    now = weight.clone()
    for j in range(weight.shape[1]):
        now[:, j] = now[:, j] * mask[:, j]
        done = (now - weight)[:, : j + 1]
        behind = slice(j + 1, weight.shape[1])
        if j + 1 < weight.shape[1]:
            cross, own = hessian[: j + 1, behind], hessian[behind, behind]
            now[:, behind] = weight[:, behind] - torch.linalg.solve(own, (done @ cross).T).T
    return now


def test_pitfall_48_wanda_keeps_what_the_norms_of_inputs_say():
    weight = torch.tensor([[0.1, -0.4, 0.3, 0.2], [0.5, -0.05, 0.2, -0.6]])
    choice = Choice(topk_by_row, "a", 0.5)
    equal, kept = by_inputs(weight, torch.ones(4), choice)
    assert equal.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]] and kept is weight
    last = by_inputs(weight, torch.tensor([1.0, 1.0, 1.0, 16.0]), choice)[0]
    assert last.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_pitfall_49_wanda_is_optimal_on_orthogonal_inputs_among_all_masks_of_ten_weights(k):
    """Exactly the mask of least error of each row, out of all with k weights."""
    weight, moments = draw(6, 10, seed=k), draw(10, seed=k + 1).square()
    mask = by_inputs(weight, moments, Choice(topk_by_row, "a", k / 10 + 1e-9))[0]
    assert mask.sum(1).tolist() == [k] * 6
    ours = loss(weight * ~mask, torch.diag(moments))
    for kept in itertools.combinations(range(10), k):
        other = torch.zeros(10, dtype=torch.bool)
        other[list(kept)] = True
        theirs = loss(weight * ~other, torch.diag(moments))
        worse = theirs >= ours - 1e-12
        assert bool(worse.all())


def test_pitfall_49_wanda_is_not_optimal_where_inputs_are_correlated():
    hessian = torch.tensor([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]]).double()
    weight = torch.tensor([[1.0, -1.0, 0.5]]).double()
    mask = by_inputs(weight, hessian.diagonal(), Choice(topk_by_row, "a", 0.34))[0]
    assert mask.int().tolist() == [[1, 0, 0]]
    assert loss(weight * ~mask, hessian).item() == pytest.approx(1.25)
    assert loss(weight * torch.tensor([[1, 1, 0]]), hessian).item() == pytest.approx(0.2)


W = torch.tensor([[0.5, -0.3, 0.8, 0.1], [-0.2, 0.6, 0.1, -0.7], [0.4, 0.2, -0.5, 0.3]]).double()
H = torch.tensor([[6, 3, 3, 6], [3, 7, 4, 6], [3, 4, 7, 6], [6, 6, 6, 12]]).double()
DAMPING = 0.01
"""Of the mean diagonal 8: 0.08."""


def test_pitfall_51_sparsegpt_gives_the_known_numbers():
    mask, updated = ColumnByColumn(DAMPING, 4)(W, H, Choice(topk_local, "a", 0.5))
    assert mask.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]]
    expected = [
        [0.5, 0, 0.725373, 0],
        [0, 0.599224, 0, -0.749283],
        [0, 0, -0.448310, 0.572340],
    ]
    torch.testing.assert_close(updated, torch.tensor(expected).double(), rtol=0, atol=1e-6)
    hessian = damped(H, DAMPING)
    assert loss(W * ~mask, hessian).sum().item() == pytest.approx(2.328)
    assert loss(updated - W, hessian).sum().item() == pytest.approx(1.164429, abs=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 9])
def test_pitfall_52_sparsegpt_is_sequential_least_squares_whatever_the_blocks(block):
    for weight, moments in ((W, H), (draw(5, 9), draw(30, 9, seed=1).T @ draw(30, 9, seed=1))):
        keep = draw(*weight.shape, seed=2) > 0
        expected = sequential(weight, keep, damped(moments, DAMPING))
        choice = Choice(chosen(keep), "a", 0.5)
        mask, updated = ColumnByColumn(DAMPING, block)(weight, moments, choice)
        assert torch.equal(mask, keep) and bool((updated[~keep] == 0).all())
        torch.testing.assert_close(updated, expected, rtol=1e-10, atol=1e-12)


def test_pitfall_52_sparsegpt_chooses_on_entering_a_block():
    mask = ColumnByColumn(DAMPING, 2)(W, H, Choice(topk_local, "a", 0.5))[0]
    assert mask[2].int().tolist() == [1, 0, 0, 1] and int(mask.sum()) == 6
    wide = draw(8, 16)
    moments = draw(40, 16, seed=3).T @ draw(40, 16, seed=3)
    mask, updated = ColumnByColumn(DAMPING, 8)(wide, moments, Choice(NofM(2, 4), "a", 0.5))
    assert bool((mask.reshape(8, 4, 4).sum(-1) == 2).all())
    torch.testing.assert_close(
        updated, sequential(wide, mask, damped(moments, DAMPING)), rtol=1e-10, atol=1e-12
    )


def test_pitfall_53_sparsegpt_may_be_worse_than_masking_and_never_better_than_the_exact_solution():
    hessian = torch.tensor([[4, 0, -1], [0, 9, 5], [-1, 5, 4]]).double()
    weight = torch.tensor([[-1.0, -2.0, 1.0]]).double()
    keep = torch.tensor([[False, True, False]])
    updated = ColumnByColumn(0.01, 3)(weight, hessian, Choice(chosen(keep), "a", 0.4))[1]
    full = damped(hessian, 0.01)
    assert loss(updated - weight, full).item() == pytest.approx(16.0151, abs=1e-4)
    assert loss(weight * ~keep, full).item() == pytest.approx(10.1133, abs=1e-4)
    exact = (weight @ full)[:, 1:2] / full[1, 1]
    best = torch.cat([torch.zeros(1, 1), exact, torch.zeros(1, 1)], 1)
    assert loss(best - weight, full).item() == pytest.approx(7.3529, abs=1e-4)


def test_an_input_that_is_always_zero_has_no_weights():
    moments = H.clone()
    moments[1], moments[:, 1] = 0, 0
    mask, updated = ColumnByColumn(DAMPING, 4)(W, moments, Choice(topk_local, "a", 0.5))
    assert bool((updated[:, 1] == 0).all()) and bool(updated.isfinite().all())
    assert not mask[:, 1].any()
    ranked = by_inputs(W, moments.diagonal(), Choice(topk_by_row, "a", 0.75))[0]
    assert not ranked[:, 1].any()


ROW = torch.tensor([[4, 1, 0, 1], [1, 3, 1, 0], [0, 1, 2, 1], [1, 0, 1, 3]]).double()


@pytest.mark.parametrize(("iterations", "tolerance"), [(20, 2e-6), (200, 1e-12)])
def test_pitfall_54_admm_does_not_solve_its_own_problem(iterations, tolerance):
    """Masked least squares with inputs of norm 1 and the damping, by its normal equations."""
    weight = torch.tensor([[1.0, -0.5, 0.8, 0.3]]).double()
    keep = torch.tensor([[True, False, True, False]])
    norms = ROW.diagonal().sqrt() + 1e-8
    hessian = damped(ROW / torch.outer(norms, norms), 0.1)
    free = [0, 2]
    right = (weight * norms) @ hessian
    exact = torch.zeros(1, 4).double()
    exact[0, free] = torch.linalg.solve(hessian[free][:, free], right[0, free])
    exact = exact / norms
    torch.testing.assert_close(
        exact, torch.tensor([[0.954545, 0, 0.709091, 0]]).double(), rtol=0, atol=1e-6
    )
    fixed = Choice(lambda scores, level: {"a": keep}, "a", 0.5)
    found = Alternating(0.1, iterations, 1)(weight, ROW, fixed)[1]
    torch.testing.assert_close(found, exact, rtol=0, atol=tolerance)


def test_pitfall_55_the_ramp_of_admm_does_nothing():
    seen = []

    def mask(scores, level):
        seen.append(1 - level)
        return topk_local(scores, level)

    weight = draw(6, 4)
    kept, _ = Alternating(0.1, 20, 15)(weight, ROW, Choice(mask, "a", 0.5))
    assert seen[:3] == pytest.approx([0.0935, 0.1745, 0.244], abs=1e-4)
    assert len(seen) == 15 and seen[-1] == 0.5 and int(kept.sum()) == 12
    four = Choice(NofM(2, 4), "a", 0.5)
    assert (Alternating(0.1, 20, 15)(weight, ROW, four)[0].sum(1) == 2).all()


def test_values_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="damping must be greater than 0"):
        methods["sparsegpt"].make(0.5, damping=0.0)
    with pytest.raises(ConfigError, match="1 <= ramp <= iterations, got 0.1, 9 and 5"):
        methods["admm"].make(0.5, ramp=9, iterations=5)
    with pytest.raises(ConfigError, match="examples of a calibration must be at least 1"):
        methods["wanda"].make(0.5, examples=0)
