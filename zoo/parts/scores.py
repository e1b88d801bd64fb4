"""Where the importance of a weight comes from. Weights with higher scores are kept longer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import ConfigError, unknown


class Layer(Protocol):
    """What a score may read of one masked matrix: W and the stored S, both (out, in)."""

    weight: Tensor
    score: Tensor


def total(scores: Tensor) -> Tensor:
    """The sum over the last axis: one score of many that stay or go together.

    >>> import torch
    >>> from zoo.parts.scores import total
    >>> total(torch.tensor([[1.0, 2.0]]))
    tensor([3.])
    """
    return scores.sum(-1)


def norm(scores: Tensor) -> Tensor:
    """The root of the sum of squares over the last axis: the magnitude of a group.

    >>> import torch
    >>> from zoo.parts.scores import norm
    >>> norm(torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    return scores.square().sum(-1).sqrt()


@dataclass(frozen=True)
class Moment:
    """A moment between two optimiser steps: `step` of `total` steps are taken, the last of them at
    the learning rate `rate` of weights.

    >>> from zoo import Moment
    >>> Moment(step=10, total=200, rate=1e-3).step
    10
    """

    step: int
    total: int
    rate: float


@dataclass(frozen=True)
class Score:
    """Where scores come from.

    `read` returns the current S of a layer, in the shape of its W. `init` makes the stored score
    from W and a generator of random numbers; the stored score is trained if the gate has a slope.
    `observe` is called with (layer, G = dL/dW') after each backward pass and may update the stored
    score in place, for methods that keep a running statistic; `after` with (layer, moment)
    after each optimiser step, where the layer's W is new and its gradient clipped, and may change W
    too. `together` makes one score of those of weights that stay or go together, over the last
    axis.

    Where a method prunes units (zoo/parts/units.py), stored scores are those of groups: `init` gets
    zeros in the shape of a group, and nothing is observed. Other scores are the `together` of what
    `read` gives for the weights of a unit.

    >>> from zoo import Score, stored, zeros
    >>> def saliency(layer, upstream):
    ...     layer.score.add_((layer.weight.detach() * upstream).abs())
    >>> score = Score(read=stored, init=zeros, observe=saliency)
    """

    read: Callable[[Layer], Tensor]
    init: Callable[[Tensor, torch.Generator], Tensor] | None = None
    observe: Callable[[Layer, Tensor], None] | None = None
    after: Callable[[Layer, Moment], None] | None = None
    together: Callable[[Tensor], Tensor] = total


def stored(layer: Layer) -> Tensor:
    """The score tensor that the layer holds.

    >>> from types import SimpleNamespace
    >>> from zoo import stored
    >>> stored(SimpleNamespace(score="S"))
    'S'
    """
    return layer.score


def magnitude_of(layer: Layer) -> Tensor:
    """abs(W) of the current weight, masked entries included (Sanh et al. 2020, section 3).

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from zoo import magnitude_of
    >>> magnitude_of(SimpleNamespace(weight=torch.tensor([-2.0, 1.0])))
    tensor([2., 1.])
    """
    return layer.weight.detach().abs()


def zeros(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Zeros: the start of learned scores in movement pruning and SMP, where the first masks are
    decided by ties.

    >>> import torch
    >>> from zoo import zeros
    >>> zeros(torch.ones(1, 2), torch.Generator())
    tensor([[0., 0.]])
    """
    return torch.zeros_like(weight)


def log_odds_of_nine_tenths(weight: Tensor, generator: torch.Generator) -> Tensor:
    """log alpha = 2.197, a gate that is open with odds 9 : 1 (the released L0 runs of Sanh et al.
    2020).

    >>> import torch
    >>> from zoo import log_odds_of_nine_tenths
    >>> log_odds_of_nine_tenths(torch.ones(1), torch.Generator()).sigmoid()
    tensor([0.9000])
    """
    return torch.full_like(weight, 2.197)


def uniform_noise(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Independent uniform noise in [0, 1), drawn on the CPU so that all devices get the same.

    >>> import torch
    >>> from zoo import uniform_noise
    >>> uniform_noise(torch.ones(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    noise = torch.rand(weight.shape, generator=generator, dtype=torch.float32)
    return noise.to(device=weight.device, dtype=weight.dtype)


def kaiming(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in plus and minus 1 / sqrt(inputs), as a linear layer starts (He et al. 2015 with a =
    sqrt(5)): `--mask_init kaiming` of the movement code.

    >>> import torch
    >>> from zoo import kaiming
    >>> bool(kaiming(torch.ones(8, 4), torch.Generator()).abs().max() <= 0.5)
    True
    """
    if weight.ndim < 2:
        raise ConfigError("units have no inputs, which kaiming needs: choose constant or uniform")
    return _within(weight.shape[1] ** -0.5, weight, generator)


def _within(bound: float, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in plus and minus a bound."""
    return uniform_noise(weight, generator).mul_(2 * bound).sub_(bound)


STARTS = ("constant", "uniform", "kaiming")
"""How learned scores may start: `--mask_init` of the movement code."""


def learned_from(start: str, scale: float) -> Score:
    """A trained score that starts at `scale` ("constant"), uniform in plus and minus `scale`
    ("uniform"), or as a linear layer does ("kaiming"). Raises ConfigError for another name.

    >>> from zoo import learned, learned_from
    >>> learned_from("constant", 0.0) is learned
    True
    """
    if start not in STARTS:
        raise ConfigError(unknown("start of scores", start, STARTS))
    if start == "kaiming":
        return Score(read=stored, init=kaiming)
    if start == "uniform":
        return Score(read=stored, init=partial(_within, scale))
    if scale == 0:
        return learned
    return Score(read=stored, init=lambda weight, generator: torch.full_like(weight, scale))


magnitude = Score(read=magnitude_of, together=norm)
"""The magnitude of the current weight."""
learned = Score(read=stored, init=zeros)
"""A trained score that starts at 0."""
learned_log_odds = Score(read=stored, init=log_odds_of_nine_tenths)
"""A trained score that starts at the log odds of 0.9."""
noise = Score(read=stored, init=uniform_noise)
"""Random scores, fixed from the start."""
