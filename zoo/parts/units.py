"""Units: weights of one or several matrices that stay or go together and share a score.

A function of kind `Units` sorts the weights of an encoder into groups of units. Mask functions then
see a group where they else see a matrix: (scores by group, level) -> masks by group, each in the
shape of the group. Matrices that belong to no group are kept whole.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.inputs.architecture import Architecture


def check_size(size: Any) -> None:
    """Raise ConfigError unless a size is a whole number above 0."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"the size of a unit is a whole number of weights, got {size!r:.40}")


@dataclass(frozen=True)
class Matrix:
    """A prunable matrix: its name, its role in the layer, and its shape (out, in)."""

    name: str
    role: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Part:
    """What each unit of a group holds of one matrix: `rows` x `columns` neighbouring weights, and
    in a matrix of `copies` projections, one below the other, as many in each. `biased`: whether
    units hold whole rows and own their biases; `closes`: whether these biases are 0 where the unit
    goes, since nothing behind it would drop them. Raises ConfigError for sizes that do not cover
    the `shape` (out, in), and for `closes` without whole rows.

    >>> import torch
    >>> from zoo import Part
    >>> part = Part("output", (2, 4), rows=2, columns=2)
    >>> part.spread(torch.tensor([1, 0]))
    tensor([[1, 1, 0, 0],
            [1, 1, 0, 0]])
    >>> part.gather(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]))
    tensor([[1, 2, 5, 6],
            [3, 4, 7, 8]])
    """

    name: str
    shape: tuple[int, int]
    rows: int
    columns: int
    copies: int = 1
    biased: bool = False
    closes: bool = False

    def __post_init__(self) -> None:
        check_size(self.rows)
        check_size(self.columns)
        out, width = self.shape
        if self.closes and (self.columns != width or self.copies > 1):
            raise ConfigError(f"{self.name}: only whole rows own a bias that goes with them")
        if out % (self.rows * self.copies) or width % self.columns:
            raise ConfigError(
                f"{self.name} is {out} x {width}, which units of {self.rows} x {self.columns}"
                " weights cannot cover; choose a size that divides both, or other units (`block`"
                " in a suite of your own)"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """How many units lie below each other, and beside each other."""
        return self.shape[0] // (self.rows * self.copies), self.shape[1] // self.columns

    def spread(self, values: Tensor, *many: int) -> Tensor:
        """The value of each unit at each of its weights, in the shape of the matrix; of so `many`
        matrices, whose values are stacked, in (many, out, in)."""
        down, across = self.grid
        spaced = values.reshape(*many, 1, down, 1, across, 1)
        whole = spaced.expand(*many, self.copies, down, self.rows, across, self.columns)
        return whole.reshape(*many, *self.shape)

    def gather(self, matrix: Tensor) -> Tensor:
        """The weights of each unit, (units, weights of a unit)."""
        return self._split(matrix).permute(1, 3, 0, 2, 4).reshape(math.prod(self.grid), -1)

    def sums(self, matrix: Tensor) -> Tensor:
        """The sum over the weights of each unit, (..., out, in) -> (..., units)."""
        return self._split(matrix).sum((-5, -3, -1)).flatten(-2)

    def _split(self, matrix: Tensor) -> Tensor:
        down, across = self.grid
        own = self.copies, down, self.rows, across, self.columns
        return matrix.reshape(*matrix.shape[:-2], *own)


@dataclass(frozen=True)
class UnitGroup:
    """Units that are ranked together by `topk_local`: `shape` of their scores, and the `parts` that
    they hold. A unit's output goes through the last part: a gate on it multiplies those weights.
    Raises ConfigError without a part, and for a part that holds another number of units.

    >>> from zoo import UnitGroup, Part
    >>> UnitGroup((2,), (Part("output", (4, 4), 4, 2),)).units
    2
    """

    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError(f"a group of {self.units} units holds no part of a matrix")
        for part in self.parts:
            if part.grid[0] * part.grid[1] != self.units:
                raise ConfigError(
                    f"{part.name} holds {part.grid[0]} x {part.grid[1]} units, its group"
                    f" {self.units}"
                )

    @property
    def units(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def gather(self, matrices: Mapping[str, Tensor]) -> Tensor:
        """All weights of each unit along the last axis, behind the group's own axes."""
        found = torch.cat([part.gather(matrices[part.name]) for part in self.parts], -1)
        return found.view(*self.shape, -1)

    @property
    def gated(self) -> str:
        """Where the output of its units is seen: "input" of the last part, whose columns they hold,
        "output" if a unit is all of it, bias included. Raises ConfigError for other units."""
        last, closing = self.parts[-1], [part for part in self.parts if part.closes]
        if last.grid == (1, 1) and closing == [last]:
            return "output"
        if last.rows == last.shape[0] and last.copies == 1 and not closing:
            return "input"
        raise ConfigError(
            f"units of {last.name} have no output of their own that a gate could multiply: choose"
            " heads, neurons or sub-layers"
        )


@dataclass(frozen=True)
class Held:
    """What the units of a group hold: the group's `name`, their weights (*units, weights of a unit)
    in each part, and their biases (*units, biases of a unit) where a part is rows, else None; and a
    `seed` for what is drawn.

    >>> import torch
    >>> from zoo import Held
    >>> held = Held("layer.0.neurons", (torch.ones(3, 4), torch.ones(3, 4)), (None, None), 0)
    >>> held.weights[0].norm(dim=-1)
    tensor([2., 2., 2.])
    """

    name: str
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    seed: int


@dataclass(frozen=True)
class UnitCost:
    """What n units of a layer cost, in operations or in time: nothing without any, `least` with up
    to `flat` of them, and `each` more for every further one.

    >>> import torch
    >>> from zoo import UnitCost
    >>> UnitCost(2.0, flat=2, least=5.0).of(torch.tensor([0, 1, 2, 3])).tolist()
    [0.0, 5.0, 5.0, 7.0]
    """

    each: float
    flat: int = 0
    least: float = 0.0

    def of(self, many: Tensor) -> Tensor:
        """The cost of layers that have so many left, in the shape of `many`."""
        return ((many - self.flat).clamp(min=0) * self.each + self.least) * (many > 0)


Units = Callable[[Sequence[Matrix], int], dict[str, UnitGroup]]
"""(matrices, attention heads of a layer) -> groups by name."""


def prunable(architecture: Architecture, modules: Mapping[str, Any]) -> tuple[Matrix, ...]:
    """The matrices of linear or masked modules by name."""
    return tuple(
        Matrix(n, architecture.parameter(f"{n}.weight").role or "", tuple(x.weight.shape))
        for n, x in modules.items()
    )


def checked_groups(units: Units, matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """The groups of units by name. Raises ConfigError where they are none, or not of these
    matrices, or hold a matrix twice.

    >>> from zoo import whole_rows
    >>> square = [Matrix("layer.0.Q", "Q", (8, 4))]
    >>> list(checked_groups(whole_rows, square, 1))
    ['layer.0.Q']
    """
    groups, shapes = units(matrices, heads), {m.name: m.shape for m in matrices}
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError(f"units must be groups by name, at least one, got {groups!r:.60}")
    seen: dict[str, str] = {}
    for name, group in groups.items():
        if not isinstance(group, UnitGroup):
            raise ConfigError(f"group {name} of units must be a UnitGroup, got {group!r:.60}")
        for part in group.parts:
            if part.name not in shapes:
                raise ConfigError(f"group {name} holds {part.name}, which is no prunable matrix")
            if part.shape != shapes[part.name]:
                raise ConfigError(
                    f"group {name} takes {part.name} for {part.shape[0]} x {part.shape[1]}, it is"
                    f" {shapes[part.name][0]} x {shapes[part.name][1]}"
                )
            if part.name in seen:
                raise ConfigError(
                    f"group {name} holds {part.name}, which group {seen[part.name]} holds already"
                )
            seen[part.name] = name
    return dict(groups)
