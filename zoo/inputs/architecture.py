"""Everything that the project knows about how encoders of the Hugging Face hub are built.

An Architecture value describes each kind of encoder; all other modules ask it. To support another
kind, add a value to ARCHITECTURES and its cases to tests/test_architecture.py.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError

ROLES = ("Q", "K", "V", "O", "U", "D")
"""Query, key, value and output projections of attention; up and down projections of the
feed-forward sub-layer. These six matrices of each layer can be pruned, and no others."""


@dataclass(frozen=True)
class Parameter:
    """Where a parameter of an encoder belongs.

    `part` is "embeddings", "layers" or "pooler"; `layer` counts from 0 and is None outside the
    layers; `role` is one of ROLES for the weight of a prunable matrix, else None.
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
    feed-forward activation in a layer; `embeddings`: how names of embedding parameters begin;
    `projection`: a linear layer behind the embeddings, where an encoder may have one.

    `mlm_tensor` is how the name of a tensor ends that only checkpoints with a masked-LM head have;
    `mlm_head` reads that head from a masked language model. `token_types` says whether the encoder
    takes segment ids, `offset_positions` whether positions count from the padding token's number
    plus 1.

    `add_pooling_layer` says whether the encoder can be built with a pooler, `pooler` whether stock
    classification reads the pooler's output. Without one it reads the first token
    through dropout (if `drops_first`), a linear layer, `classifier_activation`, dropout and a
    second linear layer. `dropout` and `span_dropout` name the rates of classification and of span
    prediction in the configuration, the first that is set counts.
    """

    layers: str
    roles: Mapping[str, str]
    norms: tuple[str, str]
    activation: str
    mlm_tensor: str
    mlm_head: Callable[[Any], MaskedLmHead]
    embeddings: tuple[str, ...] = ("embeddings.",)
    projection: str = ""
    sizes: SizeNames = SizeNames()
    token_types: bool = True
    offset_positions: bool = False
    add_pooling_layer: bool = True
    pooler: bool = False
    classifier_activation: Callable[[Tensor], Tensor] = torch.tanh
    drops_first: bool = True
    dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    span_dropout: tuple[str, ...] = ()

    def layers_of(self, encoder: Any) -> nn.ModuleList:
        """The layers of an encoder, in order."""
        found = encoder.get_submodule(self.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    def matrices(self, encoder: Any) -> Iterator[tuple[str, nn.Linear]]:
        """Name and module of every prunable matrix, layer by layer in the order of ROLES."""
        for index, layer in enumerate(self.layers_of(encoder)):
            for role in ROLES:
                module = layer.get_submodule(self.roles[role])
                if not isinstance(module, nn.Linear):
                    raise ConfigError(
                        f"{self.layers}.{index}.{self.roles[role]} is a {type(module).__name__};"
                        " only plain linear layers can be masked"
                    )
                yield f"{self.layers}.{index}.{self.roles[role]}", module

    def parameter(self, name: str) -> Parameter:
        """Where a parameter belongs, by its name in the encoder."""
        if name.startswith(self.embeddings):
            return Parameter(name, "embeddings")
        found = re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.*)", name)
        if not found:
            return Parameter(name, "pooler")
        paths = {f"{path}.weight": role for role, path in self.roles.items()}
        return Parameter(name, "layers", int(found[1]), paths.get(found[2]))

    def first_position(self, pad: int) -> int:
        """The position of the first token, given the padding token's number."""
        return pad + 1 if self.offset_positions else 0

    def inputs(self, tokens: Tensor, types: Tensor) -> dict[str, Tensor]:
        """Tokens and segment ids, both (B, tokens), as keyword arguments of the encoder."""
        segments = {"token_type_ids": types} if self.token_types else {}
        return {"input_ids": tokens, **segments}

    def embed(self, encoder: Any, tokens: Tensor, types: Tensor) -> Tensor:
        """Embeddings (B, tokens, H) of tokens and segment ids, both (B, tokens)."""
        embedded = encoder.embeddings(**self.inputs(tokens, types))
        projection = getattr(encoder, self.projection, None) if self.projection else None
        return embedded if projection is None else projection(embedded)

    def attention_heads(self, encoder: Any) -> int:
        """Attention heads in each layer of an encoder."""
        return self.read_sizes(encoder.config.to_dict()).attention_heads

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        """The sizes in the content of a config.json; raises ConfigError for one that is missing."""
        names = vars(self.sizes).items()
        return Sizes(**{size: whole_number(config, name) for size, name in names})


