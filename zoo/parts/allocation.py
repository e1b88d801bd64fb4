"""Allocations: how matrices share a density, each a function (scores by name, level) -> densities
in [0, 1] by name. Weighted by sizes they add up to the level. `with_allocation` gives a method
another one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.errors import ConfigError, unknown
from zoo.parts.masks import MaskFn, allot, fraction, layer_of, matrix_type, topk_local
from zoo.parts.method import Method
from zoo.parts.patterns import Blocks, topk_by_row

Allocation = Callable[[Mapping[str, Tensor], float], dict[str, float]]
"""(scores by name, level) -> densities by name."""


def uniform(scores: Mapping[str, Tensor], level: float) -> dict[str, float]:
    """The same density in every matrix.

    >>> import torch
    >>> from zoo import uniform
    >>> uniform({"a": torch.ones(2, 2)}, 0.5)
    {'a': 0.5}
    """
    return dict.fromkeys(scores, level)


def eq4(scores: Mapping[str, Tensor], level: float) -> dict[str, float]:
    """Layers share the density of a matrix type in proportion to their mean sigmoid(S) (SMP, Eq.
    4); what lies above 1 is passed on to the others.

    >>> import torch
    >>> from zoo import eq4
    >>> high, low = torch.full((2, 2), 2.0), torch.full((2, 2), -2.0)
    >>> found = eq4({"layer.0.x": high, "layer.1.x": low}, 0.5)
    >>> {name: round(density, 4) for name, density in found.items()}
    {'layer.0.x': 0.8808, 'layer.1.x': 0.1192}
    """
    by_type: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        mean = float(torch.sigmoid(score.detach()).mean())
        by_type.setdefault(matrix_type(name), {})[name] = mean
    found: dict[str, float] = {}
    for means in by_type.values():
        found |= allot(means, level, redistribute=True)
    return {name: found[name] for name in scores}


def erk(scores: Mapping[str, Tensor], level: float) -> dict[str, float]:
    """Erdos-Renyi kernel: densities in proportion to (in + out) / (in * out) (Evci et al. 2020). A
    matrix above 1 is kept whole, and the rest solved again.

    >>> import torch
    >>> from zoo import erk
    >>> square, wide = torch.empty(768, 768), torch.empty(3072, 768)
    >>> scores = {"q": square, "k": square, "v": square, "o": square, "u": wide, "d": wide}
    >>> {name: round(d, 4) for name, d in erk(scores, 0.1).items()}["u"]
    0.0833
    """
    raw = {name: sum(s.shape) / s.numel() for name, s in scores.items()}
    return _shared(raw, {name: s.numel() for name, s in scores.items()}, level)


def _shared(raw: Mapping[str, float], sizes: Mapping[str, int], level: float) -> dict[str, float]:
    """Densities in proportion to `raw`, none above 1, that keep `level` of all entries."""
    left, budget = dict(raw), level * sum(sizes.values())
    whole: dict[str, float] = {}
    while left:
        unit = budget / sum(share * sizes[name] for name, share in left.items())
        full = [name for name, share in left.items() if unit * share > 1]
        if not full:
            break
        whole |= dict.fromkeys(full, 1.0)
        budget -= sum(sizes[name] for name in full)
        left = {name: share for name, share in left.items() if name not in full}
    found = whole | {name: unit * share for name, share in left.items()}
    return {name: found[name] for name in raw}


@dataclass(frozen=True)
class Owl:
    """Layers with more outliers keep more (OWL, Yin et al. 2024).

    D of a layer is the share of its scores above `outlier` times their mean; its density is level +
    x - mean(x), with x = 2 span (D - min) / (max - min). The matrices of a layer share it. Differs
    from the released code: the mean of x is over weights, which keeps the total where layers differ
    in size, and a density outside [0, 1] is an error, which says the largest span that fits.

    >>> import torch
    >>> from zoo import Owl
    >>> scores = {"layer.0.x": torch.tensor([[9.0, 0.0]]), "layer.1.x": torch.ones(1, 2)}
    >>> Owl(outlier=1.5)(scores, 0.5)
    {'layer.0.x': 0.58, 'layer.1.x': 0.42}
    """

    outlier: float = 5.0
    span: float = 0.08

    def __call__(self, scores: Mapping[str, Tensor], level: float) -> dict[str, float]:
        layers: dict[str, list[str]] = {}
        for name in scores:
            layers.setdefault(layer_of(name), []).append(name)
        sizes = {x: sum(scores[n].numel() for n in names) for x, names in layers.items()}
        shares = {
            layer: self._outliers([scores[n].detach() for n in names], sizes[layer])
            for layer, names in layers.items()
        }
        found = shared_by_outliers(shares, sizes, level, self.span)
        return {name: found[layer_of(name)] for name in scores}

    def _outliers(self, scores: list[Tensor], size: int) -> float:
        mean = sum(float(s.double().sum()) for s in scores) / size
        return sum(int((s > self.outlier * mean).sum()) for s in scores) / size


def shared_by_outliers(
    shares: Mapping[str, float], sizes: Mapping[str, int], level: float, span: float
) -> dict[str, float]:
    """OWL's densities of layers from their shares of outliers and their sizes. Raises ConfigError
    for a span so large that a density is outside [0, 1].

    >>> from zoo import shared_by_outliers
    >>> found = shared_by_outliers({"a": 4, "b": 1, "c": 2, "d": 1}, dict.fromkeys("abcd", 1),
    ...     0.3, 0.08)
    >>> [round(density, 6) for density in found.values()]
    [0.406667, 0.246667, 0.3, 0.246667]
    """
    low, high = min(shares.values()), max(shares.values())
    if low == high:
        return dict.fromkeys(shares, level)
    units = {name: 2 * (share - low) / (high - low) for name, share in shares.items()}
    total = sum(sizes.values())
    mean = sum(units[name] * size for name, size in sizes.items()) / total
    off = {name: unit - mean for name, unit in units.items()}
    most = min((1 - level) / max(off.values()), level / -min(off.values()))
    if span > most:
        raise ConfigError(
            f"OWL's span {span:g} leaves the densities of some layers outside [0, 1] at density"
            f" {level:g}; the largest that fits is {most:.4g}"
        )
    return {name: level + span * value for name, value in off.items()}


ALLOCATIONS: Mapping[str, Allocation] = {
    "uniform": uniform,
    "eq4": eq4,
    "erk": erk,
    "owl": Owl(),
}
"""Allocations by name."""


def allocation_of(text: str) -> Allocation:
    """The allocation of a name. Raises ConfigError for another one.

    >>> from zoo import allocation_of, erk
    >>> allocation_of("erk") is erk
    True
    """
    if text not in ALLOCATIONS:
        raise ConfigError(unknown("allocation", text, ALLOCATIONS))
    return ALLOCATIONS[text]


@dataclass(frozen=True)
class Allocated:
    """A mask function within each matrix, whose densities an allocation shares out.

    >>> import torch
    >>> from zoo import Allocated, erk, topk_local
    >>> scores = {"a": torch.ones(4, 4), "b": torch.ones(4, 12)}
    >>> masks = Allocated(erk, topk_local)(scores, 0.25)
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'a': 5, 'b': 10}
    """

    allocation: Allocation
    within: MaskFn

    def __call__(self, scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
        densities = self.allocation(scores, fraction(level))
        return {n: self.within({n: s}, densities[n])[n] for n, s in scores.items()}


def with_allocation(method: Method, allocation: str) -> Method:
    """The method with its density shared among matrices by an allocation.

    Raises ConfigError unless each matrix has its own ranking and any density.

    >>> from zoo import Method, magnitude, with_allocation
    >>> with_allocation(Method(score=magnitude), "erk").mask.allocation.__name__
    'erk'
    """
    within = method.mask
    shares = within in (topk_local, topk_by_row) or isinstance(within, Blocks)
    if method.units is not None:
        raise ConfigError(
            f"allocation {allocation} is for matrices; this method prunes whole units"
        )
    if method.score is None or not shares:
        raise ConfigError(
            f"allocation {allocation} needs a ranking within each matrix and any density: give the"
            " pattern row, matrix or blocks, or leave the allocation out"
        )
    return replace(method, mask=Allocated(allocation_of(allocation), within))
