"""Depth: which layers of an encoder stay. A layer that goes takes its biases and LayerNorms along,
so that the encoder is the stock one with fewer layers.

A rule is a function (layers, how many stay) -> the numbers of those that stay, from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from zoo.errors import ConfigError, unknown
from zoo.inputs.kinds import architecture_of


def even(layers: int, kept: int) -> list[int]:
    """Evenly spaced, the first and the last among them: floor(i (L - 1) / (k - 1) + 1/2).

    >>> from zoo.parts.depth import even
    >>> even(12, 4)
    [0, 4, 7, 11]
    """
    if kept == 1:
        return [0]
    return [(2 * i * (layers - 1) + kept - 1) // (2 * (kept - 1)) for i in range(kept)]


def bottom(layers: int, kept: int) -> list[int]:
    """The first ones: the top is dropped (Sajjad et al. 2023).

    >>> from zoo.parts.depth import bottom
    >>> bottom(12, 3)
    [0, 1, 2]
    """
    return list(range(kept))


def top(layers: int, kept: int) -> list[int]:
    """The last ones: the bottom is dropped (Sajjad et al. 2023).

    >>> from zoo.parts.depth import top
    >>> top(12, 3)
    [9, 10, 11]
    """
    return list(range(layers - kept, layers))


def symmetric(layers: int, kept: int) -> list[int]:
    """The first half of the kept, rounded up, and the last: the middle is dropped (Sajjad et al.
    2023).

    >>> from zoo.parts.depth import symmetric
    >>> symmetric(12, 5)
    [0, 1, 2, 10, 11]
    """
    first = (kept + 1) // 2
    return [*range(first), *range(layers - (kept - first), layers)]


def alternate(layers: int, kept: int) -> list[int]:
    """Every other layer is dropped from the last one down, L - 1, L - 3 and so on (Sajjad et al.
    2023). Raises ConfigError if more than half of them go.

    >>> from zoo.parts.depth import alternate
    >>> alternate(12, 8)
    [0, 1, 2, 3, 4, 6, 8, 10]
    """
    gone = range(layers - 1, layers - 1 - 2 * (layers - kept), -2)
    if len(gone) and gone[-1] < 0:
        raise ConfigError(
            f"alternate layers: {layers - kept} of {layers} cannot go, at most every other one:"
            " keep more, or choose another rule"
        )
    return [layer for layer in range(layers) if layer not in gone]


RULES: Mapping[str, Callable[[int, int], list[int]]] = {
    "even": even,
    "bottom": bottom,
    "top": top,
    "symmetric": symmetric,
    "alternate": alternate,
}
"""Rules by name."""


@dataclass(frozen=True)
class KeepLayers:
    """Which of an encoder's layers stay: int(density * layers) of them and at least one, by a rule.
    Raises ConfigError for another rule.

    >>> from zoo import KeepLayers
    >>> KeepLayers("even", 0.5)(12)
    [0, 2, 4, 7, 9, 11]
    """

    rule: str
    density: float

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(unknown("rule for layers", self.rule, RULES))

    def __call__(self, layers: int) -> list[int]:
        return RULES[self.rule](layers, max(1, int(self.density * layers)))


def check_layers(config: Any, kept: Sequence[int]) -> None:
    """Raise ConfigError if the layers of an encoder differ from each other, by its configuration,
    and others than the first ones are to stay."""
    if getattr(config, "layer_types", None) and list(kept) != list(range(len(kept))):
        raise ConfigError(
            f"the layers of {config.model_type} differ from each other, so that only the last ones"
            " can go: choose the rule bottom, or another encoder"
        )


def keep_layers(encoder: Any, kept: Sequence[int]) -> None:
    """Take all other layers out of an encoder; those that stay are numbered anew.

    Raises ConfigError for an encoder whose layers differ from each other, unless the last ones go.

    >>> from transformers import BertConfig, BertModel
    >>> from zoo.parts.depth import keep_layers
    >>> encoder = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3,
    ...     num_attention_heads=2, intermediate_size=8))
    >>> last = encoder.encoder.layer[2]
    >>> keep_layers(encoder, [0, 2])
    >>> encoder.config.num_hidden_layers, encoder.encoder.layer[1] is last
    (2, True)
    """
    architecture = architecture_of(encoder)
    layers = architecture.layers_of(encoder)
    check_layers(encoder.config, kept)
    types = getattr(encoder.config, "layer_types", None)
    stay = [layers[number] for number in kept]
    del layers[:]
    layers.extend(nn.ModuleList(stay))
    setattr(encoder.config, architecture.sizes.layers, len(stay))
    if types is not None:
        encoder.config.layer_types = list(types[: len(stay)])


def first_half_of_layers(encoder: Any) -> None:
    """Remove the last layers; the first half stays, rounded up (Sajjad et al. 2023, top-layer
    dropping).

    >>> from transformers import BertConfig, BertModel
    >>> from zoo import first_half_of_layers
    >>> encoder = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3,
    ...     num_attention_heads=2, intermediate_size=8))
    >>> first_half_of_layers(encoder)
    >>> encoder.config.num_hidden_layers
    2
    """
    many = len(architecture_of(encoder).layers_of(encoder))
    keep_layers(encoder, bottom(many, (many + 1) // 2))
