"""Fewer layers: the plainest structured pruning, and a rival of all others (Sajjad et al. 2023)."""

from methods.taylor import FAMILY
from zoo import KeepLayers, Method, register_method


@register_method("drop_layers", recipe="first_half", label="fewer layers", family=FAMILY, order=92)
def drop_layers(density: float, *, rule: str = "bottom") -> Method:
    """Plain fine-tuning of int(density * layers) layers of the pre-trained encoder (Sajjad 2023).

    `rule` says which stay: "bottom" (the first, so that the top is dropped: the paper's best),
    "top", "symmetric" (the middle is dropped), "alternate", "even" (evenly spaced). At least one
    stays; remaining weights are measured. Differs from LayerDrop, which skips layers in
    pre-training. Raises ConfigError for another rule.
    """
    return Method(layers=KeepLayers(rule, density), budget=None)
