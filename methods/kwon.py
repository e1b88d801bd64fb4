"""Heads and neurons under a budget of computation, without training (Kwon et al. 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from methods.taylor import FAMILY
from zoo import (
    ConfigError,
    GateCalibration,
    Method,
    Request,
    Rescaling,
    UnitCost,
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


def search(rows: Rows, heads: UnitCost, neurons: UnitCost, level: float) -> dict[str, Tensor]:
    """The heads and neurons with the largest sum of Fisher information whose cost is at most
    `level` of that of all (their Algorithm 1): some of the best heads of all layers, and as many of
    the best neurons as the rest pays for.

    Differs from the released code, which counts no neurons where heads alone cost too much, and
    whose search by latency takes what is spent off a budget that it uses again.

    >>> import torch
    >>> from methods.kwon import search
    >>> from zoo import UnitCost
    >>> rows = {"layer.0.heads": torch.tensor([[5.0, 3.0, 1.0]]).sqrt()}
    >>> rows |= {"layer.0.neurons": torch.tensor([[2.0, 2.0, 1.0, 0.5]]).sqrt()}
    >>> masks = search(rows, UnitCost(4.0), UnitCost(1.0), 0.5)
    >>> [int(mask.sum()) for mask in masks.values()]
    [1, 4]
    """
    scores = {name: score.double().cpu() for name, score in fisher(rows).items()}
    kinds = [_Ranked(scores, ".heads", heads), _Ranked(scores, ".neurons", neurons)]
    budget = level * sum(float(kind.costs[-1]) for kind in kinds) * (1 + 1e-9)
    first, second = kinds
    left = budget - first.costs
    many = (left >= 0).nonzero().flatten()
    rest = torch.searchsorted(second.costs, left[many], right=True) - 1
    at = int((first.sums[many] + second.sums[rest]).argmax())
    return first.best(int(many[at])) | second.best(int(rest[at]))


class _Ranked:
    """Heads or neurons of all layers by falling score, ties in order: what the best n of them cost,
    and the sum of their scores, for each n from 0 on."""

    def __init__(self, scores: Rows, kind: str, cost: UnitCost):
        self.names = [name for name in scores if name.endswith(kind)]
        self.sizes = [scores[name].numel() for name in self.names]
        every = torch.cat([scores[name] for name in self.names])
        self.order = every.argsort(descending=True, stable=True)
        self.sums = torch.cat([every.new_zeros(1), every[self.order].cumsum(0)])
        layer = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        where = torch.nn.functional.one_hot(layer[self.order], len(self.sizes)).cumsum(0)
        many = torch.cat([where.new_zeros(1, len(self.sizes)), where])
        self.costs = cost.of(many.double()).sum(1)

    def best(self, many: int) -> dict[str, Tensor]:
        """1 at the best `many`, by group."""
        kept = torch.zeros(len(self.order), dtype=torch.bool)
        kept[self.order[:many]] = True
        return dict(zip(self.names, kept.split(self.sizes), strict=True))


def rearranged(rows: Tensor, gone: int) -> Tensor:
    """1 at what stays of the units of a layer when `gone` go: at first those with the lowest Fisher
    information; then each of the others in turn joins them, and one leaves in its place, so that
    sum_b (sum_i g_bi)^2 over those that go is least (their section 4.2).

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


@dataclass(frozen=True)
class Searched:
    """The units that the search finds at the `power` of the level, by what a head and a neuron cost
    in `times`, or else in multiply-accumulates."""

    times: tuple[UnitCost, UnitCost] | None
    power: float = 1.0

    def __call__(self, rows: Rows, costs: Costs, level: float) -> dict[str, Tensor]:
        own = {name.rpartition(".")[2]: cost for name, cost in costs.items()}
        heads, neurons = self.times or (UnitCost(own["heads"]), UnitCost(own["neurons"]))
        masks = search(rows, heads, neurons, level**self.power)
        return {name: mask.to(rows[name].device) for name, mask in masks.items()}


@dataclass(frozen=True)
class Rearranged:
    """As many units of each layer as `searched` finds, heads and neurons apart, rearranged."""

    searched: Searched

    def __call__(self, rows: Rows, costs: Costs, level: float) -> dict[str, Tensor]:
        masks = self.searched(rows, costs, level)
        return {name: rearranged(rows[name], int((~mask).sum())) for name, mask in masks.items()}


TIMES = tuple(
    tuple(f"{kind}_{name}" for name in ("each", "flat", "least")) for kind in ("heads", "neurons")
)
"""The names of the times of a layer, as `zoo.tools.layer_times` prints them."""


def times_of(constraint: str, given: Mapping[str, Any]) -> tuple[UnitCost, UnitCost] | None:
    """What heads and neurons cost in a layer by the given times, None if operations count. Raises
    ConfigError for another constraint, for times that are missing or no numbers above 0, and for
    times that would count for nothing."""
    if constraint not in ("operations", "latency"):
        raise ConfigError(f"unknown constraint {constraint!r:.40}: operations or latency")
    if constraint == "operations":
        idle = [name for names in TIMES for name in names if given[name] is not None]
        if idle:
            raise ConfigError(f"{', '.join(idle)}: times count with constraint='latency' alone")
        return None
    found = []
    for names in TIMES:
        each, flat, least = (given[name] for name in names)
        if not (_is_time(each) and _is_time(flat) and flat % 1 == 0 and _is_time(least)):
            raise ConfigError(
                f"constraint='latency' needs {', '.join(names)}, numbers above 0 and below 1e9, the"
                f" second a whole one, got {each!r:.20}, {flat!r:.20}, {least!r:.20}: python -m"
                " zoo.tools.layer_times measures them"
            )
        found.append(UnitCost(float(each), int(flat), float(least)))
    return found[0], found[1]


def _is_time(value: Any) -> bool:
    """Whether it is a number that a time may be; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


@register_method("kwon", recipe=kwon_recipe, label="Kwon et al.", family=FAMILY, order=94)
def kwon(
    density: float,
    *,
    examples: int = 2048,
    calibration_seed: int | None = None,
    constraint: str = "operations",
    heads_each: float | None = None,
    heads_flat: int | None = None,
    heads_least: float | None = None,
    neurons_each: float | None = None,
    neurons_flat: int | None = None,
    neurons_least: float | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Heads and neurons by Fisher information under a budget, rearranged and scaled (Kwon 2022).

    `density` is the budget: multiply-accumulates of the layers for an example of mean length over
    those of the dense model, or with `constraint` "latency" their time, from times of a layer by
    its heads and neurons that were measured before; remaining weights are measured. Gradients of
    gates are those of batches of 32, of `examples` training texts. Reproduces the search,
    the rearrangement and the rescaling of the paper; that times are flat and then a straight line
    is written from memory of it. Differs from the released code: examples are drawn
    without replacement, the mean length is that of these examples and not the dev set's, and the
    scales are solved exactly. Starts from the dense trial of the same seed, or of `dense_seed`;
    with `retrain` what stays trains by the dense recipe. Raises ConfigError for another constraint,
    and for "latency" without all six times.
    """
    times = times_of(constraint, locals())
    reads = GateCalibration(
        of_batches,
        examples,
        seed=calibration_seed,
        choose=Rearranged(Searched(times)),
        rescaling=Rescaling(Searched(times, power=0.5)),
    )
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    return replace(base, units=heads_and_neurons, calibration=reads, budget=None)
