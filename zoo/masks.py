"""Mask functions: scores by name and a level -> boolean masks by name (True = kept).

Exactly k are kept wherever a density is asked for. Scores start equal, so ties are massive; the
order is (score, then lowest flat index), the same on every device and in every process.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from zoo.gates import CLOSED
from zoo.selection import keep, keep_among, keep_each

MaskFn = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]

FLOOR = 0.005
"""Least fraction that a threshold leaves in a matrix (the released code of Sanh 2020 and SMP)."""


def count(density: float, numel: int) -> int:
    """int(density * numel), at least one and at most all."""
    return min(max(int(density * numel), 1), numel)


def topk_local(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(density * numel) largest scores of each matrix: the same density everywhere
    (Sanh 2020, section 4; SMP-L)."""
    return _highest(scores, dict.fromkeys(scores, level))


def _highest(scores: Mapping[str, Tensor], densities: Mapping[str, float]) -> dict[str, Tensor]:
    counts = [count(densities[name], s.numel()) for name, s in scores.items()]
    return dict(zip(scores, keep_each(list(scores.values()), counts), strict=True))


def matrix_type(name: str) -> str:
    """The name without its layer: 'encoder.layer.3.output.dense' -> 'output.dense'."""
    return re.sub(r"^.*?\blayers?\.\d+\.", "", name)


def topk_by_type(
    scores: Mapping[str, Tensor],
    level: float,
    *,
    temperature: float = 1.0,
    redistribute: bool = False,
) -> dict[str, Tensor]:
    """SMP-S, Eq. 4: within a matrix type, layers share the density by their mean sigmoid(S / p).

    density_cl = level * L * r_cl / sum over layers of r_cl', with r the mean of sigmoid(S / p);
    then top-k of S. A share above 1 keeps the matrix whole and its surplus is not handed on, so
    the whole can stay below `level`, unless `redistribute` asks for it. Differs from the paper:
    the mean for the sum of Eq. 4 (equal within a type) and the temperature p, both as in the
    released code.
    """
    cooled = (s.detach() if temperature == 1 else s.detach() / temperature for s in scores.values())
    means = torch.stack([torch.sigmoid(s).mean() for s in cooled])
    by_type: dict[str, dict[str, float]] = {}
    for name, mean in zip(scores, means.tolist(), strict=True):
        by_type.setdefault(matrix_type(name), {})[name] = mean
    densities: dict[str, float] = {}
    for group in by_type.values():
        densities |= allot(group, level, redistribute=redistribute)
    return _highest(scores, densities)


def allot(
    means: Mapping[str, float], level: float, *, redistribute: bool = False
) -> dict[str, float]:
    """SMP, Eq. 4, for one matrix type: densities in proportion to `means` that add up to
    level * L. With `redistribute`, what lies above 1 is shared among the others, again by `means`.
    """
    left, total = dict(means), level * len(means)
    whole: dict[str, float] = {}
    while True:
        unit = total / sum(left.values()) if left else 0.0
        full = [name for name, mean in left.items() if unit * mean > 1] if redistribute else []
        if not full:
            return whole | {name: unit * mean for name, mean in left.items()}
        whole |= dict.fromkeys(full, 1.0)
        total -= len(full)
        left = {name: mean for name, mean in left.items() if name not in full}


def topk_global(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """The int(level * n) + 1 largest of all n scores, at least 0.5 % of every matrix.

    Source: the global threshold of Sanh 2020's released code. Differs from it: ties at the
    threshold are broken by (order of the matrices, flat index), so the count is met from the
    first step on.
    """
    whole = sum(s.numel() for s in scores.values())
    kept = keep_among(list(scores.values()), int(level * whole) + 1)
    return _at_least(dict(zip(scores, kept, strict=True)), scores)


def above_threshold(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """1[sigmoid(S) > tau], at least int(0.5 %) + 1 of a matrix (Sanh 2020, SMvP)."""
    masks = {name: torch.sigmoid(s.detach()) > level for name, s in scores.items()}
    return _at_least(masks, scores, 1)


def _at_least(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], more: int = 0
) -> dict[str, Tensor]:
    """The masks, but the int(0.5 %) + `more` highest scores of a matrix where there are fewer."""
    counts = torch.stack([mask.count_nonzero() for mask in masks.values()]).tolist()
    found = {}
    for (name, mask), kept in zip(masks.items(), counts, strict=True):
        least = int(FLOOR * mask.numel()) + more
        found[name] = mask if kept >= least else keep(scores[name], least)
    return found


def open_gates(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """Where L0's evaluation gate is not zero: sigmoid(S) > 1/12. The level is not used."""
    return {name: s.detach() > CLOSED for name, s in scores.items()}
