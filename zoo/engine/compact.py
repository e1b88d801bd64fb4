"""A smaller model that computes the same: a pruned one without its dead rows and columns.

The output of a row of W' that holds only zeros is its bias whatever the input, not zero. The effect
of such constants on later layers is folded into other biases, or kept as one extra dimension of an
attention head, and the row is dropped. The compact model is the stock one with other layers; in
evaluation mode its hidden states are those of the masked one (no published source; tested in
float64 for every architecture).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.inputs.architecture import ROLES, Architecture
from zoo.inputs.kinds import architecture_of, encoder_prefix
from zoo.records.forms import ATTENTION_HEADS, KEYS, NEURONS, VALUES, Units


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


THIN = 10
"""Rows with fewer weights than this are dropped by SMP's lossy compaction."""
PARTS = ("query", "key", "value", "output", "inner", "outer")
"""The linear maps of a compact layer."""


class CompactLayer(nn.Module):
    """An encoder layer with attention heads of different widths, padded with zeros to the widest.

    `maps`: a Linear for each of PARTS; `norms`: the LayerNorms after attention and after the
    feed-forward sub-layer; `heads`: attention heads that are left; `scale`: what their logits are
    multiplied by. It takes and returns what a stock layer does, so that a stock encoder can hold
    it.
    """

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    inner: Affine
    outer: Affine

    def __init__(
        self,
        maps: Mapping[str, Linear],
        norms: Sequence[nn.Module],
        activation: Any,
        heads: int,
        scale: float,
    ):
        super().__init__()
        for name in PARTS:
            self.add_module(name, Affine(maps[name]))
        self.norms, self.activation = nn.ModuleList(norms), activation
        self.heads, self.scale = heads, scale

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor:
        """Hidden states (B, tokens, H); the mask (B, 1, 1 or tokens, tokens) is False, or very
        negative, at padding."""
        attended = self.output.bias
        if self.heads:
            q, k, v = (self._split(part(hidden)) for part in (self.query, self.key, self.value))
            width = max(q.shape[-1], v.shape[-1])  # the fast kernels want a single one
            q, k, wide = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
            context = F.scaled_dot_product_attention(
                q, k, wide, attn_mask=attention_mask, scale=self.scale
            )[..., : v.shape[-1]]
            attended = self.output(context.transpose(1, 2).flatten(2))
        hidden = self.norms[0](attended + hidden)
        return self.norms[1](self.outer(self.activation(self.inner(hidden))) + hidden)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


def compact_layer(layer: Any, architecture: Architecture, heads: int) -> CompactLayer:
    """The compact form of a stock layer that has so many attention heads."""
    q, k, v, o, u, d = (_frozen(layer.get_submodule(architecture.roles[r])) for r in ROLES)
    attention = compact_heads(q, k, v, o, heads)
    activation = layer.get_submodule(architecture.activation)
    inner, outer = compact_inner(u, d, activation)
    columns = [output.T for output in attention.output]
    widest = max((len(c) for c in columns), default=0)
    padded = [F.pad(c, (0, 0, 0, widest - len(c))) for c in columns]
    maps = {
        "query": _padded(attention.query),
        "key": _padded(attention.key),
        "value": _padded(attention.value),
        "output": Linear(torch.cat([o.weight[:, :0].T, *padded]).T.contiguous(), attention.bias),
        "inner": inner,
        "outer": Linear(outer.weight.contiguous(), outer.bias),
    }
    norms = [layer.get_submodule(path) for path in architecture.norms]
    return CompactLayer(maps, norms, activation, len(attention.query), attention.size**-0.5)


