"""Attention heads and neurons by what the loss loses without them, to first order (Michel et al.
2019)."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from methods.one_shot import magnitude_row, retraining
from zoo import (
    OURS,
    GateCalibration,
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
    """The dense recipe for retraining; gradients of 512 examples."""
    source = f"{OURS}: the paper reads the whole training set"
    return retraining(request), {"examples": Value(512, source)}


def sizes_of_examples(products: Tensor, real: Tensor) -> Tensor:
    """The sum over examples of abs(dL/dgate) of each unit, with gates of 1 on the outputs of units
    (Michel et al. 2019, Eq. 2)."""
    return products.sum(1).abs().sum(0, keepdim=True)


def across_layers(rows: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """M = 1 at the int(level * n) most important of the n heads of all layers, and so of neurons.
    Importances, sums of rows (rows, units), are divided by their norm in the layer (Michel et al.
    2019, section 4.1, after Molchanov et al. 2017).

    >>> import torch
    >>> from methods.taylor import across_layers
    >>> masks = across_layers({"layer.0.heads": torch.tensor([[9.0, 1.0]]),
    ...     "layer.1.heads": torch.tensor([[0.4, 0.3]])}, 0.5)
    >>> {name: mask.tolist() for name, mask in masks.items()}
    {'layer.0.heads': [True, False], 'layer.1.heads': [True, False]}
    """
    sums = {name: own.sum(0) for name, own in rows.items()}
    return topk_in_type({n: s / (s.norm() + 1e-20) for n, s in sums.items()}, level)


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
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    reads = GateCalibration(sizes_of_examples, examples, seed=calibration_seed)
    return replace(
        base, mask=across_layers, units=heads_and_neurons, calibration=reads, budget=None
    )
