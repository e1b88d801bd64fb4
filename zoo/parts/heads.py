"""Output heads: from hidden states to logits. A label-word head is pre-trained; a trained head is
fresh.

Every head module takes hidden states (B, tokens, H) and the pooler's output (B, H) or None. It
returns logits (B, C) or (B, tokens, C), and the representation (B, H) that contrastive losses read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.inputs.architecture import Architecture, rate
from zoo.inputs.batches import Batch
from zoo.inputs.checkpoint import Checkpoint, load_encoder, load_masked_lm, load_tensors
from zoo.inputs.kinds import architecture_of
from zoo.inputs.packing import Packing
from zoo.inputs.task import Task
from zoo.inputs.tokeniser import word_ids

HIDDEN_PADDING = -1e4
"""Logit at padding in span prediction, so that padding takes no part in the softmax and the width
of a batch does not matter. Differs from the released code, where padding takes part."""


class PooledClassifier(nn.Module):
    """Classification from the pooler's output: dropout and a linear layer (stock BERT)."""

    def __init__(self, config: Any, architecture: Architecture, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(rate(config, architecture.dropout))
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        assert pooled is not None
        return self.classifier(self.dropout(pooled)), pooled


class FirstTokenClassifier(nn.Module):
    """Classification from the first token: two linear layers (stock RoBERTa and its relatives,
    DistilBERT, ELECTRA, MPNet, DeBERTa).

    The architecture says which activation is between them and where dropout is.
    """

    def __init__(self, config: Any, architecture: Architecture, outputs: int):
        super().__init__()
        self.first_dropout = nn.Dropout(rate(config, architecture.first_dropout))
        self.dropout = nn.Dropout(rate(config, architecture.dropout))
        self.inner = _linear(config, config.hidden_size, config.hidden_size)
        self.activation = activation_of(config, architecture.classifier_activation)
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0]
        found = self.activation(self.inner(self.first_dropout(first)))
        return self.classifier(self.dropout(found)), first


class PredictionHead(nn.Module):
    """Linear layer, activation and LayerNorm, then dropout and a linear layer: of the first token,
    of the mean of all, or of every token (stock ModernBERT)."""

    def __init__(self, config: Any, architecture: Architecture, outputs: int, per_token: bool):
        super().__init__()
        width, deep = config.hidden_size, 2 * config.num_hidden_layers
        std = config.initializer_range / deep**0.5
        self.per_token = per_token
        self.inner = _linear(config, width, width, std, bias=config.classifier_bias)
        self.activation = activation_of(config, "classifier_activation")
        self.norm = nn.LayerNorm(width, config.norm_eps, bias=config.norm_bias)
        self.dropout = nn.Dropout(rate(config, architecture.dropout))
        self.classifier = _linear(config, width, outputs, width**-0.5)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0] if pooled is None else pooled
        found = self.activation(self.inner(hidden if self.per_token else first))
        return self.classifier(self.dropout(self.norm(found))), first


class TokenClassifier(nn.Module):
    """A linear layer at every token, behind dropout where the architecture has it (stock span
    prediction)."""

    def __init__(self, config: Any, architecture: Architecture, outputs: int):
        super().__init__()
        names = architecture.span_dropout
        self.dropout = nn.Dropout(rate(config, names)) if names else nn.Identity()
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.classifier(self.dropout(hidden)), hidden[:, 0]


class LabelWords(nn.Module):
    """Logits of label words: <h, e_word> (SMP, section 4.2), or the checkpoint's whole MLM head.

    `transform` is applied to the hidden state first; `decoder` (vocabulary, E) and `bias`
    (vocabulary,) belong to the checkpoint; nothing here trains. `tied`: `decoder` is the encoder's
    embedding, which the label words follow where it trains; `widening` is applied to its rows.
    """

    words: Tensor
    bias: Tensor
    rows: Tensor | None

    def __init__(
        self,
        words: list[int],
        per_token: bool,
        transform: nn.Module,
        decoder: Tensor,
        bias: Tensor,
        *,
        tied: bool,
        widening: Any = None,
    ):
        super().__init__()
        self.per_token = per_token
        self.transform = transform
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self.register_buffer("bias", bias.detach()[words].clone(), persistent=False)
        own = None if tied else decoder.detach()[words].clone()
        self.register_buffer("rows", own, persistent=False)
        self._embedding = [decoder] if tied else []  # in a list: registered by the encoder alone
        self._widening = [] if widening is None else [widening]

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0]
        transformed = self.transform(hidden if self.per_token else first)
        return F.linear(transformed, *self.matrix()), first

    def matrix(self) -> tuple[Tensor, Tensor]:
        """The last layer: rows (C, E) and bias (C,)."""
        rows = self._embedding[0][self.words] if self.rows is None else self.rows
        return (self._widening[0](rows) if self._widening else rows), self.bias


