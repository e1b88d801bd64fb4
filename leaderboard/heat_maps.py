"""Where the remaining weights are: by layer, and by matrix or attention head; which units compact
models have left; and whether two trials keep the same weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean

from zoo.records.forms import COMPACT, UNITS
from zoo.records.packed import EMPTY, unpack_sketch
from zoo.records.result import Matrix, Result


@dataclass(frozen=True)
class HeatMap:
    """What is left in percent: `values[line][column]`, nan for none. `lines` names the lines, which
    are layers without names."""

    name: str
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    lines: Sequence[str] = ()

    @property
    def range(self) -> float:
        """The largest minus the smallest entry."""
        flat = [value for row in self.values for value in row]
        return max(flat) - min(flat)


Grid = dict[tuple[int, str], float]
"""Remaining weights in percent by layer (from 0) and column."""


def has_masks(result: Result) -> bool:
    """Whether the result's weights were masked."""
    return any(matrix.attention_heads for matrix in result.remaining.matrices.values())


def by_matrix(result: Result) -> Grid:
    """Remaining weights in percent by layer and role."""
    return {(m.layer, m.role): 100 * m.kept / m.total for m in result.remaining.matrices.values()}


def by_head(result: Result) -> Grid:
    """Remaining weights in percent by layer and attention head, Q, K, V and O together."""
    found: dict[tuple[int, str], list[float]] = {}
    for matrix in result.remaining.matrices.values():
        many = len(matrix.role)  # "QKV" is three matrices in one
        for number, density in enumerate(matrix.attention_heads, 1):
            found.setdefault((matrix.layer, str(number)), []).extend(many * [100 * density])
    return {key: fmean(parts) for key, parts in found.items()}


def uneven(result: Result) -> bool:
    """Whether matrices keep different fractions, by more than rounding to whole weights."""
    matrices: Sequence[Matrix] = list(result.remaining.matrices.values())
    fractions = [matrix.kept / matrix.total for matrix in matrices]
    return max(fractions) - min(fractions) > 1 / min(matrix.total for matrix in matrices)


def whole(grids: Sequence[Grid]) -> list[Grid]:
    """The grids, if each has an entry for every layer and column of the first; none otherwise:
    layers that differ in their matrices make no map."""
    layers, columns = ({key[side] for key in grids[0]} for side in (0, 1))
    full = {(layer, column) for layer in layers for column in columns}
    return list(grids) if all(grid.keys() == full for grid in grids) else []


def heat_map(name: str, grids: Sequence[Grid], columns: Sequence[str]) -> HeatMap:
    """Means over results, by layer and column."""
    layers = sorted({layer for layer, _ in grids[0]})
    values = [[fmean([g[layer, column] for g in grids]) for column in columns] for layer in layers]
    return HeatMap(name, columns, values)


def by_unit(result: Result) -> Grid:
    """Units left in the exact compact form in percent, by layer and kind; {} if it was not
    measured."""
    compact = (form for form in result.forms if form.name == COMPACT and not form.least)
    return {
        (layer, units.kind): 100 * left / units.total
        for form in compact
        for units in form.units
        for layer, left in enumerate(units.left)
    }


def unit_maps(rows: Sequence[tuple[str, Sequence[Result]]]) -> list[HeatMap]:
    """A map for each kind of unit, of the rows (name, results) whose compact form was measured, by
    layer: means over results."""
    found: dict[str, list[Grid]] = {}
    for name, results in rows:
        grids = [grid for grid in map(by_unit, results) if grid]
        if grids and whole(grids):
            found[name] = grids
    every = [grid for grids in found.values() for grid in grids]
    layers = sorted({layer for grid in every for layer, _ in grid})
    columns = [str(layer + 1) for layer in layers]
    maps = []
    for kind in UNITS:
        if any(kind == known for grid in every for _, known in grid):
            values = [
                [fmean([grid.get((layer, kind), nan) for grid in grids]) for layer in layers]
                for grids in found.values()
            ]
            maps.append(HeatMap(kind, columns, values, list(found)))
    return maps


def agreement(one: Result, other: Result) -> float | None:
    """The Jaccard index of two trials' masks, kept by both over kept by either, estimated from
    their sketches (Li et al. 2012) with a standard error of 3 points; None without sketches."""
    a, b = unpack_sketch(one.sketch), unpack_sketch(other.sketch)
    if not len(a) or len(a) != len(b):
        return None
    filled = (a != EMPTY) | (b != EMPTY)
    return float((a == b)[filled].mean()) if filled.any() else None
