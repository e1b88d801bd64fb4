"""Patterns: which weights compete for a place, and which stay or go together.

Each is a mask function, (scores by name, level) -> masks by name, for any score. Exactly as many
weights are kept as the level says, and ties go to the lowest flat index. `with_pattern` gives a
pattern to a method.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.errors import ConfigError, unknown
from zoo.parts.calibration import Calibration
from zoo.parts.masks import (
    BY_THRESHOLD,
    MaskFn,
    count,
    fraction,
    matrix_type,
    topk_local,
)
from zoo.parts.method import Method
from zoo.parts.schedules import settled
from zoo.parts.scores import total
from zoo.parts.selection import keep, keep_among


def keep_in_rows(scores: Tensor, k: int) -> Tensor:
    """The mask of the k largest numbers of each row (..., n); ties go to the lowest index, NaN
    counts as minus infinity.

    >>> import torch
    >>> from zoo import keep_in_rows
    >>> keep_in_rows(torch.tensor([[1.0, 2.0, 2.0], [3.0, 0.0, 0.0]]), 2)
    tensor([[False,  True,  True],
            [ True,  True, False]])
    """
    scores = scores.detach()
    if scores.is_floating_point():
        scores = scores.masked_fill(scores.isnan(), -math.inf)
    if k >= scores.shape[-1]:
        return torch.ones_like(scores, dtype=torch.bool)
    lowest = torch.topk(scores, k, sorted=False).values.amin(-1, keepdim=True)
    mask, ties = scores > lowest, scores == lowest
    return mask | (ties & (ties.cumsum(-1) <= k - mask.sum(-1, keepdim=True)))


def topk_by_row(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * inputs) largest scores of each row, the weights of one output.

    Differs from the released code of Sun et al. 2024, which keeps inputs - int(inputs (1 - level)):
    more than the level allows.

    >>> import torch
    >>> from zoo import topk_by_row
    >>> topk_by_row({"a": torch.tensor([[3.0, 4.0], [1.0, 2.0]])}, 0.5)
    {'a': tensor([[False,  True],
            [False,  True]])}
    """
    share = fraction(level)
    return {name: keep_in_rows(s, count(share, s.shape[-1])) for name, s in scores.items()}


def topk_in_type(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * n) largest of the n scores of a matrix type, all layers together.

    >>> import torch
    >>> from zoo import topk_in_type
    >>> scores = {"layer.0.x": torch.zeros(1, 4), "layer.1.x": torch.ones(1, 4)}
    >>> {name: int(mask.sum()) for name, mask in topk_in_type(scores, 0.5).items()}
    {'layer.0.x': 0, 'layer.1.x': 4}
    """
    types: dict[str, list[str]] = {}
    for name in scores:
        types.setdefault(matrix_type(name), []).append(name)
    found: dict[str, Tensor] = {}
    for names in types.values():
        found |= topk_in_all({name: scores[name] for name in names}, level)
    return {name: found[name] for name in scores}


def topk_in_all(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * n) largest of all n scores, without a floor for any matrix.

    >>> import torch
    >>> from zoo import topk_in_all
    >>> masks = topk_in_all({"a": torch.zeros(1, 4), "b": torch.ones(1, 4)}, 0.5)
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'a': 0, 'b': 4}
    """
    matrices = list(scores.values())
    k = count(fraction(level), sum(s.numel() for s in matrices))
    return dict(zip(scores, keep_among(matrices, k), strict=True))


