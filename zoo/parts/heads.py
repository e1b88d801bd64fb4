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
from zoo.inputs.architecture import Architecture, architecture_of, rate
from zoo.inputs.batches import Batch
from zoo.inputs.checkpoint import Checkpoint, load_encoder, load_masked_lm, word_ids
from zoo.inputs.packing import Packing
from zoo.inputs.task import Task

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
    """Classification from the first token: two linear layers (stock RoBERTa, DistilBERT, ELECTRA).

    The architecture says which activation is between them and where dropout is.
    """

    def __init__(self, config: Any, architecture: Architecture, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(rate(config, architecture.dropout))
        self.drops_first = architecture.drops_first
        self.dense = _linear(config, config.hidden_size, config.hidden_size)
        self.activation = architecture.classifier_activation
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0]
        inner = self.activation(self.dense(self.dropout(first) if self.drops_first else first))
        return self.classifier(self.dropout(inner)), first


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
    embedding, which the label words follow where it trains.
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
    ):
        super().__init__()
        self.per_token = per_token
        self.transform = transform
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self.register_buffer("bias", bias.detach()[words].clone(), persistent=False)
        own = None if tied else decoder.detach()[words].clone()
        self.register_buffer("rows", own, persistent=False)
        self._embedding = [decoder] if tied else []  # in a list: registered by the encoder alone

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0]
        transformed = self.transform(hidden if self.per_token else first)
        rows = self._embedding[0][self.words] if self.rows is None else self.rows
        return F.linear(transformed, rows, self.bias), first


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
        if batch.packing is None:
            out = self.encoder(
                **self.architecture.inputs(batch.tokens, batch.types),
                attention_mask=batch.attention.long(),
            )
            hidden, pooled = out.last_hidden_state, getattr(out, "pooler_output", None)
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
    linear layers on the first token of RoBERTa, DistilBERT and ELECTRA, one linear layer at every
    token for spans."""
    architecture = checkpoint.architecture
    pooler = architecture.pooler and not task.output.per_token
    encoder, missing = load_encoder(checkpoint, pooler=pooler)
    kind: type[nn.Module] = PooledClassifier if pooler else FirstTokenClassifier
    if task.output.per_token:
        kind = TokenClassifier
    head = kind(encoder.config, architecture, task.logits)
    fresh = {f"encoder.{name}" for name in missing}
    return Network(
        encoder, head, frozenset(fresh | {f"head.{n}" for n, _ in head.named_parameters()})
    )


def build_label_words(checkpoint: Checkpoint, task: Task) -> Network:
    """Logits z_k = <h, e_k> with the label words' embeddings, without transform or bias; h is the
    hidden state at the first token, or at every token for spans (SMP, section 4.2)."""
    words = word_ids(checkpoint, task.name, task.words)
    encoder, _ = load_encoder(checkpoint, pooler=False)
    table = encoder.get_input_embeddings().weight
    bias = torch.zeros(len(table))
    head = LabelWords(words, task.output.per_token, nn.Identity(), table, bias, tied=True)
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
    """Raise ConfigError unless every label word is one token and embeddings are as wide as hidden
    states."""
    if checkpoint.embedding != checkpoint.hidden:
        raise ConfigError(
            f"{checkpoint.name} has embeddings of width {checkpoint.embedding} and hidden states of"
            f" width {checkpoint.hidden}: the head label_words cannot multiply them; use a method"
            " with another head"
        )
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


def _linear(config: Any, inputs: int, outputs: int) -> nn.Linear:
    """A linear layer initialised as Hugging Face does it: normal weights, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=config.initializer_range)
    nn.init.zeros_(layer.bias)
    return layer
