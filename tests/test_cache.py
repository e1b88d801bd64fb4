"""The cache: what is damaged, missing or half there is made again, and never used."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.inputs import cache
from zoo.inputs.cache import ABANDONED, cached, entry_of, forget, is_cached

KEY = {"tokens": "of a text"}


class Maker:
    """Makes contents and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        arrays = {"tokens": np.arange(1000, dtype=np.uint16), "labels": np.ones(7)}
        return arrays, {"rows": [1, 2]}


def check(folder: Path, make: Maker) -> None:
    arrays, value = cached(folder, KEY, make)
    assert arrays["tokens"].tolist() == list(range(1000)) and arrays["labels"].sum() == 7
    assert set(arrays) == {"tokens", "labels"} and value == {"rows": [1, 2]}


def flipped(path: Path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit of an array": lambda e: flipped(e / "tokens.npy", 900),
    "the last byte of an array": lambda e: flipped(e / "labels.npy", -1),
    "a bit of an array's header": lambda e: flipped(e / "labels.npy", 20),
    "the end of an array": lambda e: os.truncate(e / "tokens.npy", 500),
    "an array": lambda e: (e / "labels.npy").unlink(),
    "the value": lambda e: (e / "value.json").unlink(),
    "a bit of the value": lambda e: flipped(e / "value.json", 9),
    "the sums": lambda e: (e / "sums.json").unlink(),
    "the content of the sums": lambda e: (e / "sums.json").write_text("[]"),
    "everything": lambda e: [path.unlink() for path in e.iterdir()],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_made_again(tmp_path, what):
    make = Maker()
    check(tmp_path, make)
    check(tmp_path, make)
    assert make.calls == 1 and is_cached(tmp_path, KEY)
    DAMAGE[what](entry_of(tmp_path, KEY))
    assert not is_cached(tmp_path, KEY)
    check(tmp_path, make)
    check(tmp_path, make)
    assert make.calls == 2 and is_cached(tmp_path, KEY)


def test_every_bit_counts(tmp_path):
    make = Maker()
    check(tmp_path, make)
    path, rng = entry_of(tmp_path, KEY) / "labels.npy", np.random.default_rng(0)
    for where in rng.integers(0, path.stat().st_size, 50):
        flipped(path, int(where))
        assert not is_cached(tmp_path, KEY)
        flipped(path, int(where))
        assert is_cached(tmp_path, KEY)


def test_a_process_reads_an_entry_once_to_check_it(tmp_path, monkeypatch):
    make, read = Maker(), []
    plain = cache.sha256_of
    monkeypatch.setattr(cache, "sha256_of", lambda path: read.append(path.name) or plain(path))
    check(tmp_path, make)
    read.clear()
    for _ in range(3):
        check(tmp_path, make)
    assert read == []
    cache._known_sum.cache_clear()
    check(tmp_path, make)
    assert sorted(read) == ["labels.npy", "tokens.npy", "value.json"]


def test_leftovers_of_killed_writers_go(tmp_path):
    make = Maker()
    old, young = tmp_path / ".writing-old", tmp_path / ".writing-young"
    for path in (old, young):
        path.mkdir()
        (path / "tokens.npy").write_bytes(b"half")
    long_ago = time.time() - ABANDONED - 60
    os.utime(old, (long_ago, long_ago))
    check(tmp_path, make)
    assert not old.exists() and young.exists()


def test_what_is_forgotten_is_made_again(tmp_path):
    make = Maker()
    check(tmp_path, make)
    forget(tmp_path, KEY)
    assert not is_cached(tmp_path, KEY)
    check(tmp_path, make)
    assert make.calls == 2