class Network(nn.Module):
    """A stock encoder and a head. `fresh` names the parameters that no checkpoint gave."""

    def __init__(self, encoder: Any, head: nn.Module, fresh: frozenset[str]):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.fresh = fresh
        self.architecture = architecture_of(encoder)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and representation of a batch; span logits at padding are HIDDEN_PADDING."""
        if batch.packing is None or not self.architecture.packs:
            asked = batch.tokens.device.type == "cpu" or not self.architecture.packs
            dtype = self.encoder.get_input_embeddings().weight.dtype
            out = self.encoder(
                **self.architecture.inputs(batch.tokens, batch.types),
                attention_mask=batch.attention.long() if asked else batch.term(dtype),
            )
            hidden = out.last_hidden_state
            pooled = self.architecture.pooled(self.encoder, out, batch.attention)
        else:
            hidden, pooled = self._packed(batch, batch.packing)
        logits, representation = self.head(hidden, pooled)
        if logits.dim() == 3:
            logits = logits.masked_fill(~batch.attention[..., None], HIDDEN_PADDING)
        return logits, representation

    def _packed(self, batch: Batch, packing: Packing) -> tuple[Tensor, Tensor | None]:
        """Hidden states and pooler's output of a packed batch, in the layout of the padded one."""
        dtype = self.encoder.get_input_embeddings().weight.dtype
        tokens = packing.rows(batch.tokens, self.pad)
        out = self.encoder(
            **self.architecture.inputs(tokens, packing.rows(batch.types, 0)),
            attention_mask=packing.attention(dtype),
            position_ids=packing.positions + self.architecture.first_position(self.pad),
        )
        hidden = packing.padded(out.last_hidden_state)
        pooler = getattr(self.encoder, "pooler", None)
        return hidden, None if pooler is None else pooler(hidden)

    @property
    def pad(self) -> int:
        """The number of the padding token."""
        return self.encoder.config.pad_token_id or 0


@dataclass(frozen=True)
class Head:
    """A way to put an output head on a checkpoint; `name` is recorded with every result.

    `build` makes the network. `check` raises ConfigError if the head cannot be built for a
    checkpoint and a task, without loading tensors.

    >>> from zoo import trained
    >>> trained.name
    'trained'
    """

    name: str
    build: Callable[[Checkpoint, Task], Network]
    check: Callable[[Checkpoint, Task], None] = lambda checkpoint, task: None


def build_trained(checkpoint: Checkpoint, task: Task) -> Network:
    """A fresh head that trains, as in stock fine-tuning: a linear layer on BERT's pooler, two
    linear layers on the first token of other encoders (ModernBERT: or on the mean of all), one
    linear layer at every token for spans (ModernBERT: two)."""
    architecture = checkpoint.architecture
    pooler = architecture.pooler and not task.output.per_token
    encoder, missing = load_encoder(checkpoint, pooler=pooler)
    head: nn.Module
    if architecture.prediction_head:
        per_token = task.output.per_token
        head = PredictionHead(encoder.config, architecture, task.logits, per_token)
    elif task.output.per_token:
        head = TokenClassifier(encoder.config, architecture, task.logits)
    else:
        kind = PooledClassifier if pooler else FirstTokenClassifier
        head = kind(encoder.config, architecture, task.logits)
    own = _load_pretrained(head, checkpoint)
    fresh = {f"head.{name}" for name, _ in head.named_parameters() if name not in own}
    return Network(encoder, head, frozenset(fresh | {f"encoder.{name}" for name in missing}))


