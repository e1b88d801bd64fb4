"""Mask functions: from scores by name and a level to boolean masks by name (True = kept).

Exactly k weights are kept wherever a density is asked for. Learned scores start equal, so there are
many ties; the order is (score, then lowest flat index) on every device and in every process.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.kernels import selection as at_once
from zoo.parts.gates import CLOSED
from zoo.parts.selection import keep_above, keep_among, keep_each

MaskFn = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]
"""(scores by name, level) -> masks by name."""

FLOOR = 0.005
"""Smallest fraction of a matrix that a threshold keeps (released code of Sanh 2020 and SMP)."""


def count(density: float, numel: int) -> int:
    """int(density * numel), at least one and at most all.

    >>> from zoo import count
    >>> count(0.03, 589_824)
    17694
    """
    return min(max(int(density * numel), 1), numel)


def fraction(level: float) -> float:
    """The level; raises ConfigError outside [0, 1], above which it is usually a percentage.

    >>> from zoo.parts.masks import fraction
    >>> fraction(0.5)
    0.5
    """
    if not 0 <= level <= 1:
        hint = f"; did you mean {level / 100:g}?" if 1 < level <= 100 else ""
        raise ConfigError(f"the level of a top-k mask is a fraction, got {level:g}{hint}")
    return level


def topk_local(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * numel) largest scores of each matrix, so that all matrices have the
    same density (Sanh et al. 2020, section 4; SMP-L).

    >>> import torch
    >>> from zoo import topk_local
    >>> topk_local({"a": torch.tensor([[3.0, 1.0], [4.0, 2.0]])}, 0.5)
    {'a': tensor([[ True, False],
            [ True, False]])}
    """
    return _highest(scores, dict.fromkeys(scores, fraction(level)))


def _highest(scores: Mapping[str, Tensor], densities: Mapping[str, float]) -> dict[str, Tensor]:
    counts = [count(densities[name], s.numel()) for name, s in scores.items()]
    return dict(zip(scores, keep_each(list(scores.values()), counts), strict=True))


def matrix_type(name: str) -> str:
    """The name of a matrix without the number of its layer.

    >>> from zoo import matrix_type
    >>> matrix_type("encoder.layer.3.output.dense")
    'encoder.layer.*.output.dense'
    """
    return re.sub(r"(^|\.)\d+(?=\.)", r"\1*", name, count=1)


def layer_of(name: str) -> str:
    """The name of a matrix up to the number of its layer.

    >>> from zoo.parts.masks import layer_of
    >>> layer_of("encoder.layer.3.output.dense")
    'encoder.layer.3'
    """
    words = name.split(".")
    last = next((i for i, word in enumerate(words) if word.isdigit()), len(words) - 1)
    return ".".join(words[: last + 1])


def topk_by_type(
    scores: Mapping[str, Tensor],
    level: float,
    *,
    temperature: float = 1.0,
    redistribute: bool = False,
) -> dict[str, Tensor]:
    """Within a matrix type, layers share the density by their mean sigmoid(S / p) (SMP, Eq. 4).

    The density of a matrix is level * L * r / sum of r over its type's L layers, with r the mean of
    sigmoid(S / p) and p the temperature; then the largest scores are kept. A share above 1 keeps
    the matrix whole and the rest of it is lost, so the total can be below `level`, unless
    `redistribute` is set. Differs from the paper: the mean for the sum of Eq. 4 (equal within a
    type) and the temperature, both as in the released code.

    >>> import torch
    >>> from zoo import topk_by_type
    >>> scores = {"layer.0.x": torch.full((10, 10), 2.0), "layer.1.x": torch.full((10, 10), -2.0)}
    >>> {name: int(mask.sum()) for name, mask in topk_by_type(scores, 0.5).items()}
    {'layer.0.x': 88, 'layer.1.x': 11}
    """
    matrices, types = list(scores.values()), [matrix_type(name) for name in scores]
    if at_once.fits(matrices) and not redistribute:
        counts = at_once.counts_by_type(matrices, types, fraction(level), temperature)
        return dict(zip(scores, keep_each(matrices, counts), strict=True))
    cooled = (s.detach() if temperature == 1 else s.detach() / temperature for s in scores.values())
    means = torch.stack([torch.sigmoid(s).mean() for s in cooled])
    by_type: dict[str, dict[str, float]] = {}
    for name, kind, mean in zip(scores, types, means.tolist(), strict=True):
        by_type.setdefault(kind, {})[name] = mean
    densities: dict[str, float] = {}
    for group in by_type.values():
        densities |= allot(group, fraction(level), redistribute=redistribute)
    return _highest(scores, densities)


