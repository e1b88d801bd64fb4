"""Calibration: what a method reads of examples or weights before it prunes, and how it then does.

A calibration takes place at each step at which the method's level is a number. `Calibration` takes
layers in order, and each reads what the pruned layers before it give; the others prune all matrices
at once. `zoo/engine/calibrate.py` runs them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.parts.masks import MaskFn, layer_of
from zoo.parts.units import Held

Moments = Callable[[Tensor], Tensor]
"""Inputs of a matrix (tokens, in) -> a sum over the tokens; sums of several batches add up."""


def squares(inputs: Tensor) -> Tensor:
    """The sum of x_j^2 over tokens, (in,): the diagonal of the second moments.

    >>> import torch
    >>> from zoo import squares
    >>> squares(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([10.,  4.])
    """
    return inputs.square().sum(0)


def products(inputs: Tensor) -> Tensor:
    """The sum of x_i x_j over tokens, (in, in): all second moments.

    >>> import torch
    >>> from zoo import products
    >>> products(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.],
            [2., 4.]])
    """
    return inputs.T @ inputs


@dataclass(frozen=True)
class Choice:
    """The mask of a matrix, or of some of its columns, by the method's mask function.

    >>> import torch
    >>> from zoo import Choice, topk_local
    >>> Choice(topk_local, "a", 0.5)(torch.tensor([[1.0, 2.0]]))
    tensor([[False,  True]])
    """

    mask: MaskFn
    name: str
    density: float

    def __call__(self, scores: Tensor, density: float | None = None) -> Tensor:
        """The mask of scores (out, some inputs), at the density of the matrix or another."""
        wanted = self.density if density is None else density
        return self.mask({self.name: scores}, wanted)[self.name]

    @property
    def group(self) -> int:
        """Neighbouring inputs that are decided together: M of N:M, the side of blocks, else 1."""
        return int(getattr(self.mask, "group", 1))


Prune = Callable[[Tensor, Tensor, Choice], tuple[Tensor, Tensor]]
"""(W, moments, choice) -> mask and new W, each (out, in). Moments are means over real tokens."""


@dataclass(frozen=True)
class Calibration:
    """What is read from how many examples, and how a matrix is pruned with it.

    `examples` of the training set are drawn without replacement by `seed`, None for the trial's
    own, and read in batches of `batch` in evaluation mode; padding is left out. `prune` gets the
    mean of `moments` over the inputs of its matrix. Raises ConfigError for numbers below 1.

    >>> from zoo import Calibration, squares
    >>> def prune(weight, moments, choice):
    ...     return choice(weight.abs() * moments.sqrt()), weight
    >>> Calibration(prune, squares).examples
    128
    """

    prune: Prune
    moments: Moments = squares
    examples: int = 128
    batch: int = 16
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_counts(self, "examples", "batch")

    def memory(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Most bytes of moments that are held at once: those of the matrices (out, in) of a layer,
        by name."""
        layers: dict[str, int] = {}
        for name, (_, width) in shapes.items():
            layer = layer_of(name)
            one = 4 * self.moments(torch.empty(1, width, device="meta")).numel()
            layers[layer] = layers.get(layer, 0) + one
        return max(layers.values())


class Curvature(Protocol):
    """What a method makes of gradients g of W', 0 where W is masked, one matrix at a time."""

    def start(self, weight: Tensor) -> Tensor:
        """What is held before the first gradient."""

    def add(self, held: Tensor, gradient: Tensor) -> None:
        """Take in a gradient, in place."""

    def scores(self, weight: Tensor, held: Tensor) -> Tensor:
        """The score of each weight, in the shape of W."""

    def update(self, weight: Tensor, held: Tensor, pruned: Tensor) -> Tensor:
        """The new W (out, in) without the weights where `pruned` (out, in) is true; these become 0
        whatever it says."""