def compact(model: Any, state: Mapping[str, Tensor] | None = None) -> Any:
    """A copy of a stock model, in evaluation mode, that computes the same in smaller layers.

    `model` is an encoder, or has a head; its pruned weights are zero, or `state` holds the
    encoder's weights, as zoo.export returned them. The copy is called like the model; every row
    must hold at least one token, and hidden states of single layers are not returned. Raises
    ConfigError for a decoder, and for an encoder whose attention reads more than Q, K and V, or
    whose layers are built otherwise.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> from zoo import compact
    >>> model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)).eval()
    >>> model.encoder.layer[0].intermediate.dense.weight.data[3:].zero_()[0, 0].item()
    0.0
    >>> small = compact(model)
    >>> small.encoder.layer[0].inner.weight.shape
    torch.Size([3, 8])
    >>> tokens = torch.tensor([[1, 2, 3]])
    >>> difference = small(tokens).last_hidden_state - model(tokens).last_hidden_state
    >>> bool(difference.abs().max() < 1e-6)
    True
    """
    encoder = getattr(model, "base_model", model)
    architecture = architecture_of(encoder)
    if not architecture.compacts:
        raise ConfigError(f"an encoder of the kind {encoder.config.model_type} cannot be compacted")
    if getattr(encoder.config, "is_decoder", False):
        raise ConfigError("a decoder sees no later tokens; only encoders can be made compact")
    own = copy.deepcopy(model).eval()
    own.set_attn_implementation("sdpa")
    inner = getattr(own, "base_model", own)
    if state is not None:
        inner.load_state_dict(state)
    layers, heads = architecture.layers_of(inner), architecture.attention_heads(inner)
    for number, layer in enumerate(layers):
        layers[number] = compact_layer(layer, architecture, heads)
    return own


def compact_layers(model: Any) -> list[CompactLayer]:
    """The compact layers of a model, in order; [] of a stock one."""
    return [module for module in model.modules() if isinstance(module, CompactLayer)]


def matrix_entries(model: Any) -> int:
    """Entries of all matrices of the compact layers of a model, padding included."""
    layers = compact_layers(model)
    return sum(getattr(layer, p).weight.numel() for layer in layers for p in PARTS)


def units_of(model: Any) -> tuple[Units, ...]:
    """What the layers of a compact model have left. A dimension of queries and keys that adds up
    what dead queries add to logits is one of them."""
    encoder = getattr(model, "base_model", model)
    sizes = architecture_of(encoder).read_sizes(encoder.config.to_dict())
    layers = compact_layers(model)
    left: dict[str, tuple[int, list[int]]] = {
        ATTENTION_HEADS: (sizes.attention_heads, [layer.heads for layer in layers]),
        KEYS: (sizes.hidden, [_live(layer.key.weight) for layer in layers]),
        VALUES: (sizes.hidden, [_live(layer.value.weight) for layer in layers]),
        NEURONS: (sizes.intermediate, [len(layer.inner.weight) for layer in layers]),
    }
    return tuple(Units(kind, total, tuple(found)) for kind, (total, found) in left.items())


def _live(matrix: Tensor) -> int:
    """How many rows hold more than zeros."""
    return int((~dead(matrix)).sum())


def narrowed(model: Any) -> Any:
    """A stock model that computes the same with a smaller intermediate size, that of the layer that
    needs most neurons; the others are filled up with zeros. Raises ConfigError as `compact` does.
    """
    small = compact(model)
    layers = compact_layers(small)
    width = max(1, *(len(layer.inner.weight) for layer in layers))
    config = copy.deepcopy(model.config)
    setattr(config, architecture_of(small.base_model).sizes.intermediate, width)
    made = type(model)(config).to(model.dtype).eval()
    state = model.state_dict()
    architecture = architecture_of(made.base_model)
    prefix = encoder_prefix(made)
    for number, layer in enumerate(layers):
        more = width - len(layer.inner.weight)
        for role, weight, bias in (
            ("U", F.pad(layer.inner.weight, (0, 0, 0, more)), F.pad(layer.inner.bias, (0, more))),
            ("D", F.pad(layer.outer.weight, (0, more)), layer.outer.bias),
        ):
            name = f"{prefix}{architecture.layers}.{number}.{architecture.roles[role]}"
            state |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    made.load_state_dict(state)
    return made


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
