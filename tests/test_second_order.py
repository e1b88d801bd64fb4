"""oBERT's Fisher matrix and the schedule that it shares with GMP*, against closed solutions."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from methods.obert import BlockFisher
from zoo import ConfigError, Cycles, Staircase, at_once, stepwise
from zoo.engine import calibrate
from zoo.registry import methods

G = torch.tensor([[1.0, 0, 2, -1], [0, 1, 1, 1], [2, -1, 0, 1]]).double()
W = torch.tensor([[0.5, -0.2, 0.3, 0.1]]).double()
DAMPING = 0.1
F = DAMPING * torch.eye(4).double() + G.T @ G / 3


def held(fisher: BlockFisher, gradients: Tensor) -> Tensor:
    """The inverse after all gradients."""
    found = fisher.start(gradients[:1])
    for gradient in gradients:
        fisher.add(found, gradient[None])
    return found


def close(found: Tensor, expected: list, tolerance: float = 1e-6) -> None:
    """Equal to the printed digits."""
    torch.testing.assert_close(
        found.flatten(), torch.tensor(expected).double(), rtol=0, atol=tolerance
    )


def test_pitfall_56_the_recursion_does_not_give_the_inverse():
    inverse = held(BlockFisher(4, DAMPING, 3), G)[0]
    torch.testing.assert_close(inverse, torch.linalg.inv(F), rtol=0, atol=1e-12)
    close(inverse.diagonal(), [2.852847, 5.346730, 2.037206, 1.722484])


def test_blocks_cross_rows_and_the_last_is_filled_with_zeros():
    """7 x 5 weights in blocks of 8: each block's inverse is that of its own part of F."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(6, 7, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    fisher = BlockFisher(8, 0.01, 6)
    inverse = fisher.start(weight)
    assert inverse.shape == (5, 8, 8)
    for gradient in g:
        fisher.add(inverse, gradient)
    flat, scores = g.flatten(1), []
    for begin in range(0, 35, 8):
        own = flat[:, begin : begin + 8]
        part = torch.linalg.inv(0.01 * torch.eye(own.shape[1]).double() + own.T @ own / 6)
        size = len(part)
        torch.testing.assert_close(inverse[begin // 8, :size, :size], part, rtol=1e-9, atol=1e-9)
        scores.append(weight.flatten()[begin : begin + 8] ** 2 / (2 * part.diagonal()))
    torch.testing.assert_close(fisher.scores(weight, inverse).flatten(), torch.cat(scores))


def test_pitfall_57_blocks_of_one_move_other_weights():
    fisher = BlockFisher(1, DAMPING, 3)
    inverse = held(fisher, G)
    close(fisher.scores(W, inverse), [0.220833, 0.015333, 0.0795, 0.0055])
    pruned = torch.tensor([[False, True, False, False]])
    new = fisher.update(W, inverse, pruned)
    assert torch.equal(new[~pruned], W[~pruned]) and abs(new[0, 1]) < 1e-15


def loss(change: Tensor, matrix: Tensor) -> float:
    """Half of change^T F change."""
    return float(change.flatten() @ matrix @ change.flatten()) / 2


def test_pitfall_58_several_at_once_are_taken_for_a_joint_update():
    fisher = BlockFisher(4, DAMPING, 3)
    inverse = held(fisher, G)
    close(fisher.scores(W, inverse), [0.043816, 0.003741, 0.022089, 0.002903])
    alone = fisher.update(W, inverse, torch.tensor([[False, False, False, True]]))
    close(alone, [0.585091, -0.095250, 0.229258, 0])
    pair = torch.tensor([[False, True, False, True]])
    new = fisher.update(W, inverse, pair).masked_fill(pair, 0.0)
    close(new, [0.710151, 0, 0.131596, 0])
    assert loss(new - W, F) == pytest.approx(0.009437, abs=1e-6)
    assert loss(W * pair, F) == pytest.approx(0.020833, abs=1e-6)
    joint = W.clone().masked_fill(pair, 0.0)
    free = [0, 2]
    gone = [1, 3]
    joint[0, free] += torch.linalg.solve(F[free][:, free], F[free][:, gone] @ W[0, gone])
    close(joint, [0.634911, 0, 0.192487, 0])
    assert loss(joint - W, F) == pytest.approx(0.004215, abs=1e-6)


def test_pitfall_58_the_sum_of_single_updates_can_be_worse_than_none():
    matrix = torch.tensor([[5.5, 3, 4], [3, 2.5, 2], [4, 2, 4.5]]).double()
    weight = torch.tensor([[0.1, -0.4, -0.3]]).double()
    fisher, inverse = BlockFisher(3, 1.0, 1), torch.linalg.inv(matrix)[None]
    scores = fisher.scores(weight, inverse).flatten()
    pruned = torch.zeros(1, 3, dtype=torch.bool)
    pruned[0, scores.argsort()[:2]] = True
    assert pruned.tolist() == [[True, True, False]]
    new = fisher.update(weight, inverse, pruned).masked_fill(pruned, 0.0)
    assert loss(new - weight, matrix) == pytest.approx(0.170755, abs=1e-6)
    assert loss(weight * pruned, matrix) == pytest.approx(0.1075, abs=1e-6)


def test_pitfall_59_recomputation_does_not_fall_in_equal_parts(monkeypatch):
    """Four rounds to 70 %: sparsity .175, .35, .525, .7, and pruned weights stay 0."""
    method = methods["obert_one_shot"].make(0.3, recomputations=4, gradients=1, block=4)
    seen = []

    def mask(scores, level):
        seen.append(level)
        return {
            n: s > s.flatten().sort().values[int((1 - level) * s.numel())]
            for n, s in scores.items()
        }

    layer = SimpleNamespace(weight=torch.randn(4, 10), mask=torch.ones(4, 10, dtype=torch.bool))
    masks = []

    def put(name, mask, weight):
        layer.mask, layer.weight = mask, weight
        masks.append(mask)
        assert not weight[~mask].any()

    class Inside:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    masked = SimpleNamespace(
        layers={"a": layer}, level=None, put=put, evaluating=Inside, groups=None
    )
    network = SimpleNamespace(training=True, eval=lambda: None, train=lambda mode: None)
    run = SimpleNamespace(masked=masked, network=network, method=SimpleNamespace(mask=mask))
    fisher = method.calibration.curvature
    monkeypatch.setattr(calibrate, "mini_batches", lambda *args: iter(()))
    monkeypatch.setattr(calibrate, "_curvatures", lambda *args: {"a": fisher.start(layer.weight)})
    calibrate.by_gradients(run, method.calibration, 0.3, 0)
    assert [1 - level for level in seen] == pytest.approx([0.175, 0.35, 0.525, 0.7])
    assert all(bool((after <= before).all()) for before, after in pairwise(masks))


def test_pitfall_85_the_levels_of_obert_and_gmp_star():
    for density, expected in (
        (0.1, [0.7, 0.784259, 0.840741, 0.875, 0.892593, 0.899074, 0.9]),
        (0.03, [0.7, 0.81375, 0.89, 0.93625, 0.96, 0.96875, 0.97]),
    ):
        for name in ("gmp_star", "obert"):
            level = methods[name].make(density).level
            found = {step: level(step, 30) for step in range(30)}
            at = [step for step, one in found.items() if one is not None]
            assert at == [2, 6, 10, 14, 18, 22, 26]
            assert [1 - found[step] for step in at] == pytest.approx(expected, abs=1e-6)


def test_moments_and_cycles_are_where_they_should_be():
    assert at_once(0.5)(0, 0) == 0.5 and at_once(0.5)(3, 10) is None
    assert stepwise(0.3, 0.3, 0.1, 0.5, 0.2).levels[-1][1] == pytest.approx(0.3)
    cycles = Cycles((0.0, 0.5), 0.1)
    assert [cycles(t, 4, 0.0) for t in range(4)] == pytest.approx([1, 0.55, 1, 0.55])
    with pytest.raises(ConfigError, match=r"moments must rise"):
        Staircase(((0.5, 0.3), (0.2, 0.1)))
    with pytest.raises(ConfigError, match="cycles must begin at 0"):
        Cycles((0.1, 0.5), 0.1)
    with pytest.raises(ConfigError, match="damping greater than 0"):
        methods["obert"].make(0.1, damping=0.0)
