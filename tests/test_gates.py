"""Gates: hard concrete against the published values and against autograd."""

import math

import pytest
import torch

from tests.helpers import DEVICES
from zoo import hard, hard_concrete, permuted_in_evaluation, straight_through
from zoo.parts.gates import CLOSED, SHIFT


def test_constants_of_the_hard_concrete_distribution():
    assert pytest.approx(-1.5986, abs=1e-4) == SHIFT
    assert pytest.approx(-2.3979, abs=1e-4) == CLOSED


def test_the_slope_of_hard_concrete_is_the_derivative_of_the_sample():
    """Against autograd, with samples in all three parts: clipped to 0, between, clipped to 1."""
    generator = torch.Generator().manual_seed(3)
    score = torch.randn(40, 40, generator=generator, dtype=torch.float64).requires_grad_()
    noise = hard_concrete.draw(score.detach(), 3)
    u = 1 / (1 + (-noise * 2 / 3).exp())
    s = torch.sigmoid((u.log() - (1 - u).log() + score) / (2 / 3))
    value = (s * 1.2 - 0.1).clamp(0, 1)
    value.sum().backward()
    drawn = hard_concrete.value(score.detach(), None, noise)
    assert torch.allclose(drawn, value.detach())
    slope = hard_concrete.slope(score.detach(), None, noise, drawn)
    assert torch.allclose(slope, score.grad)
    assert (slope == 0).any() and (slope != 0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_of_a_clamped_uniform_and_drawn_where_the_score_is(device):
    score = torch.zeros(300, 300, device=device)
    drawn = [hard_concrete.draw(score, seed).cpu() for seed in (1, 1, 2)]
    assert hard_concrete.draw(score, 1).device.type == device
    first, again, other = (1 / (1 + (-noise.double() * 2 / 3).exp()) for noise in drawn)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0.999e-4 and first.max() <= 1 - 0.999e-4
    assert first.min() < 2e-4 and first.max() > 1 - 2e-4
    assert first.mean().item() == pytest.approx(0.5, abs=0.005)
    assert first.var().item() == pytest.approx(1 / 12, abs=0.002)
    together = torch.stack([first.flatten(), other.flatten()])
    assert abs(torch.corrcoef(together)[0, 1].item()) < 0.02


def test_as_many_gates_are_open_in_training_as_the_penalty_counts():
    """The share of a million samples that are not 0, and of those that are 1, at scores from nearly
    closed to nearly open, within four standard errors."""
    for level in (-6.0, -2.4, 0.0, 2.197, 5.0):
        score = torch.full((1000, 1000), level)
        gate = hard_concrete.value(score, None, hard_concrete.draw(score, 5))
        opened = 1 / (1 + math.exp(-level + 2 / 3 * math.log(0.1 / 1.1)))
        whole = 1 / (1 + math.exp(-level - 2 / 3 * math.log(0.1 / 1.1)))
        for share, found in ((opened, gate > 0), (whole, gate == 1)):
            error = math.sqrt(share * (1 - share) / 1e6)
            assert found.double().mean().item() == pytest.approx(share, abs=4 * error + 1e-7)


def test_a_permuted_mask_keeps_as_many_weights_in_an_order_of_its_own():
    draw = torch.Generator().manual_seed(2)
    masks = [torch.rand(40, 50, generator=draw) < 0.3 for _ in range(2)]
    first, second = (permuted_in_evaluation.test(None, mask, None) for mask in masks)
    for mask, moved in zip(masks, (first, second), strict=True):
        assert moved.sum() == mask.sum() and moved.shape == mask.shape
        assert torch.equal(moved, permuted_in_evaluation.test(None, mask, None))
        chance = (mask & moved).sum().item() / mask.sum().item()
        assert chance == pytest.approx(mask.float().mean().item(), abs=0.08)
    by_number = torch.arange(2000).view(40, 50) < masks[0].sum()  # as many kept, other ones
    assert not torch.equal(permuted_in_evaluation.test(None, by_number, None), first)


def test_binary_gates_are_the_mask_itself():
    mask = torch.tensor([[True, False]])
    assert hard.value(torch.zeros(1, 2), mask, None) is mask
    assert hard.slope is None
    assert straight_through.value(torch.zeros(1, 2), mask, None) is mask
