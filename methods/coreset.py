"""Structured pruning without data: dimensions of attention heads and neurons are drawn in
proportion to their weights (Mussay et al. 2020, and a talk on its use for BERT)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from methods.taylor import FAMILY
from zoo import (
    ConfigError,
    Held,
    Method,
    Request,
    Values,
    WeightCalibration,
    at_once,
    count,
    dimensions_and_neurons,
    head_dimensions,
    keep_in_rows,
    register_method,
)
from zoo.errors import unknown


def coreset_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe, for retraining; there is nothing else to choose."""
    return retraining(request), {}


def norms(held: Held, part: int) -> Tensor:
    """The norm of each unit's weights in a part, its bias among them where the part has one."""
    weights, biases = held.weights[part], held.biases[part]
    both = weights if biases is None else torch.cat([weights, biases], -1)
    return both.norm(dim=-1)


def products_of_norms(held: Held) -> Tensor:
    """The norm in the first part times that in the last: K and Q, V and O (importance sampling of
    matrix products)."""
    return norms(held, 0) * norms(held, -1)


def largest_entry(held: Held) -> Tensor:
    """The norm in K or V times the largest absolute entry in Q or O."""
    return norms(held, 0) * held.weights[-1].abs().amax(-1)


def last_norm(held: Held) -> Tensor:
    """The norm in the last part alone: Q, O."""
    return norms(held, -1)


def equal(held: Held) -> Tensor:
    """The same for all."""
    return torch.ones_like(held.weights[0][..., 0])


CHANCES: dict[str, Callable[[Held], Tensor]] = {
    "randmatmul": products_of_norms,
    "coreset": largest_entry,
    "query_norm": last_norm,
    "uniform": equal,
}
"""What the chance of a dimension of an attention head is in proportion to."""


def sensitivity(held: Held) -> Tensor:
    """What the chance of a neuron is in proportion to: its largest absolute weight in D times GELU
    of the norm of its row of U with the bias (Mussay et al. 2020, with inputs of norm 1)."""
    return held.weights[-1].abs().amax(-1) * torch.nn.functional.gelu(norms(held, 0))


ESTIMATORS = ("practical", "unbiased", "released")
"""How units are drawn, and what multiplies those that are kept."""


@dataclass(frozen=True)
class Draw:
    """A draw of units for each head, or of neurons for each layer, each in proportion to its
    chance.

    "practical" draws m units without replacement and changes no weight. "unbiased" draws m times
    with replacement, so that fewer stay; a unit that came c times has the factor c / (m p), and the
    products of Q and K, and of V and O, are right on average. "released" draws without replacement
    with the factor 1 / (m p), which is biased. Factors are those of Q, O and D.
    """

    chances: Callable[[Held], Tensor]
    estimator: str

    def __call__(self, held: Held, density: float) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The mask of the units (..., n), int(density * n) of each n or fewer, and their factors by
        part. Where no unit has a chance, all have the same."""
        of_heads = held.weights[0].ndim == 3  # (heads, dimensions, weights); neurons have no heads
        chance = (self.chances if of_heads else sensitivity)(held).double()
        whole = chance.sum(-1, keepdim=True)
        p = torch.where(whole > 0, chance / whole, 1 / chance.shape[-1])
        many = count(density, p.shape[-1])
        generator = torch.Generator().manual_seed(held.seed)
        drawn = drawn_counts(p.cpu(), many, generator, self.estimator == "unbiased").to(p.device)
        return drawn > 0, (None, factors(drawn, p, many, self.estimator))


def drawn_counts(p: Tensor, many: int, generator: torch.Generator, again: bool) -> Tensor:
    """How often each unit of p (..., n) is drawn in `many` draws, with replacement if `again`.
    Without, by log p plus Gumbel noise (Kool et al. 2019); a chance of 0 is drawn last."""
    if again:
        flat = p.reshape(-1, p.shape[-1])
        picked = torch.multinomial(flat, many, replacement=True, generator=generator)
        ones = flat.new_ones(picked.shape)
        return torch.zeros_like(flat).scatter_add_(1, picked, ones).view_as(p)
    u = torch.rand(p.shape, generator=generator, dtype=torch.float64).clamp_(1e-300)
    return keep_in_rows(p.log() - (-u.log()).log(), many).double()


def factors(drawn: Tensor, p: Tensor, many: int, estimator: str) -> Tensor | None:
    """What multiplies kept units; None for 1. A unit that had no chance gets 0."""
    if estimator == "practical":
        return None
    return torch.where((drawn > 0) & (p > 0), drawn / (many * p), 0.0)


@register_method("coreset", recipe=coreset_recipe, label="coreset", family=FAMILY, order=91)
def coreset(
    density: float,
    *,
    chances: str = "randmatmul",
    estimator: str = "practical",
    attention: float | None = None,
    sampling_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Dimensions of attention heads and neurons, drawn by their norms without data (Mussay 2020).

    Of the dimensions of each attention head int(density * dimensions) rows of Q and K stay, as many
    rows of V and columns of O, and int(density * neurons) neurons of each layer; fewer where the
    "unbiased" `estimator` draws one twice. With `attention` that fraction of attention stays and
    all neurons, and `density` only says what remains in all. `sampling_seed`, else the trial's
    seed, draws. Starts from the dense trial of the same seed, or of `dense_seed`; with `retrain`
    what stays trains by the dense recipe. The public code scales what it drew without replacement:
    estimator="released". Raises ConfigError for other `chances`, another `estimator` and an
    `attention` outside (0, 1].
    """
    if chances not in CHANCES:
        raise ConfigError(unknown("chances", chances, CHANCES))
    if attention is not None and not 0 < attention <= 1:
        raise ConfigError(f"attention of a coreset is a fraction above 0, got {attention:g}")
    if estimator not in ESTIMATORS:
        raise ConfigError(unknown("estimator", estimator, ESTIMATORS))
    return replace(
        magnitude_row(density, retrain=retrain, dense_seed=dense_seed),
        level=at_once(density if attention is None else attention),
        units=dimensions_and_neurons if attention is None else head_dimensions,
        calibration=WeightCalibration(Draw(CHANCES[chances], estimator), sampling_seed),
        budget=None,
    )
