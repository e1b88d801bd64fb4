"""Attention heads and neurons by what the loss loses without them, to first order (Michel et al.
2019)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from zoo import (
    OURS,
    ConfigError,
    GradientCalibration,
    Method,
    Request,
    Value,
    Values,
    heads_and_neurons,
    register_method,
    topk_in_type,
)

FAMILY = "structured"


def taylor_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe for retraining; gradients of 512 examples, one by one."""
    source = f"{OURS}: the paper reads the whole training set"
    return retraining(request), {"examples": Value(512, source)}


@dataclass(frozen=True)
class FirstOrder:
    """The sum over examples of abs(dL/dgate) of each unit, with gates of 1 on the outputs of units
    (Michel et al. 2019, Eq. 2)."""

    def start(self, weight: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(weight)

    def add(self, held: Tensor, gradient: Tensor) -> None:
        """Add the size of an example's gradient."""
        held.add_(gradient.abs())

    def scores(self, weight: Tensor, held: Tensor) -> Tensor:
        """What was added up."""
        return held

    def update(self, weight: Tensor, held: Tensor, pruned: Tensor) -> Tensor:
        """No weight changes."""
        return weight


def across_layers(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * n) largest of the n scores of heads of all layers, and so of
    neurons; before, the scores of a layer are divided by their norm (Michel et al. 2019, section
    4.1, after Molchanov et al. 2017).

    >>> masks = across_layers({"layer.0.heads": torch.tensor([9.0, 1.0]),
    ...     "layer.1.heads": torch.tensor([0.4, 0.3])}, 0.5)
    >>> {name: mask.tolist() for name, mask in masks.items()}
    {'layer.0.heads': [True, False], 'layer.1.heads': [True, False]}
    """
    whole = {n: s / (s[s.isfinite()].norm() + 1e-20) for n, s in scores.items()}
    return topk_in_type(whole, level)


@register_method(
    "taylor", recipe=taylor_recipe, label="heads and neurons by gradient", family=FAMILY, order=90
)
def taylor(
    density: float,
    *,
    examples: int = 512,
    calibration_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Heads and neurons with the largest gradients of their gates stay (Michel et al. 2019).

    The importance of a unit is the mean over `examples` training texts of abs(dL/dgate), with a
    gate of 1 on its output, divided by the norm over its layer; int(density * n) of the heads of
    all layers together stay, and so of the neurons. Starts from the dense trial of the same seed,
    or of `dense_seed`; with `retrain` what stays trains by the dense recipe. Differs from the
    paper, which prunes attention heads alone and gradually.
    """
    if examples < 1:
        raise ConfigError(f"examples of taylor must be at least 1, got {examples}")
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    reads = GradientCalibration(FirstOrder(), examples, batch=1, seed=calibration_seed)
    return replace(
        base, mask=across_layers, units=heads_and_neurons, calibration=reads, budget=None
    )
