"""SMP over blocks of attention matrices and neurons: masks that make a smaller model.

The units are those of nn_pruning's hybrid (Lagunas et al. 2021), the training is SMP's: only scores
learn. Neither paper has it; it is ours.
"""

from dataclasses import replace
from typing import Any

from methods.smp import FAMILY, PENALTY, smp_l, smp_recipe
from zoo import OURS, Method, Request, Value, Values, blocks_and_neurons, register_method


def smp_structured_recipe(request: Request) -> tuple[Values, Values]:
    """SMP-L's recipe, with the blocks of nn_pruning."""
    train, hyper = smp_recipe(request)
    hyper["penalty"] = Value(400.0, f"{OURS}: where a search starts; SMP-L's, for single weights")
    return train, hyper | {"block": Value(32, "nn_pruning (Lagunas et al. 2021), MNLI file")}


@register_method(
    "smp_structured",
    recipe=smp_structured_recipe,
    ranges=PENALTY,
    label="SMP-L, blocks and neurons",
    family=FAMILY,
    order=67,
)
def smp_structured(density: float, *, block: int = 32, **hyper: Any) -> Method:
    """SMP-L with one score for each block of Q, K, V and O and each neuron; weights are frozen.

    Of every matrix of attention int(density * blocks) blocks of `block` x `block` weights stay, and
    int(density * neurons) neurons of every layer, at least one. Remaining weights are measured: a
    matrix with few blocks may keep more than the density. Differs from SMP, which has a score for
    each weight: the gradient of a unit's score is the sum of G * W over its weights.
    """
    return replace(smp_l(density, **hyper), units=blocks_and_neurons(block), budget=None)
