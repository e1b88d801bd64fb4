"""Files of masks: what was written is read, near the entropy; what is damaged is refused."""

import hashlib
import random
import tracemalloc
import zlib

import numpy as np
import pytest

from zoo.records import mask_file, rans
from zoo.records.mask_file import bounds, decode, encode, frequencies

BASE = "ab" * 32


def masks_of(density: float, kind: str, shapes: list[tuple[int, int]], seed: int = 0):
    """Random masks: of one density, or of a density for each row or column."""
    rng, found = np.random.default_rng(seed), {}
    for number, shape in enumerate(shapes):
        line = {"rows": (shape[0], 1), "columns": (1, shape[1]), "even": (1, 1)}[kind]
        odds = np.exp(rng.normal(0, 1.5, line)) if kind != "even" else np.ones(line)
        p = np.clip(density * odds / odds.mean(), 0, 1)
        found[f"m{number}"] = rng.random(shape) < p
    return found


def shapes_of(masks):
    return {name: mask.shape for name, mask in masks.items()}


def same(one, other) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[n], other[n]) for n in one)


LAYER = [(96, 96)] * 4 + [(384, 96), (96, 384)]


@pytest.mark.parametrize("kind", ["even", "rows", "columns"])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.03, 0.1, 0.5, 0.9, 1.0])
def test_masks_survive(density, kind):
    masks = masks_of(density, kind, LAYER)
    content = encode(masks, BASE)
    found, base = decode(content, shapes_of(masks))
    assert same(found, masks) and base == BASE


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (13, 1), (3, 4), (2, 1000), (301, 2)])
def test_odd_shapes_survive(shape):
    rng = np.random.default_rng(1)
    masks = {"a": rng.random(shape) < 0.3, "b": np.ones(shape, bool), "c": rng.random((4, 4)) < 0.5}
    assert same(decode(encode(masks, BASE), shapes_of(masks))[0], masks)


def test_the_bounds_are_the_entropies():
    """By another route: logarithms of the probability of every entry."""
    masks = masks_of(0.1, "rows", [(20, 64), (8, 33)])
    by_matrix, by_row = 0.0, 0.0
    for mask in masks.values():
        for row in mask:
            for entry in row:
                p, q = mask.mean(), row.mean()
                by_matrix -= np.log2(p if entry else 1 - p)
                by_row -= np.log2(q if entry else 1 - q)
    assert bounds(masks) == pytest.approx((by_matrix / 8, by_row / 8))


BIG = [(384, 384)] * 8 + [(1536, 384), (384, 1536)] * 2


