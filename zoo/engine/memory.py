"""Settings of glibc's allocator; other C libraries are left as they are.

By default glibc returns large blocks to the kernel at once. The next step then gets the same pages
back, and the kernel clears each of them first, which takes longer than the step needs to fill them.
"""

import ctypes
import sys
from typing import Any

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters (malloc.h)."""
LARGEST = 2**25
"""Size in bytes of the largest block that may be kept, the most that glibc accepts."""


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def keep_freed() -> None:
    """Keep freed blocks for the next allocation."""
    set_option = _libc("mallopt")
    if set_option:
        set_option(MMAP_THRESHOLD, LARGEST)
        set_option(TRIM_THRESHOLD, 2**31 - 1)


def release() -> None:
    """Return free memory to the kernel, so that it does not count in the next trial's peak, and to
    the GPU, where other processes may need it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = _libc("malloc_trim")
    if trim:
        trim(0)
