"""Depth: which layers of an encoder stay. A layer that goes takes its biases and LayerNorms along,
so that the encoder is the stock one with fewer layers.

A rule is a function (layers, how many stay) -> the numbers of those that stay, from 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, TrialError
from zoo.inputs.kinds import architecture_of

Stay = Callable[[int], Sequence[int]]
"""(layers of an encoder) -> the numbers of those that stay, from 0, in order."""


def runs(layers: int, rate: float, draws: torch.Generator) -> list[int]:
    """The layers that a forward pass in training runs: each with the chance 1 - rate, by itself,
    where u > rate for a uniform u in [0, 1) (Fan et al. 2020, LayerDrop, as released).

    >>> import torch
    >>> from zoo.parts.depth import runs
    >>> runs(6, 0.5, torch.Generator().manual_seed(0))
    [1, 5]
    """
    return (torch.rand(layers, generator=draws) > rate).nonzero().flatten().tolist()


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


Rule = Callable[[int, int], list[int]]
"""(layers, how many stay) -> the numbers of those that stay."""


@dataclass(frozen=True)
class KeepLayers:
    """Which of an encoder's layers stay: int(density * layers) of them and at least one, by a rule.

    >>> from zoo import KeepLayers, even
    >>> KeepLayers(even, 0.5)(12)
    [0, 2, 4, 7, 9, 11]
    """

    rule: Rule
    density: float

    def __call__(self, layers: int) -> list[int]:
        return self.rule(layers, kept_of(layers, self.density))


def kept_of(layers: int, density: float) -> int:
    """How many of so many layers stay: int(density * layers), at least one.

    >>> from zoo.parts.depth import kept_of
    >>> kept_of(12, 0.3)
    3
    """
    return max(1, int(density * layers))


def first_token(attention: Tensor) -> Tensor:
    """The first token of each sequence, [CLS] (Sajjad et al. 2023, contribution).

    >>> import torch
    >>> from zoo.parts.depth import first_token
    >>> first_token(torch.ones(1, 3, dtype=torch.bool))
    tensor([[ True, False, False]])
    """
    return attention & (torch.arange(attention.shape[1], device=attention.device) == 0)


def real_tokens(attention: Tensor) -> Tensor:
    """All tokens but padding (Men et al. 2024, block influence).

    >>> import torch
    >>> from zoo.parts.depth import real_tokens
    >>> real_tokens(torch.tensor([[True, False]]))
    tensor([[ True, False]])
    """
    return attention


@dataclass(frozen=True)
class LayersByData:
    """Which of an encoder's layers stay: as many as KeepLayers keeps, those that change what they
    read most. A layer is measured by the mean, over the tokens that `read` picks from the real ones
    (B, longest) of `examples` training examples, of the cosine between what enters it and what
    leaves it, in the dense encoder before the first step; those with the highest go, the later of
    equals first. Raises ConfigError for no examples, and TrialError where a layer is asked for
    without data.

    >>> from zoo import LayersByData, real_tokens
    >>> LayersByData(real_tokens, 0.5).choose([0.9, 0.2, 0.8, 0.5])
    [1, 3]
    """

    read: Callable[[Tensor], Tensor]
    density: float
    examples: int = 128

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"layers are measured on at least one example, not {self.examples}")

    def choose(self, cosines: Sequence[float]) -> list[int]:
        """The layers that stay, by the mean cosine of each."""
        order = sorted(range(len(cosines)), key=lambda layer: (cosines[layer], layer))
        return sorted(order[: kept_of(len(cosines), self.density)])

    def __call__(self, layers: int) -> list[int]:
        raise TrialError(
            "the layers of this method are chosen by data, which a loop of one's own cannot do: run"
            " it as a trial, by run_benchmark.py, or choose another rule"
        )


@dataclass(frozen=True)
class TheseLayers:
    """The layers of these numbers stay, as data have chosen them.

    >>> from zoo.parts.depth import TheseLayers
    >>> TheseLayers((0, 2))(3)
    [0, 2]
    """

    kept: tuple[int, ...]

    def __call__(self, layers: int) -> list[int]:
        return list(self.kept)


def cosines(before: Tensor, after: Tensor) -> Tensor:
    """The cosine between each pair of rows (n, hidden), in float64.

    >>> import torch
    >>> from zoo.parts.depth import cosines
    >>> cosines(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor([0.], dtype=torch.float64)
    """
    return torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)


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
