"""Sparse matrices at inference on a CPU: layers whose matrices are sparse enough run in CSR.

torch's product of a CSR matrix and a dense one gains little at 10 % remaining weights. A sum over
weighted bags of embeddings is the same product - a row of W is a bag, its columns are the numbers
of embeddings, its entries their weights - and torch has a faster kernel for it
(docs/take_home.md). It wants the input of a product as (in, tokens), tokens in blocks that stay in
a core's cache. A layer is computed in that layout as a whole; transposing would cost as much as the
products.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.engine.compact import PARTS, CompactLayer, compact
from zoo.errors import ConfigError
from zoo.inputs.kinds import architecture_of, prunable

BLOCK = 64
"""Most tokens of a block."""
WIDEST = 1024
"""Most columns of W in one bag: as many rows of a block stay in the cache."""
TOKENS, ROUNDS = 128, 7
"""Tokens of a timed layer, and how often each way is timed."""
TRIED = (0.02, 0.2)
"""Densities at which a product is timed; its time is linear in the density."""


class SparseProduct(nn.Module):
    """W x + b for x (in, tokens) and a sparse W (out, in), in CSR: where each row begins, columns
    and values of its entries; in parts of at most WIDEST columns."""

    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.parts = -(-weight.shape[1] // WIDEST)
        self.register_buffer("bias", bias.detach()[:, None].clone())
        for number, part in enumerate(weight.detach().tensor_split(self.parts, 1)):
            rows, columns = part.nonzero(as_tuple=True)
            many = torch.bincount(rows, minlength=len(part))
            starts = torch.cat([many.new_zeros(1), many.cumsum(0)])
            self.register_buffer(f"starts{number}", starts.int())
            self.register_buffer(f"columns{number}", columns.int())
            self.register_buffer(f"values{number}", part[rows, columns])

    @property
    def entries(self) -> int:
        """How many entries of W are kept."""
        return sum(len(getattr(self, f"values{number}")) for number in range(self.parts))

    def forward(self, x: Tensor) -> Tensor:
        """(in, tokens) to (out, tokens)."""
        total = self.bias
        for number, part in enumerate(x.tensor_split(self.parts)):
            found = F.embedding_bag(
                getattr(self, f"columns{number}"),
                part,
                getattr(self, f"starts{number}"),
                mode="sum",
                per_sample_weights=getattr(self, f"values{number}"),
                include_last_offset=True,
            )
            total = found.add_(total)
        return total


class DenseProduct(nn.Module):
    """W x + b for x (in, tokens) and a dense W (out, in)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.detach()[:, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(in, tokens) to (out, tokens)."""
        return torch.addmm(self.bias, self.weight, x)


class SparseLayer(nn.Module):
    """A compact layer computed in the layout (features, tokens), its sparse matrices in CSR.

    `most` has for each of PARTS the density under which a matrix is sparse. Without gradients.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: Any
    inner: nn.Module
    outer: nn.Module

    def __init__(self, layer: CompactLayer, most: dict[str, float]):
        super().__init__()
        self.sparse: list[str] = []
        for name in PARTS:
            weight, bias = getattr(layer, name).weight, getattr(layer, name).bias
            if weight.numel() and density_of(weight) < most[name]:
                self.sparse.append(name)
            kind = SparseProduct if name in self.sparse else DenseProduct
            self.add_module(name, kind(weight, bias))
        self.norms, self.activation = layer.norms, layer.activation
        self.heads, self.scale = layer.heads, layer.scale

    @torch.no_grad()
    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor:
        """Hidden states (B, tokens, H) and a mask, as a compact layer takes them."""
        flat = hidden.flatten(0, 1)
        blocks = [x.T.contiguous() for x in flat.tensor_split(max(1, -(-len(flat) // BLOCK)))]
        attended = self._attend(blocks, len(hidden), attention_mask)
        out = torch.empty_like(flat)
        start = 0
        for x, context in zip(blocks, attended, strict=True):
            inside = self.output(context) if self.heads else self.output.bias
            x = _normed(x + inside, self.norms[0])
            x = self.outer(self.activation(self.inner(x))).add_(x)
            out[start : start + x.shape[1]] = x.T
            start += x.shape[1]
        return self.norms[1](out).view(hidden.shape)

    def _attend(self, blocks: list[Tensor], examples: int, mask: Tensor | None) -> list[Tensor]:
        """What O reads, block by block: (width, tokens) each."""
        if not self.heads:
            return blocks
        parts = (self.query, self.key, self.value)
        # (width, all tokens) of each, then (examples, attention heads, width of one, tokens)
        wide = (torch.cat([part(x) for x in blocks], 1) for part in parts)
        q, k, v = (x.unflatten(0, (self.heads, -1)).chunk(examples, 2) for x in wide)
        found = []
        for row in range(examples):
            logits = torch.bmm(q[row].mul_(self.scale).transpose(1, 2), k[row])
            if mask is not None:
                own = mask[row if len(mask) > 1 else 0]
                if own.dtype == torch.bool:
                    logits = logits.masked_fill_(~own, torch.finfo(logits.dtype).min)
                else:
                    logits = logits.add_(own)
            found.append(torch.bmm(v[row], logits.softmax(-1).transpose(1, 2)))
        context = torch.cat(found, 2).flatten(0, 1)
        return [x.contiguous() for x in context.split([x.shape[1] for x in blocks], 1)]


def _normed(x: Tensor, norm: Any) -> Tensor:
    """LayerNorm over the features of x (features, tokens), which is written over."""
    x -= x.mean(0)
    x *= x.square().mean(0).add_(norm.eps).rsqrt_()
    return torch.addcmul(norm.bias[:, None], x, norm.weight[:, None])


class SparseLinear(nn.Module):
    """A linear layer of an encoder that cannot be made compact: (..., in) to (..., out)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
        self.product = SparseProduct(linear.weight, bias)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Without gradients."""
        flat = x.flatten(0, -2)
        blocks = flat.tensor_split(max(1, -(-len(flat) // BLOCK)))
        y = torch.cat([self.product(block.T.contiguous()).T for block in blocks])
        return y.view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class Choice:
    """How many of the matrices run in CSR, and by kind of matrix the density under which that was
    faster here."""

    sparse: int
    matrices: int
    break_even: dict[str, float]

    def __str__(self) -> str:
        least, most = min(self.break_even.values()), max(self.break_even.values())
        return (
            f"{self.sparse} of {self.matrices} matrices run in CSR, which is faster here below"
            f" {100 * least:.0f} to {100 * most:.0f} % remaining weights"
        )


def sparse(model: Any) -> Any:
    """A copy of a stock or compact model for inference on a CPU with the threads that torch has
    now: compact, and every layer in CSR that is faster so, by measurement. Its attribute `csr` says
    what was chosen. Every row must hold at least one token. Raises ConfigError for a model that is
    not on the CPU in float32, and for one that is sparse already.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> from zoo import sparse
    >>> model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)).eval()
    >>> sparse(model).csr.matrices
    6
    """
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    if kinds != {("cpu", torch.float32)}:
        raise ConfigError("only a model in float32 on the CPU can be made sparse: .float().cpu()")
    if hasattr(model, "csr"):
        raise ConfigError("the model is sparse already")
    if not architecture_of(getattr(model, "base_model", model)).compacts:
        return _with_sparse_linears(copy.deepcopy(model).eval())
    holds = any(isinstance(module, CompactLayer) for module in model.modules())
    own = copy.deepcopy(model) if holds else compact(model)
    inner = getattr(own, "base_model", own)
    layers: Any = architecture_of(inner).layers_of(inner)
    shapes = {name: [getattr(layer, name).weight.shape for layer in layers] for name in PARTS}
    middle = {name: sorted(found)[len(found) // 2] for name, found in shapes.items()}
    most = {name: break_even(*shape) for name, shape in middle.items()}
    many = 0
    for number, layer in enumerate(layers):
        made = SparseLayer(layer, most)
        x = torch.randn(1, TOKENS, len(layer.output.bias))
        if made.sparse and _seconds(partial(made, x)) < _seconds(partial(layer, x)):
            layers[number] = made
            many += len(made.sparse)
    own.csr = Choice(many, len(PARTS) * len(layers), most)
    return own


def _with_sparse_linears(model: Any) -> Any:
    """The model with its sparsest linear layers in CSR."""
    inner, found, many = getattr(model, "base_model", model), {}, 0
    matrices = prunable(inner)
    for name, linear in matrices.items():
        kind = name.rpartition(".")[2]
        if kind not in found:
            found[kind] = break_even(*linear.weight.shape)
        if density_of(linear.weight) < found[kind]:
            inner.set_submodule(name, SparseLinear(linear))
            many += 1
    model.csr = Choice(many, len(matrices), found)
    return model


def density_of(weight: Tensor) -> float:
    """The fraction of entries that are not zero."""
    return int(weight.count_nonzero()) / max(1, weight.numel())


def break_even(out: int, inputs: int) -> float:
    """The density, in [0, 1], under which a product with a matrix (out, in) is faster in CSR than
    dense, on this machine with the threads that torch has now."""
    if not out or not inputs:
        return 0.0
    weight, bias, x = torch.randn(out, inputs), torch.zeros(out), torch.randn(TOKENS, inputs)
    base = _seconds(partial(F.linear, x, weight, bias))
    draws, blocks = torch.rand(out, inputs), x.T.split(BLOCK, 1)
    taken = []
    for density in TRIED:
        product = SparseProduct(weight * (draws < density), bias)
        taken.append(_seconds(lambda p=product: [p(block.contiguous()) for block in blocks]))  # type: ignore[misc]
    slope = max((taken[1] - taken[0]) / (TRIED[1] - TRIED[0]), 1e-12)
    return min(1.0, max(0.0, TRIED[0] + (base - taken[0]) / slope))


@torch.no_grad()
def _seconds(work: Callable[[], object]) -> float:
    """The median time of a call after the first."""
    work()
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)