@dataclass(frozen=True)
class GradientCalibration:
    """What is made of the gradients of so many mini-batches of `batch` examples, in evaluation mode
    and of the task's own loss; all matrices are then pruned at once.

    With several `rounds` the density falls in as many equal parts, each by fresh gradients. Weights
    that are pruned stay pruned. `seed` as in Calibration. Raises ConfigError for numbers below 1.

    >>> from methods.obert import BlockFisher
    >>> from zoo import GradientCalibration
    >>> GradientCalibration(BlockFisher(50, 1e-7, 64), gradients=64).rounds
    1
    """

    curvature: Curvature
    gradients: int
    batch: int = 16
    rounds: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_counts(self, "gradients", "batch", "rounds")

    def memory(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Bytes that are held at once for matrices of these shapes."""
        started = (self.curvature.start(torch.empty(s, device="meta")) for s in shapes.values())
        return sum(4 * held.numel() for held in started)


ReadGates = Callable[[Tensor, Tensor], Tensor]
"""(products, real) -> rows (rows, *units) that are kept of a batch. `products` (examples,
positions, *units) are derivatives of each example's own loss by a gate of 1 on the output of a unit
at a position, 0 at padding; `real` (examples, positions) says where the tokens are."""


ChooseUnits = Callable[[Mapping[str, Tensor], Mapping[str, float], float], dict[str, Tensor]]
"""(rows of each group, multiply-accumulates of one of its units for an example of mean length,
level) -> mask (*units) of each group."""


@dataclass(frozen=True)
class Rescaling:
    """Outputs of the units that stay are scaled, layer after layer, so that each sub-layer gives
    what it gives in a larger model, that of the masks of `teacher` (Kwon et al. 2022). Nothing more
    is scaled once a factor is larger than `limit`.

    >>> import torch
    >>> from zoo import Rescaling
    >>> def all_stay(rows, costs, level):
    ...     return {name: torch.ones_like(own[0], dtype=torch.bool) for name, own in rows.items()}
    >>> Rescaling(all_stay).limit
    10.0
    """

    teacher: ChooseUnits
    limit: float = 10.0


@dataclass(frozen=True)
class GateCalibration:
    """Units are pruned at once by the gradients of gates on their outputs, in evaluation mode and
    of the task's own loss: by `choose`, or else by the mask function, which gets all rows of each
    group (rows, *units).

    `examples` of the training set, None for all, are drawn without replacement by `seed`, None for
    the trial's own, and read in batches of `batch`. Weights of what stays do not change, unless
    `rescaling` scales them. Raises ConfigError for numbers below 1.

    >>> import torch
    >>> from zoo import GateCalibration
    >>> def sizes(products, real):
    ...     return products.sum(1).abs().sum(0, keepdim=True)
    >>> GateCalibration(sizes, 512).read(torch.tensor([[[1.0], [-3.0]], [[1.0], [1.0]]]), None)
    tensor([[4.]])
    """

    read: ReadGates
    examples: int | None = None
    batch: int = 32
    seed: int | None = None
    choose: ChooseUnits | None = None
    rescaling: Rescaling | None = None

    def __post_init__(self) -> None:
        if self.examples is not None:
            _check_counts(self, "examples")
        _check_counts(self, "batch")

    def memory(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Bytes of what is read of a batch, for groups of these shapes."""
        return sum(4 * math.prod(shape) for shape in shapes.values())


PruneUnits = Callable[[Held, float], tuple[Tensor, tuple[Tensor | None, ...]]]
"""(what units hold, density) -> mask of the units, and for each part a factor per unit or None."""


@dataclass(frozen=True)
class WeightCalibration:
    """Units are pruned by their weights alone, without any example. Weights and biases of kept ones
    are multiplied by the factors of `prune`, except biases of outputs that no unit owns. Draws
    follow `seed`, None for the trial's own.

    >>> from zoo import WeightCalibration
    >>> def prune(held, density):
    ...     sizes = held.weights[0].norm(dim=-1)
    ...     return sizes >= sizes.quantile(1 - density), (None,) * len(held.weights)
    >>> WeightCalibration(prune).memory({"a": (2, 2)})
    0
    """

    prune: PruneUnits
    seed: int | None = None

    def memory(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Bytes that are held at once."""
        return 0


AnyCalibration = Calibration | GradientCalibration | GateCalibration | WeightCalibration


def _check_counts(calibration: Any, *names: str) -> None:
    for name in names:
        value = getattr(calibration, name)
        if value < 1:
            raise ConfigError(f"{name} of a calibration must be at least 1, got {value}")
