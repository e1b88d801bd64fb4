"""Several matrices at once, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def in_threads(function: Callable[..., T], first: Sequence[Any], *more: Sequence[Any]) -> list[T]:
    """The function of each item, in as many threads as torch uses: NumPy and torch release the GIL.
    A single item is computed in the calling thread, which may itself belong to the pool."""
    threads = torch.get_num_threads() if len(first) > 1 else 1
    return list((_pool(threads).map if threads > 1 else map)(function, first, *more))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
