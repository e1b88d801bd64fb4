"""SparseGPT: pruning at once with a least-squares update of what remains (Frantar and Alistarh
2023)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.one_shot import FAMILY, magnitude_row, retraining
from zoo import (
    Calibration,
    Choice,
    ConfigError,
    Method,
    NofM,
    Request,
    Times,
    Value,
    Values,
    products,
    register_method,
    topk_local,
)

CODE = "SparseGPT's released code (IST-DASLab/sparsegpt, Apache-2.0)"


def sparsegpt_recipe(request: Request) -> tuple[Values, Values]:
    """The released code's values; the dense recipe for retraining."""
    return retraining(request), {
        "examples": Value(128, f"{CODE}: sequences"),
        "damping": Value(0.01, f"{CODE}: of the mean of the diagonal"),
        "block": Value(128, f"{CODE}: columns"),
    }


@dataclass(frozen=True)
class ColumnByColumn:
    """The update of SparseGPT (Frantar and Alistarh 2023, Algorithm 1), in float64.

    With H the second moments of inputs plus `damping` times their mean diagonal, and U upper
    triangular with U^T U = H^-1, columns are taken in order. A pruned weight w of column j is made
    up for by w / U_jj times row j of U in the columns behind it. On entering `block` columns, or
    the M of N:M, their mask is chosen by abs(W) / U_jj with the W of that moment. After column j
    the columns behind it minimise the damped error of outputs, given columns up to j.
    """

    damping: float
    block: int

    def __call__(self, weight: Tensor, moments: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
        factor, dead = inverse_factor(moments, self.damping)
        now = weight.double().masked_fill(dead, 0.0)
        mask = torch.ones_like(weight, dtype=torch.bool)
        width = self._width(choice)
        for start in range(0, weight.shape[1], width):
            here = slice(start, min(start + width, weight.shape[1]))
            own, part = now[:, here], factor[here, here]
            mask[:, here] = choice((own.abs() / part.diagonal()).to(weight.dtype))
            errors = columns_pruned(own, mask[:, here], part)
            now[:, here.stop :] -= errors @ factor[here, here.stop :]
        return mask, now.to(weight.dtype)

    def _width(self, choice: Choice) -> int:
        """Columns whose mask is chosen at once."""
        if isinstance(choice.mask, NofM):
            return choice.group
        return max(self.block // choice.group, 1) * choice.group


def inverse_factor(moments: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """U, upper triangular with U^T U = (H + damping * mean diag(H) * I)^-1, in float64, and which
    inputs are always 0: their H_jj is taken as 1.

    >>> import torch
    >>> from methods.sparsegpt import inverse_factor
    >>> inverse_factor(torch.tensor([[4.0, 0.0], [0.0, 0.0]]), 0.0)[0]
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    hessian = moments.double().clone()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    diagonal += damping * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True), dead


def columns_pruned(now: Tensor, mask: Tensor, factor: Tensor) -> Tensor:
    """Prune columns one after another, in place; returns the errors e (out, columns), by which the
    columns behind are then changed: W -= e U."""
    errors = torch.zeros_like(now)
    for j in range(now.shape[1]):
        errors[:, j] = now[:, j].masked_fill(mask[:, j], 0.0) / factor[j, j]
        now[:, j:] -= errors[:, j : j + 1] * factor[j, j:]
        now[:, j].masked_fill_(~mask[:, j], 0.0)
    return errors


@register_method(
    "sparsegpt",
    recipe=sparsegpt_recipe,
    ranges={"damping": Times(0.1, 10)},
    label="SparseGPT",
    family=FAMILY,
    order=82,
)
def sparsegpt(
    density: float,
    *,
    damping: float = 0.01,
    block: int = 128,
    examples: int = 128,
    calibration_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """SparseGPT: what remains of each matrix makes up for what is pruned (Frantar 2023).

    Starts from a fine-tuned model, as Wanda does, and reads all second moments of inputs. Weights
    compete within `block` columns of a matrix. The paper has no encoders. Differs from the released
    code: exactly int(density * weights) of a block are kept, ties are not all pruned; float64.
    Raises ConfigError for a damping that is not above 0, and a block below 1.
    """
    if damping <= 0 or block < 1:
        raise ConfigError(
            f"damping must be greater than 0 and block at least 1, got {damping:g} and {block}"
        )
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    solve = ColumnByColumn(damping, block)
    calibration = Calibration(solve, products, examples, seed=calibration_seed)
    return replace(base, mask=topk_local, calibration=calibration)
