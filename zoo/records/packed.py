"""How bits, masks' sketches and histograms are written into results, and read back. numpy."""

import base64
from functools import lru_cache

import numpy as np

EMPTY = 2**32 - 1
"""The value of a sketch's bin without any kept weight."""


def pack_bits(bits: np.ndarray) -> str:
    """Booleans as "<number>:<base64 of packed bits>", the first in the highest bit."""
    return f"{len(bits)}:" + _text(np.packbits(bits))


def unpack_bits(text: str) -> np.ndarray:
    """The booleans that `pack_bits` wrote."""
    number, _, packed = text.partition(":")
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=int(number)).astype(bool)


def pack_sketch(least: np.ndarray) -> str:
    """The smallest hash in each bin, below 2^32, EMPTY for none, as base64 of 32-bit numbers."""
    return _text(least.astype("<u4"))


@lru_cache(maxsize=4096)
def unpack_sketch(text: str) -> np.ndarray:
    """The hashes that `pack_sketch` wrote; none for ""."""
    return np.frombuffer(base64.b64decode(text), "<u4")


def pack_counts(counts: np.ndarray) -> str:
    """Counts as base64 of bytes round(8 log2(1 + count))."""
    return _text(np.round(8 * np.log2(1 + counts)).astype(np.uint8))


def unpack_heights(text: str) -> np.ndarray:
    """round(8 log2(1 + count)) of the counts that `pack_counts` took, flat."""
    return np.frombuffer(base64.b64decode(text), np.uint8)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