@pytest.mark.parametrize("kind", ["even", "rows", "columns"])
@pytest.mark.parametrize("density", [0.5, 0.1, 0.03])
def test_a_file_is_near_the_entropy(density, kind):
    """The bound for rows leaves out what must say how dense each row is: 3 bits or so of it."""
    masks = masks_of(density, kind, BIG)
    size = len(encode(masks, BASE))
    most = {"even": 1.02, "rows": 1.05 if density > 0.03 else 1.07, "columns": 0.9}[kind]
    assert size <= most * min(bounds(masks))
    packed = sum(-(-mask.size // 8) for mask in masks.values())
    assert size < (1.01 if kind == "even" and density == 0.5 else 0.8) * packed


def test_tables_are_whole_numbers_that_add_up():
    table = frequencies(range(0, 65537, 97))
    assert (table.sum(1) == 65536).all() and (table >= 1).all()


def test_a_damaged_file_is_never_read():
    """Cut, with bits turned over, with bytes put in: 500 of each sort of masks."""
    masks = masks_of(0.05, "rows", LAYER)
    content, draw = encode(masks, BASE), random.Random(0)
    for _ in range(500):
        bad = bytearray(content)
        kind, at = draw.randrange(4), draw.randrange(len(bad))
        if kind == 0:
            bad[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            bad = bad[:at]
        elif kind == 2:
            bad[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            bad[at : at + 8] = draw.randbytes(8)
        if bytes(bad) == content:
            continue
        with pytest.raises(ValueError, match=r"\w"):
            decode(bytes(bad), shapes_of(masks))


def signed(content: bytes) -> bytes:
    """A content with the checksum that it should have."""
    return content + hashlib.sha256(content).digest()[:16]


def test_a_hostile_file_is_refused_without_much_memory():
    """With a right checksum, and whatever else in its head and its coded part."""
    masks = masks_of(0.05, "even", LAYER)
    content, shapes, draw = encode(masks, BASE), shapes_of(masks), random.Random(1)
    start = content[:37]
    bomb = zlib.compress(b"\0" * 10**8)
    heads = [
        bomb,
        zlib.compress(b"\xff" * 400),
        zlib.compress(draw.randbytes(3000)),
        b"",
        b"x" * 50,
    ]
    tracemalloc.start()
    for head in heads:  # nothing is made before they are found wrong
        for coded in (b"", draw.randbytes(8), draw.randbytes(4000)):
            bad = signed(start + mask_file._number(len(head)) + head + coded)
            with pytest.raises(ValueError, match=r"\w"):
                decode(bad, shapes)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    body = bytearray(content[:-16])
    for _ in range(15):  # a right head with another coded part, or a head that is another's
        bad = bytearray(body)
        bad[draw.randrange(37, len(bad))] ^= 1 << draw.randrange(8)
        if bytes(bad) == body:
            continue
        try:
            found, _ = decode(signed(bytes(bad)), shapes)
        except ValueError:
            continue
        assert not same(found, masks)  # other masks with the same counts are no damage


def test_masks_of_another_model_are_refused():
    masks = masks_of(0.1, "even", LAYER)
    content = encode(masks, BASE)
    wider = shapes_of(masks) | {"m0": (96, 97)}
    with pytest.raises(ValueError, match=r"a matrix of it is \(96, 96\), the model's \(96, 97\)"):
        decode(content, wider)
    with pytest.raises(ValueError, match="it has 6 matrices, the model 1"):
        decode(content, {"m0": (96, 96)})
    with pytest.raises(ValueError, match="its version is 2"):
        decode(content[:4] + b"\2" + content[5:], shapes_of(masks))


@pytest.mark.parametrize("lanes", [1, 2, 7, 64])
def test_lanes_are_coded_side_by_side(lanes):
    rng = np.random.default_rng(2)
    table = frequencies([3000, 30000])
    tables = rng.integers(0, 2, 1001).astype(np.uint16)
    symbols = np.array([rng.choice(16, p=table[t] / 65536) for t in tables]).astype(np.uint8)
    coded = rans.encode(symbols, tables, table, lanes)
    assert np.array_equal(rans.decode(coded, tables, table, lanes), symbols)
    ideal = -np.log2(table[tables, symbols] / 65536).sum() / 8
    assert ideal <= len(coded) <= 1.01 * ideal + 9 * lanes
    for bad in (coded[:-4], coded + b"\0\0\0\0", coded[:-1]):
        with pytest.raises(ValueError, match="coded part"):
            rans.decode(bad, tables, table, lanes)


@pytest.mark.parametrize("lanes", [1, 3, 25])
def test_few_and_many_lanes_are_coded_alike(lanes, monkeypatch):
    rng = np.random.default_rng(3)
    table = frequencies([0, 3000, 30000, 65536])
    tables = rng.integers(0, 4, 1003).astype(np.uint16)
    symbols = rng.integers(0, 16, 1003).astype(np.uint8)
    coded = rans.encode(symbols, tables, table, lanes)
    monkeypatch.setattr(rans, "STEPS", 7)
    for few in (0, 100):
        monkeypatch.setattr(rans, "FEW", few)
        assert rans.encode(symbols, tables, table, lanes) == coded
