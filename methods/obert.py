"""oBERT: second-order pruning with a block-diagonal Fisher matrix (Kurtic et al. 2022)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.gmp_star import FAMILY, fisher, gmp_star
from methods.one_shot import magnitude_row, retraining
from zoo import (
    ConfigError,
    GradientCalibration,
    Method,
    Request,
    Score,
    Times,
    Values,
    magnitude_of,
    register_method,
    topk_in_all,
    total,
)


def obert_one_shot_recipe(request: Request) -> tuple[Values, Values]:
    """The released Fisher matrix; the dense recipe for retraining."""
    return retraining(request), fisher(request)


@dataclass(frozen=True)
class BlockFisher:
    """The inverse of F = damping * I + (1/m) sum of g g^T in blocks of `size` weights of a matrix,
    row by row, the last block filled with zeros; m is `gradients` (Kurtic et al. 2022, Eq. 4 to 6).

    The score of w_i is w_i^2 / (2 V_ii) with V = F^-1, and pruning it changes the others of its
    block by -w_i / V_ii times column i of V, each pruned weight as if it were the only one. With
    blocks of 1 F is diagonal and no other weight moves.
    """

    size: int
    damping: float
    gradients: int

    def blocks(self, entries: Tensor) -> Tensor:
        """Entries (out, in) as (blocks, size)."""
        flat = entries.flatten()
        return F.pad(flat, (0, -len(flat) % self.size)).view(-1, self.size)

    def start(self, weight: Tensor) -> Tensor:
        """V without any gradient, I / damping, (blocks, size, size)."""
        identity = torch.eye(self.size, dtype=weight.dtype, device=weight.device) / self.damping
        return identity.expand(-(-weight.numel() // self.size), -1, -1).clone()

    def add(self, held: Tensor, gradient: Tensor) -> None:
        """V <- V - u u^T / (m + g^T u) with u = V g (Woodbury)."""
        g = self.blocks(gradient)
        u = torch.bmm(held, g[..., None])[..., 0]
        scaled = u / (self.gradients + (g * u).sum(-1, keepdim=True))
        held.baddbmm_(u[..., None], scaled[:, None, :], alpha=-1)

    def scores(self, weight: Tensor, held: Tensor) -> Tensor:
        """w^2 / (2 V_ii), in the shape of W."""
        found = self.blocks(weight).square() / (2 * held.diagonal(dim1=1, dim2=2))
        return found.flatten()[: weight.numel()].view_as(weight)

    def update(self, weight: Tensor, held: Tensor, pruned: Tensor) -> Tensor:
        """W minus the sum over pruned q of w_q / V_qq times column q of V."""
        w = self.blocks(weight)
        shares = w / held.diagonal(dim1=1, dim2=2) * self.blocks(pruned.to(weight.dtype))
        found = w - torch.bmm(held, shares[..., None])[..., 0]
        return found.flatten()[: weight.numel()].view_as(weight)


def with_fisher(
    method: Method,
    *,
    block: int = 50,
    damping: float = 1e-7,
    gradients: int = 1024,
    gradient_batch: int = 16,
    recomputations: int = 1,
    calibration_seed: int | None = None,
) -> Method:
    """The method with masks, and changes of weights, by a block Fisher matrix, over all matrices.
    Raises ConfigError for a block below 1 and a damping that is not greater than 0."""
    if block < 1 or damping <= 0:
        raise ConfigError(
            f"block must be at least 1 and damping greater than 0, got {block} and {damping:g}"
        )
    calibration = GradientCalibration(
        BlockFisher(block, damping, gradients),
        gradients,
        gradient_batch,
        recomputations,
        calibration_seed,
    )
    score = Score(magnitude_of, together=total)
    return replace(method, score=score, mask=topk_in_all, calibration=calibration)


RANGES = {"damping": Times(0.01, 100)}
"""What `--tune` searches: the authors tell to choose the damping for each model."""
GRADUAL = ("first", "start", "stop", "every", "last_rate")
"""The hyper-parameters of its schedule."""


@register_method("obert", recipe="gmp_star", ranges=RANGES, label="oBERT", family=FAMILY, order=26)
def obert(density: float, **hyper: Any) -> Method:
    """oBERT: weights of the least second-order loss go, the rest makes up for them (Kurtic 2022).

    Reproduces the 30-epoch rows of oBERT's README, which are distilled. Schedule and learning rates
    are those of gmp_star. At each moment of pruning `gradients` mini-batches of `gradient_batch`
    examples give the Fisher matrix in blocks of `block` weights; with `recomputations` the density
    falls in as many equal parts, each with fresh gradients, as in the last version of the code.
    """
    schedule = {name: hyper.pop(name) for name in GRADUAL if name in hyper}
    return with_fisher(gmp_star(density, **schedule), **hyper)


@register_method(
    "obert_one_shot",
    recipe=obert_one_shot_recipe,
    ranges=RANGES,
    label="oBERT, one-shot",
    family="one-shot",
    order=83,
)
def obert_one_shot(
    density: float, *, retrain: bool = False, dense_seed: int | None = None, **hyper: Any
) -> Method:
    """A fine-tuned model pruned at once by oBERT's Fisher matrix (Kurtic 2022).

    Reproduces the one-shot table of oBERT's README (SQuAD) with its `recomputations`. Starts from
    the dense trial of the same seed, or of `dense_seed`; with `retrain` what remains trains by the
    dense recipe under the fixed mask.
    """
    return with_fisher(magnitude_row(density, retrain=retrain, dense_seed=dense_seed), **hyper)
