"""Authors' own code from a checkout, as it is: single functions and classes of a file, whose imports
are not run. Nothing of it is copied here."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError


def pieces(file: Path, names: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Functions and classes of a file by name, methods too, defined beside the names `given`.
    Raises ConfigError where the file or a name is missing."""
    if not file.is_file():
        raise ConfigError(f"{file} is not a file of a checkout")
    kinds = ast.FunctionDef | ast.ClassDef
    tree = ast.parse(file.read_text("utf-8"))
    chosen: list[ast.stmt] = [
        node for node in ast.walk(tree) if isinstance(node, kinds) and node.name in names
    ]
    namespace = dict(given)
    exec(compile(ast.Module(chosen, []), str(file), "exec"), namespace)
    lacking = [name for name in names if name not in namespace]
    if lacking:
        raise ConfigError(f"{file} has no function {lacking[0]}")
    return {name: namespace[name] for name in names}


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, owner.name is the value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def torch_of(dtype: torch.dtype) -> SimpleNamespace:
    """torch as code for a GPU and float32 sees it: without a GPU, its float32 the dtype."""
    cuda = SimpleNamespace(
        synchronize=lambda: None, empty_cache=lambda: None, device_count=lambda: 0
    )
    return SimpleNamespace(**{**vars(torch), "cuda": cuda, "float32": dtype})


@contextmanager
def as_precise_as(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new tensors have the dtype, `.float()` gives it, and what is printed is dropped."""
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(dtype)
        stack.enter_context(patched(Tensor, "float", lambda found: found.to(dtype)))
        stack.enter_context(redirect_stdout(StringIO()))
        yield