@dataclass(frozen=True)
class NofM:
    """In every aligned group of `group` inputs (the last axis) exactly `kept` weights are kept.

    On the way there, at a level above kept / group, the best of every group are safe, and of the
    others of a matrix the best that the level leaves room for are kept too (Boza 2024's rule).
    Raises ConfigError below that level, and for a width that is no multiple of the group.

    >>> import torch
    >>> from zoo import NofM
    >>> NofM(2, 4)({"a": torch.tensor([[9.0, 1.0, 5.0, 7.0]])}, 0.5)
    {'a': tensor([[ True, False, False,  True]])}
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 1 <= self.kept < self.group:
            raise ConfigError(
                f"pattern {self.kept}:{self.group} keeps N of every M weights, with 1 <= N < M"
            )

    @property
    def density(self) -> float:
        """The density of the pattern, the only one at which a schedule may end."""
        return self.kept / self.group

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ConfigError unless a matrix (out, in) can have the pattern."""
        if shape[-1] % self.group:
            raise ConfigError(
                f"{name} has {shape[-1]} inputs, which pattern {self.kept}:{self.group} cannot"
                f" divide into groups of {self.group}; choose an M that divides every width, or"
                " another pattern"
            )

    def __call__(self, scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
        if fraction(level) < self.density:
            raise ConfigError(
                f"pattern {self.kept}:{self.group} keeps {self.density:g} of the weights, more than"
                f" a density of {level:g}; ask for {self.density:g}"
            )
        return {name: self._mask(name, s.detach(), level) for name, s in scores.items()}

    def _mask(self, name: str, score: Tensor, level: float) -> Tensor:
        self.check(name, tuple(score.shape))
        groups = score.unflatten(-1, (-1, self.group))
        mask = _best(groups, self.kept).flatten(-2)
        more = count(level, score.numel()) - score.numel() // self.group * self.kept
        if more > 0:
            mask[~mask] = keep(score[~mask], more)
        return mask


def _best(groups: Tensor, k: int) -> Tensor:
    """The same as keep_in_rows, by comparing all pairs: faster for many small groups."""
    if groups.is_floating_point():
        groups = groups.masked_fill(groups.isnan(), -math.inf)
    columns, better = groups.unbind(-1), []
    for i, mine in enumerate(columns):
        before = [other >= mine for other in columns[:i]]
        behind = [other > mine for other in columns[i + 1 :]]
        better.append(torch.stack(before + behind).sum(0))
    return torch.stack(better, -1) < k


@dataclass(frozen=True)
class Blocks:
    """Blocks of `size` x `size` weights stay or go together: int(level * blocks) of each matrix.

    `together` makes one score of those of a block, over the last axis: a root of the sum of squares
    for magnitudes, a sum for the rest. Raises ConfigError for a matrix that has no whole blocks.

    >>> import torch
    >>> from zoo import Blocks
    >>> Blocks(2)({"a": torch.tensor([[1.0, 1.0, 0.0, 3.0], [1.0, 1.0, 0.0, 0.0]])}, 0.5)
    {'a': tensor([[ True,  True, False, False],
            [ True,  True, False, False]])}
    """

    size: int
    together: Callable[[Tensor], Tensor] = total

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"a block has at least 2 x 2 weights, got {self.size} x {self.size}")

    @property
    def group(self) -> int:
        """Inputs that are decided together."""
        return self.size

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ConfigError unless a matrix (out, in) can have the pattern."""
        if any(width % self.size for width in shape):
            raise ConfigError(
                f"{name} is {shape[0]} x {shape[1]}, which blocks of {self.size} x {self.size}"
                " cannot cover; choose a size that divides both, or another pattern"
            )

    def __call__(self, scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
        masks = topk_local({name: self._blocks(name, s) for name, s in scores.items()}, level)
        size = self.size
        return {
            name: mask.repeat_interleave(size, 0).repeat_interleave(size, 1)
            for name, mask in masks.items()
        }

    def _blocks(self, name: str, score: Tensor) -> Tensor:
        self.check(name, tuple(score.shape))
        split = score.detach().unflatten(1, (-1, self.size)).unflatten(0, (-1, self.size))
        return self.together(split.transpose(1, 2).flatten(-2))


def check_shapes(mask: MaskFn, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ConfigError unless all matrices, by name with their shapes, can have the pattern.

    >>> from zoo import NofM
    >>> from zoo.parts.patterns import check_shapes
    >>> check_shapes(NofM(2, 4), {"a": (3, 8)})
    """
    if isinstance(mask, NofM | Blocks):
        for name, shape in shapes.items():
            mask.check(name, shape)


FREE = "free"
"""The pattern that a method has by itself."""
PATTERNS: Mapping[str, MaskFn] = {
    "row": topk_by_row,
    "matrix": topk_local,
    "type": topk_in_type,
    "global": topk_in_all,
}
"""Patterns by name, beside N:M and B x B."""
ACROSS = (topk_in_type, topk_in_all)
"""Patterns in which the weights of several matrices compete."""


def pattern_of(text: str, together: Callable[[Tensor], Tensor]) -> MaskFn:
    """The mask function of a pattern: row, matrix, type, global, N:M as 2:4, or blocks as 4x4, in
    which `together` makes one score of many. Raises ConfigError for another text.

    >>> from zoo import pattern_of
    >>> pattern_of("2:4", sum)
    NofM(kept=2, group=4)
    """
    if text in PATTERNS:
        return PATTERNS[text]
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        return NofM(int(found[1]), int(found[2]))
    if (found := re.fullmatch(r"(\d+)x(\d+)", text)) and found[1] == found[2]:
        return Blocks(int(found[1]), together)
    raise ConfigError(unknown("pattern", text, [FREE, *PATTERNS, "2:4", "4x4"]))


def with_pattern(method: Method, pattern: str) -> Method:
    """The method with its masks in a pattern; "free" leaves them as they are.

    The scope of the method's own mask function is replaced: a pattern says by itself which weights
    compete. Raises ConfigError for methods whose masks follow a threshold, and where the density of
    N:M is not the one at which the method's schedule ends.

    >>> from zoo import Method, Ramp, magnitude, with_pattern
    >>> method = Method(score=magnitude, level=Ramp(1.0, 0.5, 0.2, 0.8, 3))
    >>> with_pattern(method, "2:4").mask
    NofM(kept=2, group=4)
    """
    if pattern == FREE:
        return method
    if method.score is None or method.mask in BY_THRESHOLD:
        raise ConfigError(
            f"pattern {pattern} needs a method that keeps the highest scores at a given density;"
            " leave the pattern out here"
        )
    if method.units is not None:
        raise ConfigError(
            f"pattern {pattern} is for single weights; this method prunes whole units"
        )
    mask = pattern_of(pattern, method.score.together)
    if mask in ACROSS and isinstance(method.calibration, Calibration):
        raise ConfigError(
            f"pattern {pattern} lets matrices of several layers compete, and this method prunes"
            " layer after layer: choose row, matrix, N:M or blocks"
        )
    last = settled(method.level, 100_000)
    if isinstance(mask, NofM) and last != mask.density:
        raise ConfigError(
            f"pattern {pattern} keeps {mask.density:g} of the weights, and the schedule ends at"
            f" {last}: ask for density {mask.density:g}"
        )
    return replace(method, mask=mask)
