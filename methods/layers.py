"""Fewer layers: the plainest structured pruning, and a rival of all others (Sajjad et al. 2023)."""

from methods.controls import control_recipe
from methods.taylor import FAMILY
from zoo import KeepLayers, Method, Request, Values, register_method


def drop_layers_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe."""
    return control_recipe(request)


@register_method(
    "drop_layers", recipe=drop_layers_recipe, label="fewer layers", family=FAMILY, order=92
)
def drop_layers(density: float, *, rule: str = "bottom") -> Method:
    """Plain fine-tuning of int(density * layers) layers of the pre-trained encoder (Sajjad 2023).

    `rule` says which stay: "bottom" (the first, so that the top is dropped: the paper's best),
    "top", "symmetric" (the middle is dropped), "alternate", "even" (evenly spaced). At least one
    stays; remaining weights are measured. Differs from LayerDrop, which skips layers in
    pre-training. Raises ConfigError for another rule.
    """
    return Method(layers=KeepLayers(rule, density), budget=None)
