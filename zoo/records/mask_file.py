"""Masks as a file near their entropy: which weights of a named base model remain.

Rows (or columns, where these differ more) are put in classes by their density; four neighbouring
entries of a row are a symbol, coded under the table of its class (`zoo/records/rans.py`). A file is

    "ZMSK", version | sha256 of the base model | head, as zlib | coded masks | sha256, 16 bytes

The head holds shapes, counts, classes and the tables. Reading runs no code of the file, and makes
nothing that is larger than the masks of the model that the reader expects.
"""

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.records import rans

MAGIC, VERSION = b"ZMSK", 1
GRIDS = (0.0, 16.0, 8.0, 4.0, 3.0, 2.0, 1.5, 1.25)
"""Ratios of odds between two classes that are tried; 0: a class for every matrix."""
WASTE = 1600
"""A lane costs 8 bytes; there is one for so many bytes of the masks."""
LONGEST = 50_000
"""Most symbols of a lane, which are read one after another."""
Masks = Mapping[str, np.ndarray]
"""Masks (out, in) of bool by the name of their matrix, in the model's order."""


@dataclass(frozen=True)
class Layout:
    """How the entries of masks are coded: for each matrix whether by columns, the class of each
    line (over all matrices), and the density of each class in 1/65536."""

    by_columns: tuple[bool, ...]
    classes: np.ndarray
    densities: tuple[int, ...]


def encode(masks: Masks, base: str) -> bytes:
    """The file of masks; `base` is the sha256 of the base model, in hexadecimal."""
    grids = list(masks.values())
    counts = [(np.count_nonzero(grid, 1), np.count_nonzero(grid, 0)) for grid in grids]
    bits, layout = min((_layout(counts, ratio) for ratio in GRIDS), key=lambda pair: pair[0])
    symbols, tables = _symbols(grids, layout), _tables_of(grids, layout)
    lanes = max(1, int(bits / 8) // WASTE, -(-len(symbols) // LONGEST))
    coded = rans.encode(symbols, tables, frequencies(layout.densities), lanes)
    head = _head(grids, layout, lanes)
    start = MAGIC + bytes([VERSION]) + bytes.fromhex(base) + _number(len(head)) + head
    return start + coded + _digest(start + coded)


def decode(
    content: bytes, shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, np.ndarray], str]:
    """The masks in a file for matrices of these shapes, and the sha256 of their base model. Raises
    ValueError, one line, for a file that is damaged or of another model."""
    if len(content) < 60 or content[:4] != MAGIC:
        raise ValueError("it is no file of masks")
    if content[4] != VERSION:
        raise ValueError(f"its version is {content[4]}, this program reads {VERSION}")
    if _digest(content[:-16]) != content[-16:]:
        raise ValueError("its checksum is wrong: it is damaged")
    expected = [(int(out), int(inputs)) for out, inputs in shapes.values()]
    reader = _Reader(content, 37)
    head = reader.take(reader.number())
    layout, kept, lanes = _read_head(head, expected)
    dummies = [np.broadcast_to(False, shape) for shape in expected]
    tables = _tables_of(dummies, layout)
    symbols = rans.decode(content[reader.at : -16], tables, frequencies(layout.densities), lanes)
    masks = dict(zip(shapes, _matrices(symbols, expected, layout), strict=True))
    if [int(mask.sum()) for mask in masks.values()] != kept:
        raise ValueError("its masks have other counts than it says")
    return masks, content[5:37].hex()


def bounds(masks: Masks) -> tuple[float, float]:
    """Bytes of the masks' entropy: with one density for each matrix, and with one for each row."""
    by_matrix = sum(mask.size * _entropy(mask.mean()) for mask in masks.values())
    by_row = sum(mask.shape[1] * _entropy(mask.mean(1)).sum() for mask in masks.values())
    return float(by_matrix) / 8, float(by_row) / 8