def allot(
    means: Mapping[str, float], level: float, *, redistribute: bool = False
) -> dict[str, float]:
    """Densities of one matrix type in proportion to `means`, which add up to level * L (SMP, Eq.
    4).

    With `redistribute`, what lies above 1 is shared among the others, again in proportion.

    >>> from zoo import allot
    >>> allot({"a": 0.9, "b": 0.3}, 0.8)
    {'a': 1.2000000000000002, 'b': 0.4}
    >>> allot({"a": 0.9, "b": 0.3}, 0.8, redistribute=True)
    {'a': 1.0, 'b': 0.6000000000000001}
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
    """M = 1 at the int(level * n) + 1 largest of all n scores, and at 0.5 % of every matrix at
    least (the global threshold of Sanh et al. 2020's released code).

    Differs from the released code: ties at the threshold are broken by (order of the matrices, flat
    index), so the count is right from the first step on.

    >>> import torch
    >>> from zoo import topk_global
    >>> masks = topk_global({"a": torch.zeros(4, 5), "b": torch.ones(4, 5)}, 0.2)
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'a': 0, 'b': 9}
    """
    matrices = list(scores.values())
    k = int(fraction(level) * sum(s.numel() for s in matrices)) + 1
    kept = keep_among(matrices, k, [int(FLOOR * s.numel()) for s in matrices])
    return dict(zip(scores, kept, strict=True))


def above_threshold(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 where sigmoid(S) > level, and at int(0.5 %) + 1 entries of a matrix at least (Sanh et
    al. 2020, soft movement).

    >>> import torch
    >>> from zoo import above_threshold
    >>> above_threshold({"a": torch.tensor([[-3.0, 0.0, 3.0]])}, 0.1)
    {'a': tensor([[False,  True,  True]])}
    """
    matrices = list(scores.values())
    kept = keep_above(matrices, level, [int(FLOOR * s.numel()) + 1 for s in matrices])
    return dict(zip(scores, kept, strict=True))


def open_gates(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 where the evaluation gate of L0 is not zero, sigmoid(S) > 1/12. The level is not used.

    >>> import torch
    >>> from zoo import open_gates
    >>> open_gates({"a": torch.tensor([[-2.40, -2.39]])}, 1.0)
    {'a': tensor([[False,  True]])}
    """
    return {name: s.detach() > CLOSED for name, s in scores.items()}


def nonzero(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 where the score is not 0: with magnitudes as scores, the pattern of weights that were
    pruned before. The level is not used. Raises ConfigError for NaN.

    >>> import torch
    >>> from zoo import nonzero
    >>> nonzero({"a": torch.tensor([[0.5, 0.0, 0.1, -0.0]])}, 1.0)
    {'a': tensor([[ True, False,  True, False]])}
    """
    for name, score in scores.items():
        if not score.is_meta and bool(score.isnan().any()):
            raise ConfigError(f"{name} has entries that are NaN, which are neither 0 nor not")
    return {name: score.detach() != 0 for name, score in scores.items()}


BY_THRESHOLD = (above_threshold, open_gates, nonzero)
"""Mask functions whose level is no density."""
