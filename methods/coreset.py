"""Structured pruning without data: dimensions of attention heads and neurons are drawn in
proportion to their weights (Mussay et al. 2020, and a talk on its use for BERT)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from methods.taylor import FAMILY
from zoo import (
    ConfigError,
    Held,
    Method,
    Request,
    Score,
    Values,
    dimensions_and_neurons,
    head_dimensions,
    magnitude_of,
    register_method,
    topk_by_row,
)


def coreset_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe, for retraining; there is nothing else to choose."""
    return retraining(request), {}


def norms(held: Held, part: int) -> Tensor:
    """The norm of each unit's weights in a part, its bias among them where the part has one."""
    weights, biases = held.weights[part], held.biases[part]
    both = weights if biases is None else torch.cat([weights, biases], -1)
    return both.norm(dim=-1)


def products_of_norms(held: Held) -> Tensor:
    """The norm in the first part times that in the second: Q and K, V and O (importance sampling of
    matrix products)."""
    return norms(held, 0) * norms(held, 1)


def largest_entry(held: Held) -> Tensor:
    """The norm of the unit that is read, K or V, times the largest absolute entry of the other."""
    first = norms(held, 1 if held.name.endswith("query_key") else 0)
    other = held.weights[0 if held.name.endswith("query_key") else 1]
    return first * other.abs().amax(-1)


def first_norm(held: Held) -> Tensor:
    """The norm in the first part alone: Q, V."""
    return norms(held, 0)


def equal(held: Held) -> Tensor:
    """The same for all."""
    return torch.ones_like(held.weights[0][..., 0])


CHANCES: dict[str, Callable[[Held], Tensor]] = {
    "randmatmul": products_of_norms,
    "coreset": largest_entry,
    "query_norm": first_norm,
    "uniform": equal,
}
"""What the chance of a dimension of an attention head is in proportion to."""


def sensitivity(held: Held) -> Tensor:
    """What the chance of a neuron is in proportion to: its largest absolute weight in D times GELU
    of the norm of its row of U with the bias (Mussay et al. 2020, with inputs of norm 1)."""
    return held.weights[1].abs().amax(-1) * torch.nn.functional.gelu(norms(held, 0))


def drawn(chances: Callable[[Held], Tensor], held: Held) -> Tensor:
    """Scores whose k largest are a draw of k units without replacement, each draw in proportion to
    the chances: log p plus Gumbel noise (Kool et al. 2019). A chance of 0 is drawn last."""
    chance = sensitivity(held) if held.name.endswith("neurons") else chances(held)
    generator = torch.Generator().manual_seed(held.seed)
    u = torch.rand(chance.shape, generator=generator, dtype=torch.float64)
    return chance.double().log() - (-u.clamp(1e-300).log()).log().to(chance.device)


@register_method("coreset", recipe=coreset_recipe, label="coreset", family=FAMILY, order=91)
def coreset(
    density: float,
    *,
    chances: str = "randmatmul",
    attention_only: bool = False,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Dimensions of attention heads and neurons, drawn by their norms without data (Mussay 2020).

    Of the dimensions of each attention head int(density * dimensions) rows of Q and K stay, as many
    rows of V and columns of O, and int(density * neurons) neurons of each layer, unless
    `attention_only`. The seed of the trial draws them, without replacement; kept weights stay as
    they are. Starts from the dense trial of the same seed, or of `dense_seed`; with `retrain` what
    stays trains by the dense recipe. Differs from the public code, whose factors on kept weights
    are biased for draws without replacement. Raises ConfigError for other `chances`.
    """
    if chances not in CHANCES:
        raise ConfigError(f"no chances {chances!r} of a coreset; choose among {', '.join(CHANCES)}")
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    units = head_dimensions if attention_only else dimensions_and_neurons
    score = Score(read=magnitude_of, of_units=partial(drawn, CHANCES[chances]))
    return replace(base, score=score, mask=topk_by_row, units=units, budget=None)
