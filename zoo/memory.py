"""What the C library does with freed memory; where it is not glibc, nothing is changed.

By default it hands large blocks back at once. The next step then gets the same pages from the
kernel, cleared one by one, which takes a CPU longer than to compute what is written there.
"""

import ctypes
import sys
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters (malloc.h)."""
LARGEST = 2**25
"""Bytes of the largest block that may be kept: glibc takes no more."""


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def keep_freed() -> None:
    """Keep freed blocks for the next that asks."""
    set_option = _libc("mallopt")
    if set_option:
        set_option(MMAP_THRESHOLD, LARGEST)
        set_option(TRIM_THRESHOLD, 2**31 - 1)


def hand_back() -> None:
    """Give what is free back, so that the next trial's peak is its own."""
    trim = _libc("malloc_trim")
    if trim:
        trim(0)
