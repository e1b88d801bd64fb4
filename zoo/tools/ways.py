"""The ways of running a saved model that are compared: their models, bytes and metrics."""

import copy
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.engine.compact import THIN, compact, without_thin_rows
from zoo.engine.export import distinct
from zoo.engine.packed import matrices_of, pack, unpack
from zoo.engine.sparse import sparse
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.kinds import architecture_of
from zoo.records.forms import (
    COMPACT,
    INT8,
    ONNX,
    ONNX_COMPACT,
    PACKED,
    SHALLOW,
    SPARSE,
    STOCK,
    ZEROS,
    label_of,
)
from zoo.tools.compared import check_equal
from zoo.tools.kept import Kept
from zoo.tools.onnx_file import OnnxModel, has_onnx, save_onnx

FEW = 1e-3
"""The share of zeros up to which a model counts as dense."""


@dataclass(frozen=True)
class Way:
    """A way of running a model: its name in FORMS, N where rows with fewer than N weights are
    dropped, the model, None for a form that is only stored, its bytes. `other`: its outputs are not
    those of the trained model, so that metrics must be measured; `reference`: it is there for its
    time alone, with random weights, and has no metrics; `like`: the model in torch that has the
    same products, where its own shapes cannot be read."""

    name: str
    model: Any
    bytes: int
    least: int = 0
    other: bool = False
    reference: bool = False
    like: Any = None

    @property
    def label(self) -> str:
        """Its name for people."""
        return label_of(self.name, self.least)


def ways_of(model: Any, least: int = THIN, *, onnx: bool = False, layers: int = 0) -> Iterator[Way]:
    """The ways of running a stock model, first the reference: the same without a zero, and with as
    many layers as its base has, if it has fewer. Forms that the architecture or the installation
    does not have are left out."""
    dense = refilled(model)
    pruned = dense is not model
    deep = deepened(dense, layers)
    yield Way(STOCK, deep, bytes_of(deep), reference=deep is not model)
    if deep is not dense and not pruned:
        yield Way(SHALLOW, model, bytes_of(model))
    if pruned:
        yield Way(ZEROS, model, bytes_of(model))
        small = compact(model) if architecture_of(model.base_model).compacts else None
        if small is not None:
            yield from _compact_ways(model, small, least)
        fast = sparse(model)
        if fast.csr.sparse:
            yield Way(SPARSE, fast, bytes_of(small if small is not None else model))
    if not pruned and (int8 := quantised(model)) is not None:
        yield Way(INT8, int8, quantised_bytes(int8), other=True, like=model)
    if onnx and has_onnx():
        yield from _onnx_ways(model, pruned)


def deepened(model: Any, layers: int) -> Any:
    """A stock model like this with so many layers, of random weights, if it has fewer; else the
    model itself."""
    architecture = architecture_of(model.base_model)
    if len(architecture.layers_of(model.base_model)) >= layers:
        return model
    config = copy.deepcopy(model.config)
    setattr(config, architecture.sizes.layers, layers)
    return type(model)(config).to(model.dtype).eval()


def _compact_ways(model: Any, small: Any, least: int) -> Iterator[Way]:
    yield Way(COMPACT, small, bytes_of(small))
    if least:
        inner = model.base_model
        state = without_thin_rows(inner.state_dict(), architecture_of(inner), least)
        thin = compact(model, state)
        yield Way(COMPACT, thin, bytes_of(thin), least, other=True)
        fast = sparse(thin)
        if fast.csr.sparse:
            yield Way(SPARSE, fast, bytes_of(thin), least, other=True)


def _onnx_ways(model: Any, pruned: bool) -> Iterator[Way]:
    small = pruned and architecture_of(model.base_model).compacts
    for name, made in ((ONNX, model), (ONNX_COMPACT, compact(model) if small else None)):
        if made is not None:
            with tempfile.TemporaryDirectory() as folder:
                file = save_onnx(made, Path(folder))
                yield Way(name, OnnxModel(file), file.stat().st_size, like=made)


def packed_way(kept: Kept, checkpoint: Checkpoint) -> Way:
    """What a model needs beside its base checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        pack(kept.model, kept.reading.loader, checkpoint, Path(folder))
        check_equal(kept.model, unpack(Path(folder), checkpoint))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return Way(PACKED, None, size)


@torch.no_grad()
def refilled(model: Any) -> Any:
    """The model without zeros in its prunable matrices, small random numbers in their place; the
    model itself if it is not pruned: checkpoints have a few zeros of their own."""
    names = matrices_of(model)
    state = model.state_dict()
    zeros = sum(int((state[name] == 0).sum()) for name in names)
    if zeros <= FEW * sum(state[name].numel() for name in names):
        return model
    own = copy.deepcopy(model)
    draws = torch.Generator().manual_seed(0)
    for name in names:
        tensor = own.get_parameter(name)
        drawn = torch.empty_like(tensor).normal_(0, 0.02, generator=draws)
        tensor.copy_(torch.where(tensor == 0, drawn, tensor))
    return own


def bytes_of(model: nn.Module) -> int:
    """Bytes of a model's tensors, each counted once."""
    return sum(t.numel() * t.element_size() for t in distinct(model.state_dict()).values())


def quantised(model: Any) -> Any:
    """The model with its linear layers as dynamic int8, by torch; None where torch has none."""
    try:
        from torch.ao.quantization import quantize_dynamic

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return quantize_dynamic(copy.deepcopy(model), {nn.Linear}, torch.qint8)
    except (ImportError, RuntimeError):
        return None


def quantised_bytes(model: Any) -> int:
    """Bytes of a quantised model: one for an entry of a matrix, four for any other number."""
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    for module in model.modules():
        if callable(getattr(module, "weight", None)):  # a linear layer in int8
            bias = module.bias()
            total += module.weight().numel() + (0 if bias is None else 4 * bias.numel())
    return total
