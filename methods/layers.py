"""Fewer layers: the plainest structured pruning, and a rival of all others (Sajjad et al. 2023)."""

from methods.taylor import FAMILY
from zoo import (
    ConfigError,
    KeepLayers,
    LayersByData,
    Method,
    alternate,
    bottom,
    even,
    first_token,
    real_tokens,
    register_method,
    symmetric,
    top,
)
from zoo.errors import unknown

RULES = {
    "even": even,
    "bottom": bottom,
    "top": top,
    "symmetric": symmetric,
    "alternate": alternate,
}
"""Which layers stay, by name."""
BY_DATA = {"contribution": first_token, "block_influence": real_tokens}
"""Which tokens tell how much a layer does, by name."""


def layers_by(rule: str, density: float, examples: int) -> KeepLayers | LayersByData:
    """Which layers stay by a rule of this name. Raises ConfigError for another name."""
    if rule in BY_DATA:
        return LayersByData(BY_DATA[rule], density, examples)
    if rule not in RULES:
        raise ConfigError(unknown("rule for layers", rule, [*RULES, *BY_DATA]))
    return KeepLayers(RULES[rule], density)


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


@register_method(
    "layerdrop", recipe="first_half", label="LayerDrop in fine-tuning", family=FAMILY, order=93
)
def layerdrop(density: float, *, rate: float = 0.2) -> Method:
    """Fine-tuning that skips layers at random, which go by `even` spacing at the end (Fan 2020).

    Each layer is skipped with the chance `rate` in every forward pass of training, independently of
    the others, and nothing is rescaled; all layers run in evaluation. After the last step
    int(density * layers) stay, evenly spaced, and are evaluated as they are. Differs from the
    paper, which skips layers in pre-training: its authors say that it does not work well in
    fine-tuning alone. Raises ConfigError for a rate outside [0, 1).
    """
    return Method(skips=rate, layers_at_end=KeepLayers(even, density), budget=None)
