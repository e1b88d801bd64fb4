"""Heads: from hidden states to logits. A label-word head adds nothing new; a trained head is fresh.

Every head module takes hidden states (B, tokens, H) and the pooler's output (B, H) or None, and
returns logits (B, C) or (B, tokens, C), and the representation (B, H) that contrastive terms read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.checkpoint import Checkpoint, load_encoder, load_masked_lm, mlm_head, word_ids
from zoo.errors import ConfigError
from zoo.packing import Packing
from zoo.task import Batch, Task

HIDDEN_PADDING = -1e4
"""Logit of padding positions of a span: no softmax sees them, so a batch's width does not matter.
Differs from the released code, which lets padding take part."""


class PooledClassifier(nn.Module):
    """BERT's classification head: dropout and a linear layer on the pooler's output."""

    def __init__(self, config: Any, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(_head_dropout(config))
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        assert pooled is not None
        return self.classifier(self.dropout(pooled)), pooled


class FirstTokenClassifier(nn.Module):
    """RoBERTa's classification head: dropout, linear, tanh, dropout, linear on the first token."""

    def __init__(self, config: Any, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(_head_dropout(config))
        self.dense = _linear(config, config.hidden_size, config.hidden_size)
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = torch.tanh(self.dense(self.dropout(hidden[:, 0])))
        return self.classifier(self.dropout(first)), hidden[:, 0]


class TokenClassifier(nn.Module):
    """The span head of BERT and RoBERTa: a linear layer at every token."""

    def __init__(self, config: Any, outputs: int):
        super().__init__()
        self.classifier = _linear(config, config.hidden_size, outputs)

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.classifier(hidden), hidden[:, 0]


class LabelWords(nn.Module):
    """Logits of label words: <h, e_word> (SMP, section 4.2), or the checkpoint's whole MLM head.

    `transform` is applied to the hidden state first; `decoder` (vocabulary, H) and `bias`
    (vocabulary,) belong to the checkpoint; nothing here trains.
    """

    words: Tensor
    bias: Tensor

    def __init__(
        self, words: list[int], per_token: bool, transform: nn.Module, decoder: Tensor, bias: Tensor
    ):
        super().__init__()
        self.per_token = per_token
        self.transform = transform
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self.register_buffer("bias", bias.detach()[words].clone(), persistent=False)
        self._decoder = [decoder]  # in a list, not registered: it is the encoder's own embedding

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        first = hidden[:, 0]
        places = self.transform(hidden if self.per_token else first)
        return F.linear(places, self._decoder[0][self.words], self.bias), first


class RobertaTransform(nn.Module):
    """The part of RoBERTa's MLM head before its decoder: linear, GELU, LayerNorm."""

    def __init__(self, lm_head: Any):
        super().__init__()
        self.dense, self.layer_norm = lm_head.dense, lm_head.layer_norm

    def forward(self, hidden: Tensor) -> Tensor:
        return self.layer_norm(F.gelu(self.dense(hidden)))


class Network(nn.Module):
    """A stock encoder and a head. `fresh` names the parameters that no checkpoint gave."""

    def __init__(self, encoder: Any, head: nn.Module, fresh: frozenset[str]):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.fresh = fresh

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and representation of a batch; span logits at padding are hidden."""
        if batch.packing is None:
            out = self.encoder(
                input_ids=batch.tokens,
                attention_mask=batch.attention.long(),
                token_type_ids=batch.types,
            )
            hidden, pooled = out.last_hidden_state, getattr(out, "pooler_output", None)
        else:
            hidden, pooled = self._packed(batch, batch.packing)
        logits, representation = self.head(hidden, pooled)
        if logits.dim() == 3:
            logits = logits.masked_fill(~batch.attention[..., None], HIDDEN_PADDING)
        return logits, representation

    def _packed(self, batch: Batch, packing: Packing) -> tuple[Tensor, Tensor | None]:
        """Hidden states and pooler's output of a packed batch, as if it were padded."""
        config, embeddings = self.encoder.config, self.encoder.embeddings
        first = embeddings.padding_idx + 1 if config.model_type == "roberta" else 0
        out = self.encoder(
            input_ids=packing.rows(batch.tokens, config.pad_token_id or 0),
            attention_mask=packing.attention(embeddings.word_embeddings.weight.dtype),
            token_type_ids=packing.rows(batch.types, 0),
            position_ids=packing.positions + first,
        )
        hidden = packing.padded(out.last_hidden_state)
        pooler = getattr(self.encoder, "pooler", None)
        return hidden, None if pooler is None else pooler(hidden)


@dataclass(frozen=True)
class Head:
    """A named way to put a head on a checkpoint; `name` is recorded with every result."""

    name: str
    build: Callable[[Checkpoint, Task], Network]
    label_words: bool = False


def _trained(checkpoint: Checkpoint, task: Task) -> Network:
    """A fresh head that trains, as stock fine-tuning has it: BERT's pooler and a linear layer,
    RoBERTa's two linear layers on the first token, one linear layer at every token for spans."""
    pooler = checkpoint.model_type == "bert" and not task.output.per_token
    encoder, missing = load_encoder(checkpoint, pooler=pooler)
    make = PooledClassifier if pooler else FirstTokenClassifier
    head = (TokenClassifier if task.output.per_token else make)(encoder.config, task.outputs)
    fresh = {f"encoder.{name}" for name in missing}
    return Network(
        encoder, head, frozenset(fresh | {f"head.{n}" for n, _ in head.named_parameters()})
    )


def _label_words(checkpoint: Checkpoint, task: Task) -> Network:
    """Logits z_k = <h, e_k> of the label words' embeddings, without transform or bias, h the hidden
    state at the first token, or at every token for spans; any encoder (SMP, section 4.2)."""
    words = word_ids(checkpoint, task.name, task.words)
    encoder, _ = load_encoder(checkpoint, pooler=False)
    table = encoder.get_input_embeddings().weight
    bias = torch.zeros(len(table))
    head = LabelWords(words, task.output.per_token, nn.Identity(), table, bias)
    return Network(encoder, head.requires_grad_(False), frozenset())


def _mlm_label_words(checkpoint: Checkpoint, task: Task) -> Network:
    """The checkpoint's whole MLM head, frozen, restricted to the label words: transform, LayerNorm,
    decoder and bias at the first token, or at every token for spans (SMP's released code)."""
    if not checkpoint.has_mlm_head:
        raise ConfigError(
            f"{checkpoint.name} has no MLM head, which the head mlm_label_words reads; use the head"
            " label_words (recipe paper)"
        )
    words = word_ids(checkpoint, task.name, task.words)
    model = load_masked_lm(checkpoint)
    lm = mlm_head(model)
    if checkpoint.model_type == "roberta":
        transform: nn.Module = RobertaTransform(lm)
    else:
        transform = lm.transform
    head = LabelWords(words, task.output.per_token, transform, lm.decoder.weight, lm.decoder.bias)
    return Network(model.base_model, head.requires_grad_(False), frozenset())


trained = Head("trained", _trained)
label_words = Head("label_words", _label_words, label_words=True)
mlm_label_words = Head("mlm_label_words", _mlm_label_words, label_words=True)


def _linear(config: Any, inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as Hugging Face starts it: normal weights, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=config.initializer_range)
    nn.init.zeros_(layer.bias)
    return layer


def _head_dropout(config: Any) -> float:
    dropout = getattr(config, "classifier_dropout", None)
    return config.hidden_dropout_prob if dropout is None else dropout
