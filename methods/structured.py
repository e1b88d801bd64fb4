"""SMP over blocks of attention matrices and neurons: masks that make a smaller model.

The units are those of nn_pruning's hybrid (Lagunas et al. 2021), the training is SMP's: only scores
learn. Neither paper has it; it is ours.
"""

from dataclasses import replace
from typing import Any

from methods.smp import FAMILY, PENALTY, smp_l
from zoo import Method, blocks_and_neurons, register_method


@register_method(
    "smp_structured",
    recipe="smp_l",
    ranges=PENALTY,
    label="SMP-L, blocks and neurons",
    family=FAMILY,
    order=67,
)
def smp_structured(density: float, *, block: int = 32, **hyper: Any) -> Method:
    """SMP-L with one score for each block of Q, K, V and O and each neuron; weights are frozen.

    Of every matrix of attention int(density * blocks) blocks of `block` x `block` weights stay, and
    int(density * neurons) neurons of every layer, at least one. Remaining weights are measured: a
    matrix with few blocks may keep more than the density. Blocks of 32 are nn_pruning's. Differs
    from SMP, which has a score for each weight: the gradient of a unit's score is the sum of G * W
    over its weights, and SMP-L's penalty is only where a search starts.
    """
    return replace(smp_l(density, **hyper), units=blocks_and_neurons(block), budget=None)
