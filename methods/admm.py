"""ADMM: pruning at once with the weights that fit the mask best (Boza 2024)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.one_shot import FAMILY, magnitude_row, retraining
from zoo import (
    Calibration,
    Choice,
    ConfigError,
    Method,
    Request,
    Times,
    Value,
    Values,
    products,
    register_method,
    topk_local,
)

CODE = "ADMM's released code (fmfi-compbio/admm-pruning, MIT)"


def admm_recipe(request: Request) -> tuple[Values, Values]:
    """The released code's values; the dense recipe for retraining."""
    return retraining(request), {
        "examples": Value(128, f"{CODE}: sequences"),
        "damping": Value(0.1, f"{CODE}: of the mean of the diagonal"),
        "iterations": Value(20, CODE),
        "ramp": Value(15, f"{CODE}: iterations in which the mask changes"),
    }


@dataclass(frozen=True)
class Alternating:
    """ADMM for W that minimises the error of outputs under a mask (Boza 2024, Algorithm 2), in
    float64.

    Inputs are scaled to norm 1, H gets `damping` times its mean diagonal, rho is 1, Y is the scaled
    dual. In the first `ramp` iterations the mask is chosen by abs(W + Y), at a sparsity that rises
    to the target on a cubic curve; then it stays. With the mask fixed it converges to masked least
    squares.
    """

    damping: float
    iterations: int
    ramp: int

    def __call__(self, weight: Tensor, moments: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
        norms = moments.double().diagonal().sqrt() + 1e-8
        hessian = moments.double() / torch.outer(norms, norms)
        identity = torch.eye(len(norms), dtype=torch.float64, device=weight.device)
        hessian += self.damping * hessian.diagonal().mean() * identity
        target = weight.double() * norms
        wanted, inverse = target @ hessian, torch.linalg.inv(hessian + identity)
        now, dual = target, torch.zeros_like(target)
        mask = torch.ones_like(target, dtype=torch.bool)
        for step in range(self.iterations):
            if step < self.ramp:
                mask = choice((now + dual).abs().to(weight.dtype), self.density(choice, step))
            fitted = (now + dual).masked_fill(~mask, 0.0)
            dual = dual + now - fitted
            now = (wanted + fitted - dual) @ inverse
        found = (now + dual).masked_fill(~mask, 0.0) / norms
        return mask, found.to(weight.dtype)

    def density(self, choice: Choice, step: int) -> float:
        """The density of the mask in an iteration: 1 - s_t with s_t = s - s (1 - (t + 1) / ramp)^3.
        A pattern N:M keeps its N best of each group from the start."""
        left = (1 - (step + 1) / self.ramp) ** 3
        return choice.density + (1 - choice.density) * left


@register_method(
    "admm",
    recipe=admm_recipe,
    ranges={"damping": Times(0.1, 10)},
    label="ADMM",
    family=FAMILY,
    order=84,
)
def admm(
    density: float,
    *,
    damping: float = 0.1,
    iterations: int = 20,
    ramp: int = 15,
    examples: int = 128,
    calibration_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """ADMM: what remains of each matrix is fitted to its outputs, mask and weights in turn (Boza).

    Starts from a fine-tuned model, as Wanda does, and reads all second moments of inputs. Differs
    from the released code: its ramp of the sparsity works (there the whole target is pruned from
    the first iteration), and every N:M is what it says (there it is 2:4). Raises ConfigError for a
    damping that is not above 0, and unless 1 <= ramp <= iterations.
    """
    if damping <= 0 or not 1 <= ramp <= iterations:
        raise ConfigError(
            f"damping must be greater than 0 and 1 <= ramp <= iterations, got {damping:g}, {ramp}"
            f" and {iterations}"
        )
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    solve = Alternating(damping, iterations, ramp)
    calibration = Calibration(solve, products, examples, seed=calibration_seed)
    return replace(base, mask=topk_local, calibration=calibration)
