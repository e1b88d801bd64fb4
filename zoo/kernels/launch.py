"""Launch kernels on all matrices at once, and say what was launched.

Kernels need Triton, which torch brings along where it has CUDA. On the meta device, whose tensors
have no numbers, a launch is only told: so what a GPU does can be counted without one.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import cause_of
from zoo.inputs.batches import sent

BLOCK = 4096
"""Numbers that a program of a kernel works on."""
WARPS = 8
"""Warps of a program."""
ALIGNED = 16
"""Bytes, or entries, that a wide load needs."""

Told = Callable[[str, int], None]
"""Called with the name of a kernel and the bytes of matrices that it reads and writes."""
_told: ContextVar[Told | None] = ContextVar("told", default=None)


@contextmanager
def telling(told: Told) -> Iterator[None]:
    """Inside, `told` is called at every launch."""
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def interpreted() -> bool:
    """Whether Triton interprets its kernels, on the CPU: for tests (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


PLAIN = "PLAIN_STEPS"
"""The environment variable that turns kernels off: PLAIN_STEPS=1."""


def available(device: torch.device) -> bool:
    """Whether kernels run on a device: on a GPU unless there is a `refusal`, on the CPU if Triton
    interprets, on the meta device always; nowhere if PLAIN_STEPS=1."""
    if os.environ.get(PLAIN) == "1":
        return False
    if device.type == "cpu":
        return interpreted() and find_spec("triton") is not None
    return device.type == "meta" or not refusal(device.type)


@lru_cache
def refusal(kind: str) -> str:
    """Why kernels are not used on a kind of device: Triton is missing, or does not work there, or
    gives other results than plain torch. "" if they are used."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    proof = importlib.import_module("zoo.kernels.proof")
    try:
        proof.check(torch.device(kind))
    except Exception as error:  # Triton raises what it likes; plain torch goes on without it
        return cause_of(error)
    return ""


def launch(
    module: str,
    name: str,
    grid: tuple[int, ...],
    arguments: Sequence[Any],
    moved: int,
    **fixed: Any,
) -> None:
    """Launch the kernel `name` of zoo.kernels.`module`; `moved` are the bytes of matrices that it
    reads and writes, `fixed` the values that it is compiled for."""
    told = _told.get()
    if told is not None:
        told(name, moved)
    device = next(a for a in arguments if isinstance(a, Tensor)).device
    if device.type == "meta":
        return
    kernel = getattr(importlib.import_module(f"zoo.kernels.{module}"), name)
    if "KIND" in fixed:
        fixed["KIND"] = getattr(importlib.import_module("triton.language"), fixed["KIND"])
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **fixed, num_warps=WARPS)


@dataclass(frozen=True)
class Shapes:
    """What kernels know of a list of matrices, on their device: `sizes` (entries) and `places`
    (the sum of sizes before), int64; `blocks`, int32; `rows`: blocks of the longest; `whole`: the
    sum of sizes; `even`: whether all are multiples of ALIGNED."""

    sizes: Tensor
    places: Tensor
    blocks: Tensor
    rows: int
    whole: int
    even: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Programs over all blocks of all matrices."""
        return self.rows, len(self.sizes)


@lru_cache(maxsize=64)
def shapes_of(sizes: tuple[int, ...], device: torch.device) -> Shapes:
    """The shapes of matrices with so many entries."""
    blocks = [-(-size // BLOCK) for size in sizes]
    places = [sum(sizes[:number]) for number in range(len(sizes))]
    return Shapes(
        sizes=sent(np.array(sizes, np.int64), device),
        places=sent(np.array(places, np.int64), device),
        blocks=sent(np.array(blocks, np.int32), device),
        rows=max(blocks),
        whole=sum(sizes),
        even=all(size % ALIGNED == 0 for size in sizes),
    )


@dataclass(frozen=True)
class Matrices:
    """What a kernel is told of a list of matrices: the table of their addresses, their bytes, and
    whether sizes and addresses are `even`: kernels then read and write 16 bytes at once."""

    table: Tensor
    bytes: int
    even: bool


def matrices_of(matrices: Sequence[Tensor], shapes: Shapes) -> Matrices:
    """The addresses of matrices of these shapes; the same ones are sent to the device once. They
    must live, where they are, until the kernel is launched."""
    addresses = tuple(matrix.data_ptr() for matrix in matrices)
    return Matrices(
        _table(addresses, shapes.sizes.device),
        shapes.whole * matrices[0].element_size(),
        shapes.even and all(address % ALIGNED == 0 for address in addresses),
    )


@lru_cache(maxsize=64)
def _table(addresses: tuple[int, ...], device: torch.device) -> Tensor:
    return sent(np.array(addresses, np.int64), device)


def fit(*lists: Sequence[Tensor]) -> bool:
    """Whether kernels can work on these matrices: contiguous, on one device that has kernels."""
    every = [matrix for matrices in lists for matrix in matrices]
    device = every[0].device
    if not available(device):
        return False
    return all(m.device == device and m.is_contiguous() and not m.is_sparse for m in every)


KINDS: Mapping[torch.dtype, str] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""Types of working weights and their gradients, by Triton's names."""
