"""Gates: what multiplies W to give the working weight W', and how scores learn through it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
"""Stretch and temperature of the hard concrete distribution (Louizos et al. 2018)."""

CLOSED = -math.log(-ZETA / GAMMA)
"""Largest S with an evaluation gate of 0: sigmoid(S) = -gamma / (zeta - gamma) = 1/12."""

SHIFT = BETA * math.log(-GAMMA / ZETA)
"""P(gate > 0) = sigmoid(S - SHIFT); SHIFT is about -1.5986."""

BOUNDS = 1e-4, 1 - 1e-4
"""The least and the largest u of the noise."""

PIECE = 2**16
"""Entries whose noise is drawn at once, so that they stay in a processor's cache."""

GateFn = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(score, mask, noise) -> gate."""
SlopeFn = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor | None]
"""(score, mask, noise, gate) -> d gate / d score, None for 1."""


def mask_itself(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """The binary mask: W' = M * W, so dL/dW = G * M with G = dL/dW'.

    >>> from zoo import mask_itself
    >>> mask_itself("S", "M", None)
    'M'
    """
    return mask


def identity_slope(score: Tensor, mask: Tensor, noise: Tensor | None, value: Tensor) -> None:
    """Straight through: d gate / dS = 1, so dL/dS = G * W, masked entries included (Sanh et al.
    2020, Eq. 2; SMP, Eq. 3). None means the factor 1, which saves a product.

    >>> from zoo import identity_slope
    >>> identity_slope("S", "M", None, "M") is None
    True
    """
    return None


@dataclass(frozen=True)
class Gate:
    """The gate of one layer as functions of (score, mask, noise), each (out, in).

    `value` is the gate in training. `slope` is d value / dS; its fourth argument is the gate's
    current value. Without a slope scores get no gradient. `test` is the gate in evaluation, None if
    it is the same. `draw` makes the noise anew at every step, from the score and a seed of 63 bits
    for (task, seed, step, matrix), on a CPU in threads; without it noise is None.

    >>> import torch
    >>> from zoo import Gate
    >>> half = Gate(value=lambda score, mask, noise: 0.5 * mask)
    >>> half.value(None, torch.tensor([True, False]), None)
    tensor([0.5000, 0.0000])
    """

    value: GateFn = mask_itself
    slope: SlopeFn | None = None
    test: GateFn | None = None
    draw: Callable[[Tensor, int], Tensor] | None = None


hard = Gate()
"""The mask; scores are not trained."""

straight_through = Gate(slope=identity_slope)
"""The mask; scores learn as if they were the gate."""


def permuted(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """The mask with its entries permuted: as many weights are kept, the choice of them is lost.

    The permutation is drawn from the mask itself, so that every matrix and every trial has another
    one, and an evaluation repeats bit for bit.

    >>> import torch
    >>> from zoo import permuted
    >>> int(permuted(None, torch.tensor([[True, True, False, False]]), None).sum())
    2
    """
    seed = int(mask.flatten().nonzero().sum())
    device = torch.device("cpu") if mask.is_meta else mask.device
    draws = torch.Generator(device).manual_seed(seed)
    order = torch.randperm(mask.numel(), generator=draws, device=device)
    return mask.flatten()[order.to(mask.device)].view_as(mask)


permuted_in_evaluation = Gate(slope=identity_slope, test=permuted)
"""Learns like `straight_through` and is evaluated with permuted masks."""


@cache
def _logistic(kind: torch.dtype) -> np.ndarray:
    """logit(u) / beta of 65,536 u in the middle of equal parts of (0, 1), clamped as all u are."""
    u = torch.arange(2**16, dtype=torch.float64).add_(0.5).div_(2**16).clamp_(*BOUNDS)
    table: np.ndarray = torch.logit(u).div_(BETA).to(kind).numpy()
    return table


def draw_logistic(score: Tensor, seed: int) -> Tensor:
    """logit(u) / beta of u ~ U(0, 1) clamped to [1e-4, 1 - 1e-4], drawn where the score is: a CPU
    draws 16 bits of u by NumPy's SFC64, other kinds of device by torch's generators, which give
    other numbers.

    >>> import torch
    >>> from zoo import draw_logistic
    >>> draw_logistic(torch.zeros(2, 3), 0).shape
    torch.Size([2, 3])
    """
    if score.device.type == "cpu":  # looked up: a logarithm of each u takes twice as long
        kind = torch.float64 if score.dtype == torch.float64 else torch.float32
        table, draws = _logistic(kind), np.random.SFC64(seed)
        drawn = np.empty(score.numel(), table.dtype)
        for start in range(0, len(drawn), PIECE):
            part = drawn[start : start + PIECE]
            numbers = np.asarray(draws.random_raw(-(-len(part) // 4))).view(np.uint16)
            np.take(table, numbers[: len(part)], out=part, mode="clip")
        return torch.from_numpy(drawn).view(score.shape).to(score.dtype)
    own = None if score.is_meta else torch.Generator(score.device).manual_seed(seed)
    u = torch.rand(score.shape, generator=own, dtype=torch.float32, device=score.device)
    return u.to(score.dtype).clamp_(*BOUNDS).logit_().div_(BETA)


def hard_concrete_sample(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """The gate of L0 in training, clip(sigmoid((logit(u) + S) / beta) (zeta - gamma) + gamma, 0, 1)
    with u uniform (Louizos et al. 2018, Eq. 10). The noise is logit(u) / beta.

    >>> import torch
    >>> from zoo import hard_concrete_sample
    >>> hard_concrete_sample(torch.zeros(2), None, torch.tensor([0.0, 9.0]))
    tensor([0.5000, 1.0000])
    """
    assert noise is not None
    s = torch.add(noise, score, alpha=1 / BETA).sigmoid_()
    return torch.add(s.new_tensor(GAMMA), s, alpha=ZETA - GAMMA, out=s).clamp_(0, 1)


def hard_concrete_slope(score: Tensor, mask: Tensor, noise: Tensor | None, value: Tensor) -> Tensor:
    """The derivative of the sample with respect to S: s (1 - s) (zeta - gamma) / beta where the
    gate is not clipped, else 0.

    >>> import torch
    >>> from zoo import hard_concrete_slope
    >>> hard_concrete_slope(None, None, None, torch.tensor([0.5, 1.0]))
    tensor([0.4500, 0.0000])
    """
    # s (1 - s) is (value - value^2 - gamma zeta) / (zeta - gamma)^2, since zeta + gamma is 1.
    scale = 1 / (ZETA - GAMMA) / BETA
    slope = torch.addcmul(value, value, value, value=-1)
    slope = torch.add(slope.new_tensor(-GAMMA * ZETA * scale), slope, alpha=scale, out=slope)
    return torch.ops.aten.hardtanh_backward.grad_input(slope, value, 0, 1, grad_input=slope)


def hard_concrete_mean(
    score: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
) -> Tensor:
    """The gate of L0 in evaluation, clip(sigmoid(S) (zeta - gamma) + gamma, 0, 1); there is no
    division by beta (Louizos et al. 2018, Eq. 13).

    >>> import torch
    >>> from zoo import hard_concrete_mean
    >>> hard_concrete_mean(torch.tensor([-2.4, 0.0]))
    tensor([0.0000, 0.5000])
    """
    return torch.sigmoid(score).mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)


hard_concrete = Gate(
    hard_concrete_sample, slope=hard_concrete_slope, test=hard_concrete_mean, draw=draw_logistic
)
"""The gate of L0 (Louizos et al. 2018; Sanh et al. 2020, section 4). Noise is drawn once per
optimiser step; the released code draws it in every forward pass."""
