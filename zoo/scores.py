"""Score sources: where the importance of a weight comes from. A higher score is kept longer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Layer(Protocol):
    """What a score source may read of one masked matrix: W and S, both (out, in)."""

    weight: Tensor
    score: Tensor


@dataclass(frozen=True)
class Score:
    """Where scores come from.

    `read` gives the current S of a layer, in the shape of its W. `init` makes the stored score from
    W and a generator of random numbers; the stored score is trained where the gate has a slope.
    `observe` sees (layer, G = dL/dW') after each backward pass and may update the stored score in
    place: the seat of methods that keep a running statistic.
    """

    read: Callable[[Layer], Tensor]
    init: Callable[[Tensor, torch.Generator], Tensor] | None = None
    observe: Callable[[Layer, Tensor], None] | None = None


def stored(layer: Layer) -> Tensor:
    """The score tensor that the layer holds."""
    return layer.score


def magnitude_of(layer: Layer) -> Tensor:
    """abs(W) of the current weight, masked entries included (Sanh 2020, section 3)."""
    return layer.weight.detach().abs()


def zeros(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The start of learned scores in Movement and SMP: all equal, so the first masks are ties."""
    return torch.zeros_like(weight)


def log_odds_of_nine_tenths(weight: Tensor, generator: torch.Generator) -> Tensor:
    """log alpha = 2.197, a gate that is open with odds 9 : 1 (Movement's released L0 runs)."""
    return torch.full_like(weight, 2.197)


def uniform_noise(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Independent uniform noise on [0, 1), drawn on the CPU so that every device gets the same."""
    noise = torch.rand(weight.shape, generator=generator, dtype=torch.float32)
    return noise.to(device=weight.device, dtype=weight.dtype)


magnitude = Score(read=magnitude_of)
learned = Score(read=stored, init=zeros)
learned_log_odds = Score(read=stored, init=log_odds_of_nine_tenths)
noise = Score(read=stored, init=uniform_noise)
