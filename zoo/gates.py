"""Gates: what multiplies W to give the working weight W', and how scores learn through it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
"""Stretch and temperature of the hard concrete distribution (Louizos 2018; Sanh 2020)."""

CLOSED = -math.log(-ZETA / GAMMA)
"""The evaluation gate is 0 for S up to here, where sigmoid(S) = -gamma / (zeta - gamma) = 1/12."""

SHIFT = BETA * math.log(-GAMMA / ZETA)
"""P(gate > 0) = sigmoid(S - SHIFT); SHIFT is about -1.5986."""

GateFn = Callable[[Tensor, Tensor, Tensor | None], Tensor]
SlopeFn = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor | None]


def mask_itself(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """The binary mask: W' = M * W, so dL/dW = G * M with G = dL/dW'."""
    return mask


def identity_slope(score: Tensor, mask: Tensor, noise: Tensor | None, value: Tensor) -> None:
    """Straight through: d gate / dS = 1, so dL/dS = G * W, masked entries included (Sanh 2020,
    Eq. 2; SMP, Eq. 3). None stands for the factor 1, which need not be multiplied."""
    return None


@dataclass(frozen=True)
class Gate:
    """The gate of one layer as functions of (score, mask, noise), each (out, in).

    `value` is the gate in training. `slope` is d value / dS and may read the value that stands too,
    its fourth argument; without it scores get no gradient. `test` is the gate in evaluation where
    it is another one. `draw` makes the noise, new at every refresh; without it noise is None.
    """

    value: GateFn = mask_itself
    slope: SlopeFn | None = None
    test: GateFn | None = None
    draw: Callable[[Tensor, torch.Generator], Tensor] | None = None


hard = Gate()
"""The mask; scores are not trained."""

straight_through = Gate(slope=identity_slope)
"""The mask; scores learn as if it were they."""


def other_places(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """The mask with its entries in random places: as many are kept, the choice of them is lost.

    The permutation is drawn from the mask itself, so that every matrix and every trial has its own
    and an evaluation repeats bit for bit.
    """
    seed = int(mask.flatten().nonzero().sum())
    places = torch.randperm(mask.numel(), generator=torch.Generator().manual_seed(seed))
    return mask.flatten()[places.to(mask.device)].view_as(mask)


shuffled_at_evaluation = Gate(slope=identity_slope, test=other_places)
"""Learns as `straight_through` does and is judged with other places."""


def draw_uniform(score: Tensor, generator: torch.Generator) -> Tensor:
    """u ~ U(0, 1) clamped to [1e-4, 1 - 1e-4], drawn on the CPU so that devices agree."""
    u = torch.rand(score.shape, generator=generator, dtype=torch.float32)
    return u.clamp_(1e-4, 1 - 1e-4).to(device=score.device, dtype=score.dtype)


def hard_concrete_sample(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """clip(sigmoid((logit(u) + S) / beta) (zeta - gamma) + gamma, 0, 1): the gate in training."""
    assert noise is not None
    s = torch.logit(noise).add_(score).div_(BETA).sigmoid_()
    return s.mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)


def hard_concrete_slope(score: Tensor, mask: Tensor, noise: Tensor | None, value: Tensor) -> Tensor:
    """d sample / dS: s (1 - s) (zeta - gamma) / beta where not clipped, else 0."""
    s = (value - GAMMA).div_(ZETA - GAMMA)
    slope = torch.addcmul(s, s, s, value=-1).mul_((ZETA - GAMMA) / BETA)
    return torch.ops.aten.hardtanh_backward.grad_input(slope, value, 0, 1, grad_input=slope)


def hard_concrete_mean(
    score: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
) -> Tensor:
    """clip(sigmoid(S) (zeta - gamma) + gamma, 0, 1): the evaluation gate; no division by beta."""
    return torch.sigmoid(score).mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)


hard_concrete = Gate(
    hard_concrete_sample, slope=hard_concrete_slope, test=hard_concrete_mean, draw=draw_uniform
)
"""L0's gate (Louizos 2018; Sanh 2020, section 4). One draw per optimiser step: with accumulation
over micro-batches all of them share it, where the released code draws anew in every forward."""
