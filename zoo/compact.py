"""Smaller matrices that compute the same: a pruned encoder without its dead rows and columns.

A row of W' that holds zeros alone is an output that is its bias whatever the input, not zero. What
such constants do further on is folded into other biases, or kept as one extra dimension of a head,
and then the row goes. In evaluation mode the compact encoder gives the hidden states of the masked
one (no published source; checked in float64 for BERT and RoBERTa).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.masked import PRUNABLE


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b with W (out, in) and b (out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Heads:
    """Attention heads of one layer, ragged: per head Q, K, V (dims, H), and O (H, dims) of all."""

    query: list[Linear]
    key: list[Linear]
    value: list[Linear]
    output: list[Tensor]
    bias: Tensor
    size: int
    """Dimensions of a head before: logits are divided by its square root."""


def dead(matrix: Tensor) -> Tensor:
    """Which rows hold zeros alone."""
    return ~(matrix != 0).any(1)


def compact_heads(q: Linear, k: Linear, v: Linear, o: Linear, heads: int) -> Heads:
    """Drop what no attention head needs.

    A dead row of K adds the same to all logits of a query: gone. A dead row of Q beside a live one
    of K adds b_q k_d: all of a head's make one extra dimension with q = 1. A dead row of V gives
    its bias, as attention sums to 1: into the bias of O. A dead column of O reads nothing. A head
    without any V and O is gone; one without Q and K attends evenly and stays.
    """
    size = len(q.weight) // heads
    bias = o.bias.clone()
    kept = Heads([], [], [], [], bias, size)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        qw, qb, kw, kb, vw, vb = (t[at] for x in (q, k, v) for t in (x.weight, x.bias))
        ow = o.weight[:, at]
        bias += ow[:, dead(vw)] @ vb[dead(vw)]
        live = ~dead(vw) & ~dead(ow.T)
        if not live.any():
            continue
        both, shifted = ~dead(qw) & ~dead(kw), dead(qw) & ~dead(kw)
        query, key = Linear(qw[both], qb[both]), Linear(kw[both], kb[both])
        if (qb[shifted] != 0).any():
            one = Linear(qw.new_zeros(1, qw.shape[1]), qb.new_ones(1))
            sum_of = Linear((qb[shifted] @ kw[shifted])[None], kb.new_zeros(1))
            query, key = stacked([query, one]), stacked([key, sum_of])
        kept.query.append(query)
        kept.key.append(key)
        kept.value.append(Linear(vw[live], vb[live]))
        kept.output.append(ow[:, live])
    return kept


def stacked(parts: list[Linear]) -> Linear:
    """Several linear maps of one input as one."""
    return Linear(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))


def compact_inner(u: Linear, d: Linear, activation: Any) -> tuple[Linear, Linear]:
    """Drop dead neurons: a dead row of U gives activation(b), which goes into the bias of D; a dead
    column of D reads nothing."""
    constant, unread = dead(u.weight), dead(d.weight.T)
    bias = d.bias + d.weight[:, constant] @ activation(u.bias[constant])
    live = ~constant & ~unread
    return Linear(u.weight[live], u.bias[live]), Linear(d.weight[:, live], bias)


class Affine(nn.Module):
    """A `Linear` as a module."""

    def __init__(self, linear: Linear):
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.weight), nn.Parameter(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class CompactLayer(nn.Module):
    """One encoder layer of BERT or RoBERTa with ragged heads, padded to the widest with zeros."""

    def __init__(self, layer: Any, heads: int):
        super().__init__()
        own, out = layer.attention.self, layer.attention.output
        q, k, v, o = (_frozen(part) for part in (own.query, own.key, own.value, out.dense))
        attention = compact_heads(q, k, v, o, heads)
        self.activation = layer.intermediate.intermediate_act_fn
        inner, outer = compact_inner(
            _frozen(layer.intermediate.dense), _frozen(layer.output.dense), self.activation
        )
        self.heads, self.scale = len(attention.query), 1 / math.sqrt(attention.size)
        self.query = Affine(_padded(attention.query))
        self.key = Affine(_padded(attention.key))
        self.value = Affine(_padded(attention.value))
        columns = [output.T for output in attention.output]
        widest = max((len(c) for c in columns), default=0)
        padded = [F.pad(c, (0, 0, 0, widest - len(c))) for c in columns]
        empty = out.dense.weight.detach()[:, :0].T
        self.output = Affine(Linear(torch.cat([empty, *padded]).T, attention.bias))
        self.inner, self.outer = Affine(inner), Affine(outer)
        self.norms = nn.ModuleList([out.LayerNorm, layer.output.LayerNorm])

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """Hidden states (B, tokens, H); `seen` (B, 1, 1, tokens) is False at padding."""
        attended = self.output.bias
        if self.heads:
            q, k, v = (self._split(part(hidden)) for part in (self.query, self.key, self.value))
            logits = q @ k.transpose(-1, -2) * self.scale
            logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
            context = logits.softmax(-1) @ v
            attended = self.output(context.transpose(1, 2).flatten(2))
        hidden = self.norms[0](attended + hidden)
        return self.norms[1](self.outer(self.activation(self.inner(hidden))) + hidden)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


class CompactEncoder(nn.Module):
    """Embeddings and compact layers; gives hidden states (B, tokens, H)."""

    def __init__(self, encoder: Any):
        super().__init__()
        heads = encoder.config.num_attention_heads
        self.embeddings = encoder.embeddings
        self.layers = nn.ModuleList(CompactLayer(x, heads) for x in encoder.encoder.layer)

    def forward(self, tokens: Tensor, attention: Tensor, types: Tensor) -> Tensor:
        """Tokens, attention (True = a token) and types, all (B, tokens)."""
        hidden = self.embeddings(input_ids=tokens, token_type_ids=types)
        for layer in self.layers:
            hidden = layer(hidden, attention[:, None, None, :])
        return hidden

    @property
    def matrix_entries(self) -> int:
        """Entries of all matrices of the layers, padding included."""
        parts = ("query", "key", "value", "output", "inner", "outer")
        return sum(getattr(layer, p).weight.numel() for layer in self.layers for p in parts)


def compact(encoder: Any, state: Mapping[str, Tensor]) -> CompactEncoder:
    """The compact encoder of a stock `encoder` with the exported weights `state` (zoo.masked.export
    gives them), in evaluation mode; `encoder` stays as it is. Raises ConfigError for a decoder."""
    if encoder.config.is_decoder:
        raise ConfigError("a decoder sees no later tokens; only encoders can be made compact")
    own = copy.deepcopy(encoder)
    own.load_state_dict(state)
    return CompactEncoder(own).eval()


def without_thin_rows(state: Mapping[str, Tensor], least: int) -> dict[str, Tensor]:
    """The state with all rows of prunable matrices zeroed that have fewer than `least` entries:
    what makes the compact encoder smaller, and no longer exact."""
    thinned = dict(state)
    for name, tensor in state.items():
        if ".layer." in name and name.removesuffix(".weight").endswith(PRUNABLE):
            few = (tensor != 0).sum(1) < least
            thinned[name] = tensor.masked_fill(few[:, None], 0)
    return thinned


def _frozen(linear: nn.Linear) -> Linear:
    return Linear(linear.weight.detach(), linear.bias.detach())


def _padded(heads: list[Linear]) -> Linear:
    """Ragged heads as one map, each as wide as the widest; zeros add nothing."""
    if not heads:
        return Linear(torch.zeros(0, 0), torch.zeros(0))
    widest = max(len(head.weight) for head in heads)
    return stacked(
        [
            Linear(
                F.pad(head.weight, (0, 0, 0, widest - len(head.weight))),
                F.pad(head.bias, (0, widest - len(head.bias))),
            )
            for head in heads
        ]
    )
