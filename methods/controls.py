"""Controls: what no pruning, no choice of weights and no pre-training give."""

from dataclasses import replace

from methods.magnitude import magnitude
from zoo.method import Method, from_random_weights, nothing
from zoo.registry import register_method
from zoo.scores import noise


@register_method("dense", prunes=False)
def dense(density: float) -> Method:
    """Plain fine-tuning of all weights: the upper reference, and the teacher of distillation."""
    return Method()


@register_method("scratch", prunes=False)
def scratch(density: float) -> Method:
    """Plain fine-tuning from random weights: what pre-training is worth."""
    return Method(start=from_random_weights)


@register_method("head_only", prunes=False)
def head_only(density: float) -> Method:
    """A trained head on the frozen encoder: what the task needs no encoder training for."""
    return Method(trains=nothing)


@register_method("random")
def random(density: float, *, start: float, stop: float, power: int = 3) -> Method:
    """Random places, fixed from the start, under magnitude's schedule; the weights train."""
    return replace(magnitude(density, start=start, stop=stop, power=power), score=noise)