def _entropy(p: np.ndarray) -> np.ndarray:
    """Bits of an entry of density p."""
    inside = np.clip(p, 1e-300, 1)
    outside = np.clip(1 - p, 1e-300, 1)
    return -(p * np.log2(inside) + (1 - p) * np.log2(outside))


# Classes of lines -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    """The rows or columns of a matrix: a level and a count of ones for each, and their width."""

    by_columns: bool
    levels: np.ndarray
    counts: np.ndarray
    width: int

    def bits(self) -> float:
        """What they will take: their entries, and their levels."""
        _, classes, many = np.unique(self.levels, return_inverse=True, return_counts=True)
        density = np.bincount(classes, self.counts) / (many * self.width)
        entries = (many * self.width * _entropy(density)).sum()
        return float(entries - (many * np.log2(many / many.sum())).sum())


def _lines(both: tuple[np.ndarray, np.ndarray], ratio: float, matrix: int) -> _Lines:
    """Rows or columns, whichever take less, with levels of this ratio; 0: one for each matrix.
    `both`: the ones of each row, and of each column."""
    found = []
    for counts, across in (both, both[::-1]):
        width = len(across)
        levels = np.full(len(counts), matrix)
        if ratio:
            odds = (counts + 0.5) / (width - counts + 0.5)
            levels = np.rint(np.log(odds) / math.log(ratio)).astype(int)
            levels[counts == 0], levels[counts == width] = -9999, 9999
        found.append(_Lines(counts is both[1], levels, counts, width))
    return min(found, key=_Lines.bits)


def _layout(ones: Sequence[tuple[np.ndarray, np.ndarray]], ratio: float) -> tuple[float, Layout]:
    """The layout with levels of this ratio, and the bits that it will take."""
    lines = [_lines(both, ratio, number) for number, both in enumerate(ones)]
    levels = np.concatenate([one.levels for one in lines])
    counts = np.concatenate([one.counts for one in lines])
    widths = np.concatenate([np.full(len(one.levels), one.width) for one in lines])
    _, classes = np.unique(levels, return_inverse=True)
    entries = np.bincount(classes, widths)
    density = np.bincount(classes, counts) / entries
    layout = Layout(
        tuple(one.by_columns for one in lines),
        classes.astype(np.uint16),
        tuple(int(d) for d in np.rint(density * 65536)),
    )
    bits = float((entries * _entropy(density)).sum())
    return bits + 8 * len(zlib.compress(layout.classes.tobytes(), 4)), layout


def frequencies(densities: Sequence[int]) -> np.ndarray:
    """The table of each class: frequencies of the 16 patterns of four entries, the first in the
    lowest bit, which add up to 2^16. Whole numbers throughout: all machines agree."""
    rows = []
    for density in densities:
        ones = [density**n * (65536 - density) ** (4 - n) >> 48 for n in range(5)]
        row = [max(1, ones[pattern.bit_count()]) for pattern in range(16)]
        row[row.index(max(row))] += 65536 - sum(row)
        rows.append(row)
    return np.asarray(rows, np.int64)