def _load_pretrained(head: nn.Module, checkpoint: Checkpoint) -> set[str]:
    """Load the parts of a head that stock classification takes from the checkpoint, as ModernBERT's
    prediction head and DeBERTa's pooler; returns the names of its parameters that were loaded."""
    loaded: set[str] = set()
    for ours, theirs in checkpoint.architecture.pretrained_head.items():
        if not hasattr(head, ours):
            continue
        state, part = load_tensors(checkpoint, f"{theirs}."), head.get_submodule(ours)
        if state.keys() == part.state_dict().keys():
            part.load_state_dict(state)
            loaded |= {f"{ours}.{name}" for name in state}
    return loaded


def build_label_words(checkpoint: Checkpoint, task: Task) -> Network:
    """Logits z_k = <h, e_k> with the label words' embeddings, without transform or bias; h is the
    hidden state at the first token, or at every token for spans (SMP, section 4.2). Embeddings that
    are narrower than hidden states pass through the encoder's own layer that widens them (ours)."""
    words = word_ids(checkpoint, task.name, task.words)
    encoder, _ = load_encoder(checkpoint, pooler=False)
    table = encoder.get_input_embeddings().weight
    bias = torch.zeros(len(table))
    widening, per_token = architecture_of(encoder).widening(encoder), task.output.per_token
    head = LabelWords(words, per_token, nn.Identity(), table, bias, tied=True, widening=widening)
    return Network(encoder, head.requires_grad_(False), frozenset())


def build_mlm_label_words(checkpoint: Checkpoint, task: Task) -> Network:
    """The checkpoint's whole MLM head, frozen and restricted to the label words: transform,
    LayerNorm, decoder and bias at the first token, or at every token for spans (SMP's released
    code)."""
    check_mlm_label_words(checkpoint, task)
    words = word_ids(checkpoint, task.name, task.words)
    model = load_masked_lm(checkpoint)
    lm = checkpoint.architecture.mlm_head(model)
    encoder = model.base_model
    tied = lm.decoder is encoder.get_input_embeddings().weight
    head = LabelWords(words, task.output.per_token, lm.transform, lm.decoder, lm.bias, tied=tied)
    return Network(encoder, head.requires_grad_(False), frozenset())


def check_label_words(checkpoint: Checkpoint, task: Task) -> None:
    """Raise ConfigError unless every label word is one token."""
    word_ids(checkpoint, task.name, task.words)


def check_mlm_label_words(checkpoint: Checkpoint, task: Task) -> None:
    """Raise ConfigError unless the checkpoint has an MLM head and every label word is one token."""
    if not checkpoint.has_mlm_head:
        raise ConfigError(
            f"{checkpoint.name} has no MLM head, which the head mlm_label_words reads; use the head"
            " label_words (recipe paper)"
        )
    word_ids(checkpoint, task.name, task.words)


trained = Head("trained", build_trained)
"""A fresh head that trains."""
label_words = Head("label_words", build_label_words, check_label_words)
"""Products with the embeddings of label words; any encoder."""
mlm_label_words = Head("mlm_label_words", build_mlm_label_words, check_mlm_label_words)
"""The pre-trained MLM head at the label words; checkpoints with an MLM head."""
BUILT_IN = {head.name: head for head in (trained, label_words, mlm_label_words)}
"""The heads above by name."""


def activation_of(config: Any, given: Callable[[Tensor], Tensor] | str) -> Any:
    """The activation itself, or the one that an entry of the configuration names."""
    from transformers.activations import ACT2FN

    return ACT2FN[getattr(config, given)] if isinstance(given, str) else given


def _linear(
    config: Any, inputs: int, outputs: int, std: float | None = None, *, bias: bool = True
) -> nn.Linear:
    """A linear layer initialised as Hugging Face does it: normal weights, zero bias. With `std` as
    for ModernBERT: normal weights of that deviation, cut off at 3 of them."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    if std is None:
        nn.init.normal_(layer.weight, std=config.initializer_range)
    else:
        nn.init.trunc_normal_(layer.weight, std=std, a=-3 * std, b=3 * std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
