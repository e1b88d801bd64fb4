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


def pack_classes(classes: np.ndarray) -> str:
    """Whole numbers below 256 as bits of each place: "<number>:<base64>:<base64>...", the lowest
    place first."""
    places = max(1, int(classes.max(initial=0)).bit_length())
    planes = [_text(np.packbits((classes >> place) & 1)) for place in range(places)]
    return ":".join([str(len(classes)), *planes])


def unpack_classes(text: str) -> np.ndarray:
    """The numbers that `pack_classes` wrote."""
    number, *planes = text.split(":")
    bits = [
        unpack_bits(f"{number}:{plane}").astype(np.int64) << i for i, plane in enumerate(planes)
    ]
    found: np.ndarray = np.sum(bits, axis=0)
    return found


def pack_values(values: np.ndarray) -> str:
    """Numbers as base64 of 16-bit floats: three digits."""
    return _text(values.astype("<f2"))


def unpack_values(text: str) -> np.ndarray:
    """The numbers that `pack_values` wrote, as float64."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


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