def _oriented(shape: tuple[int, ...], by_columns: bool) -> tuple[int, int]:
    """Lines of a matrix, and symbols in each."""
    out, inputs = shape[::-1] if by_columns else shape
    return out, -(-inputs // 4)


def _tables_of(grids: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """The class of every symbol."""
    shapes = [_oriented(g.shape, c) for g, c in zip(grids, layout.by_columns, strict=True)]
    many = np.concatenate([np.full(lines, symbols) for lines, symbols in shapes])
    return np.repeat(layout.classes, many)


def _symbols(grids: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """The entries of all matrices, four to a symbol; lines are filled up with zeros."""
    parts = []
    for grid, by_columns in zip(grids, layout.by_columns, strict=True):
        lines = grid.T if by_columns else grid
        padded = np.pad(lines.astype(np.uint8), ((0, 0), (0, -lines.shape[1] % 4)))
        four = padded.reshape(-1, 4)
        parts.append(four[:, 0] | four[:, 1] << 1 | four[:, 2] << 2 | four[:, 3] << 3)
    return np.concatenate(parts)


def _matrices(
    symbols: np.ndarray, shapes: Sequence[tuple[int, int]], layout: Layout
) -> list[np.ndarray]:
    """The masks of the symbols."""
    found, at = [], 0
    for (out, inputs), by_columns in zip(shapes, layout.by_columns, strict=True):
        lines, many = _oriented((out, inputs), by_columns)
        part = symbols[at : at + lines * many, None] >> np.arange(4, dtype=np.uint8) & 1
        at += lines * many
        grid = part.reshape(lines, 4 * many)[:, : out if by_columns else inputs].astype(bool)
        found.append(np.ascontiguousarray(grid.T if by_columns else grid))
    return found


# The head ---------------------------------------------------------------------------------------


def _head(grids: Sequence[np.ndarray], layout: Layout, lanes: int) -> bytes:
    shapes = b"".join(_number(n) for grid in grids for n in grid.shape)
    kept = b"".join(_number(int(np.count_nonzero(grid))) for grid in grids)
    tables = b"".join(_number(d) for d in layout.densities)
    wide = layout.classes.astype(np.uint8 if len(layout.densities) < 256 else "<u2")
    numbers = _number(lanes) + _number(len(grids)) + _number(len(layout.densities))
    return zlib.compress(
        numbers + shapes + kept + tables + bytes(layout.by_columns) + wide.tobytes(), 9
    )


def _read_head(packed: bytes, expected: Sequence[tuple[int, int]]) -> tuple[Layout, list[int], int]:
    """Layout, counts and lanes. Raises ValueError unless the shapes are the expected ones."""
    longest = 64 + 40 * len(expected) + 20 * sum(map(sum, expected))
    try:
        unpacker = zlib.decompressobj()
        reader = _Reader(unpacker.decompress(packed, longest), 0)
    except zlib.error as error:
        raise ValueError(f"its head is damaged: {error}") from None
    lanes, matrices, many = (reader.number() for _ in range(3))
    if matrices != len(expected):
        raise ValueError(f"it has {matrices} matrices, the model {len(expected)}")
    shapes = [(reader.number(), reader.number()) for _ in range(matrices)]
    for shape, wanted in zip(shapes, expected, strict=True):
        if shape != wanted:
            raise ValueError(f"a matrix of it is {shape}, the model's {wanted}")
    kept = [reader.number() for _ in range(matrices)]
    total = sum(out * inputs for out, inputs in shapes)
    if not total <= 4 * LONGEST * lanes <= 4 * LONGEST * total or not 1 <= many <= 65536:
        raise ValueError("its head says what cannot be")
    densities = tuple(reader.number() for _ in range(many))
    by_columns = tuple(map(bool, reader.take(matrices)))
    lines = sum(_oriented(s, c)[0] for s, c in zip(shapes, by_columns, strict=True))
    kind = np.dtype(np.uint8 if many < 256 else "<u2")
    classes = np.frombuffer(reader.take(lines * kind.itemsize), kind)
    if max(densities) > 65536 or classes.max(initial=0) >= many:
        raise ValueError("its head says what cannot be")
    return Layout(by_columns, classes.astype(np.uint16), densities), kept, lanes


def _number(value: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first."""
    groups = []
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


class _Reader:
    """Reads numbers and bytes one after another; raises ValueError at the end."""

    def __init__(self, content: bytes, at: int):
        self.content, self.at = content, at

    def take(self, many: int) -> bytes:
        """The next bytes."""
        if many > len(self.content) - self.at:
            raise ValueError("it ends too early")
        self.at += many
        return self.content[self.at - many : self.at]

    def number(self) -> int:
        """The next number, below 2^63."""
        value = 0
        for shift in range(0, 63, 7):
            (group,) = self.take(1)
            value |= (group & 127) << shift
            if group < 128:
                return value
        raise ValueError("it holds a number that is too large")
