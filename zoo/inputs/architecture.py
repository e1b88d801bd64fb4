"""How an encoder of the Hugging Face hub is built: what an Architecture value says, and what
follows from it. zoo/inputs/kinds.py has a value for each kind of encoder."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError

ROLES = ("Q", "K", "V", "O", "U", "D")
"""Query, key, value and output projections of attention; up and down projections of the
feed-forward sub-layer. The matrices of these roles can be pruned, and no others. An encoder that
holds Q, K and V in one matrix has the role "QKV" in their place; U of a gated feed-forward
sub-layer holds its gate as well."""


@dataclass(frozen=True)
class Parameter:
    """Where a parameter of an encoder belongs.

    `part` is "embeddings" (tables of positions and distances among them), "layers" or "pooler";
    `layer` counts from 0 and is None for what belongs to no single layer; `role` is one of ROLES,
    or "QKV", for the weight of a prunable matrix, else None.
    """

    name: str
    part: str
    layer: int | None = None
    role: str | None = None


@dataclass(frozen=True)
class MaskedLmHead:
    """A masked language model's head: `transform` maps hidden states (..., H) to (..., E); logits
    are their products with `decoder` (vocabulary, E) plus `bias` (vocabulary,)."""

    transform: nn.Module
    decoder: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Sizes:
    """Sizes of an encoder. `intermediate`: the width of the feed-forward sub-layer; `positions`:
    the rows of the table of positions."""

    layers: int
    hidden: int
    intermediate: int
    attention_heads: int
    positions: int


@dataclass(frozen=True)
class SizeNames:
    """What config.json calls each size."""

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    intermediate: str = "intermediate_size"
    attention_heads: str = "num_attention_heads"
    positions: str = "max_position_embeddings"


@dataclass(frozen=True)
class Architecture:
    """How one kind of encoder is built. Paths are dotted names of submodules.

    `layers`: the list of layers in the encoder; `roles`: each prunable matrix in a layer; `norms`:
    the LayerNorms after attention and after the feed-forward sub-layer; `activation`: the
    feed-forward activation in a layer; `gated`: whether U holds a gate as well; `embeddings`: how
    names of embedding parameters begin; `projection`: a linear layer that widens them, where an
    encoder may have one. `compacts` says whether zoo.compact knows its layers, `packs` whether
    several examples may share a row: where attention reads nothing but the mask, so that outputs
    are exact.

    `mlm_tensor` is how the name of a tensor ends that only checkpoints with a masked-LM head have;
    `mlm_head` reads that head from a masked language model. `token_types` says whether the encoder
    takes segment ids, and `type_rows` how many there are where the configuration does not say;
    `offset_positions` says whether positions count from the padding token's number plus 1, and
    `padding` which number the code takes for it whatever the configuration says.

    `add_pooling_layer` says whether the encoder can be built with a pooler, `pooler` whether stock
    classification reads the pooler's output. Without one it reads the first token
    through dropout, a linear layer, `classifier_activation` (a function, or the entry of the
    configuration that names it), dropout and a second linear layer. With a `prediction_head` it
    reads the first token, or the mean of all, through that, dropout and a linear layer, and so does
    span prediction at every token. `first_dropout`, `dropout` and `span_dropout` name the rates of
    classification (before and behind the first linear layer) and of span prediction in the
    configuration, the first that is set counts. `pretrained_head` names
    parts of a trained head that checkpoints have. `first_layer` and `last_layer` are those of stock
    classification.
    """

    layers: str
    roles: Mapping[str, str]
    mlm_tensor: str
    mlm_head: Callable[[Any], MaskedLmHead]
    norms: tuple[str, str] = ("", "")
    activation: str = ""
    gated: bool = False
    embeddings: tuple[str, ...] = ("embeddings.",)
    projection: str = ""
    sizes: SizeNames = SizeNames()
    compacts: bool = True
    packs: bool = True
    token_types: bool = True
    type_rows: int = 2
    offset_positions: bool = False
    padding: int | None = None
    add_pooling_layer: bool = True
    pooler: bool = False
    prediction_head: bool = False
    classifier_activation: Callable[[Tensor], Tensor] | str = torch.tanh
    first_dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    span_dropout: tuple[str, ...] = ()
    pretrained_head: Mapping[str, str] = field(default_factory=dict)
    first_layer: str = "classifier.dense"
    last_layer: str = "classifier.out_proj"

    def layers_of(self, encoder: Any) -> nn.ModuleList:
        """The layers of an encoder, in order."""
        found = encoder.get_submodule(self.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    def matrices(self, encoder: Any) -> Iterator[tuple[str, nn.Linear]]:
        """Name and module of every prunable matrix, layer by layer in the order of `roles`."""
        for index, layer in enumerate(self.layers_of(encoder)):
            for path in self.roles.values():
                module = layer.get_submodule(path)
                if not isinstance(module, nn.Linear):
                    raise ConfigError(
                        f"{self.layers}.{index}.{path} is a {type(module).__name__};"
                        " only plain linear layers can be masked"
                    )
                yield f"{self.layers}.{index}.{path}", module

    def parameter(self, name: str) -> Parameter:
        """Where a parameter belongs, by its name in the encoder."""
        if name.startswith(self.embeddings):
            return Parameter(name, "embeddings")
        found = re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.*)", name)
        if not found:
            return Parameter(name, "pooler" if name.startswith("pooler.") else "layers")
        paths = {f"{path}.weight": role for role, path in self.roles.items()}
        return Parameter(name, "layers", int(found[1]), paths.get(found[2]))

    def first_position(self, pad: int) -> int:
        """The position of the first token, given the padding token's number."""
        return pad + 1 if self.offset_positions else 0

    def inputs(self, tokens: Tensor, types: Tensor) -> dict[str, Tensor]:
        """Tokens and segment ids, both (B, tokens), as keyword arguments of the encoder."""
        segments = {"token_type_ids": types} if self.token_types else {}
        return {"input_ids": tokens, **segments}

    def widening(self, encoder: Any) -> Any:
        """The linear layer that makes embeddings as wide as hidden states; None without one."""
        found = encoder if self.projection else None
        for name in self.projection.split("."):
            found = getattr(found, name, None)
        return found

    def stock_names(self, *, per_token: bool) -> dict[str, str]:
        """Where the stock model of a task has the parts of a trained head."""
        if self.prediction_head:
            return {"inner": "head.dense", "norm": "head.norm", "classifier": "classifier"}
        if per_token:
            return {"classifier": "qa_outputs"}
        first = {} if self.pooler else {"inner": self.first_layer}
        return {**first, "classifier": self.last_layer}

    def attention_heads(self, encoder: Any) -> int:
        """Attention heads in each layer of an encoder."""
        return self.read_sizes(encoder.config.to_dict()).attention_heads

    def segments(self, config: Mapping[str, Any]) -> int:
        """How many segment ids an encoder tells apart, given the content of its config.json."""
        rows = whole_number(config, "type_vocab_size", self.type_rows, 0)
        return rows if self.token_types else 0

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        """The sizes in the content of a config.json; raises ConfigError for one that is missing."""
        names = {one.name: getattr(self.sizes, one.name) for one in fields(Sizes)}
        return Sizes(**{size: whole_number(config, name) for size, name in names.items()})

    def prunable_weights(self, sizes: Sizes) -> int:
        """Entries of all prunable matrices: layers * (4 H^2 + 2 H I), 3 H I with a gate."""
        wide = (3 if self.gated else 2) * sizes.intermediate
        return sizes.layers * sizes.hidden * (4 * sizes.hidden + wide)

    def pooled(self, encoder: Any, out: Any, attention: Tensor) -> Tensor | None:
        """What classification reads (B, H): the pooler's output, or the mean over the tokens where
        the configuration says so; None for the first token. `attention` (B, tokens)."""
        pooling = getattr(encoder.config, "classifier_pooling", "")
        if self.prediction_head and pooling == "mean":
            seen = attention[..., None]
            return (out.last_hidden_state * seen).sum(1) / seen.sum(1)
        return getattr(out, "pooler_output", None)


def whole_number(
    config: Mapping[str, Any], name: str, default: int | None = None, least: int = 1
) -> int:
    """An entry of config.json; raises ConfigError unless it is whole and at least `least`."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"config.json says {name} {value!r}; expected a whole number")
    return value


def rate(config: Any, names: tuple[str, ...]) -> float:
    """The first dropout rate among `names` that a configuration sets; 0 without any name."""
    rates = (getattr(config, name, None) for name in names)
    return next((value for value in rates if value is not None), 0.0)
