"""Heads and neurons under a budget of computation, without training (Kwon et al. 2022)."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from methods.taylor import FAMILY
from zoo import (
    GateCalibration,
    Method,
    Request,
    Rescaling,
    Value,
    Values,
    heads_and_neurons,
    register_method,
)

KWON = "Kwon et al. 2022, released code"
Rows = Mapping[str, Tensor]
Costs = Mapping[str, float]


def kwon_recipe(request: Request) -> tuple[Values, Values]:
    """The released code's 2,048 examples; the dense recipe for retraining."""
    return retraining(request), {"examples": Value(2048, KWON)}


def of_batches(products: Tensor, real: Tensor) -> Tensor:
    """The derivative of a batch's mean loss by the gate of each unit."""
    return products.sum((0, 1)).unsqueeze(0) / len(products)


def fisher(rows: Rows) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information, by batches (their Eq. 5)."""
    return {name: own.square().sum(0) for name, own in rows.items()}


def search(rows: Rows, costs: Costs, level: float) -> dict[str, Tensor]:
    """The heads and neurons with the largest sum of Fisher information whose cost is at most
    `level` of that of all (their Algorithm 1): some of the best heads of all layers, and as many of
    the best neurons as the rest pays for.

    Differs from the released code, which counts no neurons where heads alone cost too much.

    >>> import torch
    >>> from methods.kwon import search
    >>> rows = {"layer.0.heads": torch.tensor([[5.0, 3.0, 1.0]]).sqrt()}
    >>> rows |= {"layer.0.neurons": torch.tensor([[2.0, 2.0, 1.0, 0.5]]).sqrt()}
    >>> masks = search(rows, {"layer.0.heads": 4.0, "layer.0.neurons": 1.0}, 0.5)
    >>> [int(mask.sum()) for mask in masks.values()]
    [1, 4]
    """
    scores = {name: score.double() for name, score in fisher(rows).items()}
    neurons = [name for name in scores if name.endswith(".neurons")]
    heads = [name for name in scores if name not in neurons]
    budget = level * sum(costs[name] * score.numel() for name, score in scores.items())
    of_heads, of_neurons = (torch.cat([scores[n] for n in kind]) for kind in (heads, neurons))
    each, other = costs[heads[0]], costs[neurons[0]]
    sums = [
        torch.cat([x.new_zeros(1), x.sort(descending=True).values.cumsum(0)])
        for x in (of_heads, of_neurons)
    ]
    left = budget - each * torch.arange(len(of_heads) + 1, dtype=torch.float64)
    many = (left >= -1e-9 * budget).nonzero().flatten()
    rest = (left[many] / other + 1e-9).long().clamp(max=len(of_neurons))
    at = int((sums[0].cpu()[many] + sums[1].cpu()[rest]).argmax())
    masks = _best(heads, scores, of_heads, int(many[at]))
    return masks | _best(neurons, scores, of_neurons, int(rest[at]))


def _best(names: list[str], scores: Rows, all_scores: Tensor, many: int) -> dict[str, Tensor]:
    """1 at the `many` highest scores of all groups; ties go to the first."""
    kept = torch.zeros_like(all_scores, dtype=torch.bool)
    kept[all_scores.argsort(descending=True, stable=True)[:many]] = True
    return dict(zip(names, kept.split([scores[name].numel() for name in names]), strict=True))


def rearranged(rows: Tensor, gone: int) -> Tensor:
    """1 at what stays of the units of a layer when `gone` go: at first those with the lowest Fisher
    information, then each other one in its order joins them, and the one leaves whose stay lowers
    sum_b (sum_i g_bi)^2 of the rest most (their section 4.2).

    >>> import torch
    >>> from methods.kwon import rearranged
    >>> rearranged(torch.tensor([[1.0, 0.0, -1.2], [0.0, 1.1, 0.0]]), 2)
    tensor([False,  True, False])
    """
    gradients = rows.double()
    order = gradients.square().sum(0).argsort(stable=True)
    pruned, total = order[:gone], gradients[:, order[:gone]].sum(1)
    for unit in order[gone:]:
        if not gone:
            break
        joined = torch.cat([unit[None], pruned])
        total = total + gradients[:, unit]
        leaves = int((total[:, None] - gradients[:, joined]).square().sum(0).argmin())
        total = total - gradients[:, joined[leaves]]
        pruned = torch.cat([joined[:leaves], joined[leaves + 1 :]])
    kept = torch.ones(gradients.shape[1], dtype=torch.bool, device=rows.device)
    kept[pruned] = False
    return kept


def searched_and_rearranged(rows: Rows, costs: Costs, level: float) -> dict[str, Tensor]:
    """The masks of the search, rearranged in each layer, heads and neurons apart."""
    masks = search(rows, costs, level)
    return {name: rearranged(rows[name], int((~mask).sum())) for name, mask in masks.items()}


def of_root(rows: Rows, costs: Costs, level: float) -> dict[str, Tensor]:
    """The masks of the search at the root of the level: those of the model that scales follow."""
    return search(rows, costs, level**0.5)


@register_method("kwon", recipe=kwon_recipe, label="Kwon et al.", family=FAMILY, order=94)
def kwon(
    density: float,
    *,
    examples: int = 2048,
    calibration_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Heads and neurons by Fisher information under a budget, rearranged and scaled (Kwon 2022).

    `density` is the budget: multiply-accumulates of the layers for an example of mean length over
    those of the dense model; remaining weights are measured. Gradients of gates are those of
    batches of 32, of `examples` training texts. Reproduces the search by FLOPs, the rearrangement
    and the rescaling of the paper, without its search by latency. Differs from the released code:
    examples are drawn without replacement, the mean length is theirs and not the dev set's, and the
    scales are solved exactly. Starts from the dense trial of the same seed, or of `dense_seed`;
    with `retrain` what stays trains by the dense recipe.
    """
    reads = GateCalibration(
        of_batches,
        examples,
        seed=calibration_seed,
        choose=searched_and_rearranged,
        rescaling=Rescaling(of_root),
    )
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    return replace(base, units=heads_and_neurons, calibration=reads, budget=None)