def whole_number(
    config: Mapping[str, Any], name: str, default: int | None = None, least: int = 1
) -> int:
    """An entry of config.json; raises ConfigError unless it is whole and at least `least`."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"config.json says {name} {value!r}; expected a whole number")
    return value


def prunable_weights(sizes: Sizes) -> int:
    """Entries of all prunable matrices of an encoder: layers * (4 H^2 + 2 H I)."""
    return sizes.layers * (4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.intermediate)


def rate(config: Any, names: tuple[str, ...]) -> float:
    """The first dropout rate among `names` that a configuration sets; 0 without any name."""
    rates = (getattr(config, name, None) for name in names)
    return next((value for value in rates if value is not None), 0.0)


def _bert_head(model: Any) -> MaskedLmHead:
    head = model.cls.predictions
    return MaskedLmHead(head.transform, head.decoder.weight, head.decoder.bias)


def _roberta_head(model: Any) -> MaskedLmHead:
    head = model.lm_head
    transform = nn.Sequential(head.dense, nn.GELU(), head.layer_norm)
    return MaskedLmHead(transform, head.decoder.weight, head.decoder.bias)


def _distilbert_head(model: Any) -> MaskedLmHead:
    transform = nn.Sequential(model.vocab_transform, model.activation, model.vocab_layer_norm)
    return MaskedLmHead(transform, model.vocab_projector.weight, model.vocab_projector.bias)


def _electra_head(model: Any) -> MaskedLmHead:
    decoder = model.generator_lm_head
    return MaskedLmHead(model.generator_predictions, decoder.weight, decoder.bias)


BERT_ROLES = {
    "Q": "attention.self.query",
    "K": "attention.self.key",
    "V": "attention.self.value",
    "O": "attention.output.dense",
    "U": "intermediate.dense",
    "D": "output.dense",
}
LIKE_BERT: dict[str, Any] = {
    "layers": "encoder.layer",
    "roles": BERT_ROLES,
    "norms": ("attention.output.LayerNorm", "output.LayerNorm"),
    "activation": "intermediate.intermediate_act_fn",
}
ARCHITECTURES = {
    "bert": Architecture(
        **LIKE_BERT,
        mlm_tensor="cls.predictions.transform.dense.weight",
        mlm_head=_bert_head,
        pooler=True,
    ),
    "roberta": Architecture(
        **LIKE_BERT,
        mlm_tensor="lm_head.dense.weight",
        mlm_head=_roberta_head,
        offset_positions=True,
    ),
    "distilbert": Architecture(
        layers="transformer.layer",
        roles={
            "Q": "attention.q_lin",
            "K": "attention.k_lin",
            "V": "attention.v_lin",
            "O": "attention.out_lin",
            "U": "ffn.lin1",
            "D": "ffn.lin2",
        },
        norms=("sa_layer_norm", "output_layer_norm"),
        activation="ffn.activation",
        mlm_tensor="vocab_transform.weight",
        mlm_head=_distilbert_head,
        sizes=SizeNames("n_layers", "dim", "hidden_dim", "n_heads"),
        token_types=False,
        add_pooling_layer=False,
        classifier_activation=F.relu,
        drops_first=False,
        dropout=("seq_classif_dropout",),
        span_dropout=("qa_dropout",),
    ),
    "electra": Architecture(
        **LIKE_BERT,
        mlm_tensor="generator_predictions.dense.weight",
        mlm_head=_electra_head,
        embeddings=("embeddings.", "embeddings_project."),
        projection="embeddings_project",
        add_pooling_layer=False,
        classifier_activation=F.gelu,
    ),
}
"""By `model_type` in config.json."""


def architecture_of(encoder: Any) -> Architecture:
    """The architecture of a loaded encoder; raises ConfigError for an unsupported one, and for a
    model that has a head."""
    inner = getattr(encoder, "base_model", encoder)
    if inner is not encoder:
        raise ConfigError(
            f"a {type(encoder).__name__} has a head: pass its encoder, model.base_model"
        )
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"an encoder of the kind {kind!r:.80} cannot be masked; supported:"
            f" {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[kind]


def prunable(encoder: Any) -> dict[str, nn.Linear]:
    """The encoder's matrices that methods may prune, by name, in the model's order."""
    return dict(architecture_of(encoder).matrices(encoder))
