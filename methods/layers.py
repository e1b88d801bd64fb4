"""Fewer layers: the plainest structured pruning, and a rival of all others (Sajjad et al. 2023)."""

from methods.taylor import FAMILY
from zoo import Method, layers_by, register_method


@register_method("drop_layers", recipe="first_half", label="fewer layers", family=FAMILY, order=92)
def drop_layers(density: float, *, rule: str = "bottom", examples: int = 128) -> Method:
    """Plain fine-tuning of int(density * layers) layers of the pre-trained encoder (Sajjad 2023).

    `rule` says which stay: "bottom" (the first, so that the top is dropped: the paper's best),
    "top", "symmetric" (the middle is dropped), "alternate", "even" (evenly spaced); or, by the
    cosine of what enters and leaves a layer over `examples` training examples in the pre-trained
    encoder, "contribution" (of [CLS]) and "block_influence" (of all tokens, Men et al. 2024). At
    least one stays; remaining weights are measured. Differs from Sajjad 2023: contribution keeps so
    many layers, where the paper has a threshold; from Men 2024: encoders that are not fine-tuned
    yet; from LayerDrop, which skips layers in pre-training. Raises ConfigError for another rule.
    """
    return Method(layers=layers_by(rule, density, examples), budget=None)
