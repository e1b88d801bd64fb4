"""Multiply-accumulates of a forward pass, counted from the shapes of a model's matrices.

Counted are the products of linear maps, of the layers and of the head, with the rows that each is
given, and in each layer those of queries with keys and of attention with values. A compact model is
counted as it runs, with the zeros that pad its attention heads to one width; a matrix in CSR with
its nonzero entries. Element-wise work, sums, softmax, LayerNorm and look-ups of embeddings have no
matrix product and count nothing.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.compact import Affine, CompactLayer
from zoo.engine.sparse import DenseProduct, SparseLayer, SparseProduct
from zoo.inputs.architecture import Architecture
from zoo.inputs.kinds import architecture_of

MAPS = (nn.Linear, Affine, DenseProduct, SparseProduct)
"""Modules that multiply their input by a matrix."""


@torch.no_grad()
def macs(model: Any, inputs: Mapping[str, Tensor]) -> int | None:
    """The multiply-accumulates of a stock, compact or sparse model on these inputs, all of its
    examples; None for an encoder whose attention reads more than Q, K and V.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> from zoo.engine.macs import macs
    >>> model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16), add_pooling_layer=False).eval()
    >>> macs(model, {"input_ids": torch.ones(1, 3, dtype=torch.int64)})
    1680
    >>> 3 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 3 * 3 * 8
    1680
    """
    inner = getattr(model, "base_model", model)
    architecture = architecture_of(inner)
    if not architecture.compacts:
        return None
    examples, tokens = inputs["input_ids"].shape
    layers = architecture.layers_of(inner)
    counted = [examples * tokens**2 * _attended(layer, architecture) for layer in layers]

    def count(module: Any, given: tuple[Tensor], _: Tensor) -> None:
        counted.append(_rows(module, *given) * _entries(module))

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, MAPS)]
    try:
        model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)


def _attended(layer: Any, architecture: Architecture) -> int:
    """The products of a query with a key and of an attention weight with a value, over all
    attention heads of a layer."""
    if not isinstance(layer, CompactLayer | SparseLayer):
        return sum(layer.get_submodule(architecture.roles[role]).out_features for role in "QV")
    widths = [len(getattr(layer, part).bias) for part in ("query", "value")]
    return 2 * max(widths) if isinstance(layer, CompactLayer) else sum(widths)


def _rows(module: nn.Module, x: Tensor) -> int:
    """How many vectors a linear map is given: those of x (..., in), or of x (in, tokens)."""
    side = 0 if isinstance(module, DenseProduct | SparseProduct) else -1
    return x.numel() // x.shape[side] if x.shape[side] else 0


def _entries(module: Any) -> int:
    """The entries of a matrix, in CSR those that are kept."""
    if isinstance(module, SparseProduct):
        return module.entries
    return module.weight.numel()
