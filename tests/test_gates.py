"""Gates: hard concrete against the published values and against autograd."""

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
    s = torch.sigmoid((noise.log() - (1 - noise).log() + score) / (2 / 3))
    value = (s * 1.2 - 0.1).clamp(0, 1)
    value.sum().backward()
    drawn = hard_concrete.value(score.detach(), None, noise)
    assert torch.allclose(drawn, value.detach())
    slope = hard_concrete.slope(score.detach(), None, noise, drawn)
    assert torch.allclose(slope, score.grad)
    assert (slope == 0).any() and (slope != 0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_clamped_uniform_and_drawn_where_the_score_is(device):
    score = torch.zeros(300, 300, device=device)
    first, again, other = (hard_concrete.draw(score, seed).cpu() for seed in (1, 1, 2))
    assert hard_concrete.draw(score, 1).device.type == device
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 1e-4 and first.max() <= 1 - 1e-4
    assert first.mean().item() == pytest.approx(0.5, abs=0.005)
    assert first.var().item() == pytest.approx(1 / 12, abs=0.002)
    together = torch.stack([first.flatten(), other.flatten()])
    assert abs(torch.corrcoef(together)[0, 1].item()) < 0.02


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
