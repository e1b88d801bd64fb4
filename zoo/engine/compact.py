"""A smaller encoder that computes the same: a pruned encoder without its dead rows and columns.

The output of a row of W' that holds only zeros is its bias whatever the input, not zero. The effect
of such constants on later layers is folded into other biases, or kept as one extra dimension of an
attention head, and the row is dropped. In evaluation mode the compact encoder returns the hidden
states of the masked one (no published source; tested in float64 for every architecture).
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
from zoo.inputs.architecture import ROLES, Architecture
from zoo.inputs.kinds import architecture_of


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b with W (out, in) and b (out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class AttentionHeads:
    """Attention heads of one layer, of different widths: Q, K, V (width, H) and O (H, width) of
    each head; `bias` (H,) of O; `size`, the width before, by whose square root logits are
    divided."""

    query: list[Linear]
    key: list[Linear]
    value: list[Linear]
    output: list[Tensor]
    bias: Tensor
    size: int


def dead(matrix: Tensor) -> Tensor:
    """Which rows hold only zeros."""
    return ~(matrix != 0).any(1)


def compact_heads(q: Linear, k: Linear, v: Linear, o: Linear, heads: int) -> AttentionHeads:
    """Drop the dimensions that no attention head needs.

    A dead row of K adds the same to all logits of a query and is dropped. A dead row of Q beside a
    live row of K adds b_q k_d: those of a head become one extra dimension with q = 1. A dead row of
    V outputs its bias, since attention sums to 1; it goes into the bias of O. A dead column of O
    reads nothing. An attention head without any V and O is dropped; an attention head without Q and
    K attends uniformly and stays.
    """
    size = len(q.weight) // heads
    bias = o.bias.clone()
    kept = AttentionHeads([], [], [], [], bias, size)
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
    """Linear maps of the same input as a single map."""
    return Linear(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))


def compact_inner(u: Linear, d: Linear, activation: Any) -> tuple[Linear, Linear]:
    """Drop dead neurons: a dead row of U outputs activation(b), which goes into the bias of D; a
    dead column of D reads nothing."""
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
    """One encoder layer with attention heads of different widths, padded with zeros to the
    widest."""

    def __init__(self, layer: Any, architecture: Architecture, heads: int):
        super().__init__()
        q, k, v, o, u, d = (_frozen(layer.get_submodule(architecture.roles[r])) for r in ROLES)
        attention = compact_heads(q, k, v, o, heads)
        self.activation = layer.get_submodule(architecture.activation)
        inner, outer = compact_inner(u, d, self.activation)
        self.heads, self.scale = len(attention.query), 1 / math.sqrt(attention.size)
        self.query = Affine(_padded(attention.query))
        self.key = Affine(_padded(attention.key))
        self.value = Affine(_padded(attention.value))
        columns = [output.T for output in attention.output]
        widest = max((len(c) for c in columns), default=0)
        padded = [F.pad(c, (0, 0, 0, widest - len(c))) for c in columns]
        self.output = Affine(Linear(torch.cat([o.weight[:, :0].T, *padded]).T, attention.bias))
        self.inner, self.outer = Affine(inner), Affine(outer)
        self.norms = nn.ModuleList(layer.get_submodule(path) for path in architecture.norms)

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
    """Embeddings and compact layers; returns hidden states (B, tokens, H). `encoder` is taken
    apart: its layers are replaced by compact ones, its embeddings are used."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.architecture = architecture_of(encoder)
        layers = self.architecture.layers_of(encoder)
        heads = self.architecture.attention_heads(encoder)
        compacted = [CompactLayer(layer, self.architecture, heads) for layer in layers]
        self.layers = nn.ModuleList(compacted)
        del layers[:]
        self.encoder = encoder

    def forward(self, tokens: Tensor, attention: Tensor, types: Tensor) -> Tensor:
        """Tokens, attention (True = a token) and segment ids, all (B, tokens)."""
        hidden = self.architecture.embed(self.encoder, tokens, types)
        for layer in self.layers:
            hidden = layer(hidden, attention[:, None, None, :])
        return hidden

    @property
    def matrix_entries(self) -> int:
        """Entries of all matrices of the layers, padding included."""
        parts = ("query", "key", "value", "output", "inner", "outer")
        return sum(getattr(layer, p).weight.numel() for layer in self.layers for p in parts)


def compact(encoder: Any, state: Mapping[str, Tensor]) -> CompactEncoder:
    """The compact encoder of a stock `encoder` with the weights `state` that zoo.export returned,
    in evaluation mode; `encoder` itself is not changed. Raises ConfigError for a decoder, and for
    an encoder whose attention reads more than Q, K and V, or whose layers are built otherwise."""
    if not architecture_of(encoder).compacts:
        raise ConfigError(f"an encoder of the kind {encoder.config.model_type} cannot be compacted")
    if getattr(encoder.config, "is_decoder", False):
        raise ConfigError("a decoder sees no later tokens; only encoders can be made compact")
    own = copy.deepcopy(encoder)
    own.load_state_dict(state)
    return CompactEncoder(own).eval()


def without_thin_rows(
    state: Mapping[str, Tensor], architecture: Architecture, least: int
) -> dict[str, Tensor]:
    """The state with zeros in all rows of prunable matrices that have fewer than `least` nonzero
    entries: the compact encoder gets smaller and is no longer exact (SMP's lossy compaction)."""
    thinned = dict(state)
    for name, tensor in state.items():
        if architecture.parameter(name).role:
            few = (tensor != 0).sum(1) < least
            thinned[name] = tensor.masked_fill(few[:, None], 0)
    return thinned


def _frozen(linear: nn.Linear) -> Linear:
    return Linear(linear.weight.detach(), linear.bias.detach())


def _padded(heads: list[Linear]) -> Linear:
    """Heads of different widths as one map, each padded with zeros to the widest."""
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
