"""The content of a record's file: JSON within bounds, and the checksum that was written with it.

A file may come from anybody. Its bytes, values and depth are bounded before anything is made of
them, so that no file takes much memory or time.
"""

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from zoo.records.codec import MOST
from zoo.records.trial import canonical

LARGEST, MOST_VALUES, DEEPEST = 8 * 2**20, 400_000, 20
"""Bytes of a file, values in it, and levels of its lists and objects."""
CHECKSUM = "checksum"
"""The field that holds the checksum of all others."""


def read(path: Path) -> Any:
    """The JSON of a file. Raises OSError, RecursionError, and ValueError for what is no regular
    file, no JSON, or beyond the bounds: numbers fit 64 bits, texts can be encoded."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise ValueError("it is not a regular file")
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    _check_size(data)
    content = json.loads(
        data.decode("utf-8"), parse_int=_whole, parse_float=_number, parse_constant=_constant
    )
    _check_depth(content)
    if re.search(rb"\\u[dD][89a-fA-F]", data):  # half of a character cannot be written
        json.dumps(content, ensure_ascii=False).encode()
    return content


def encoded(content: Any) -> bytes:
    """Content as a file of a line per value, which `read` reads. Raises ValueError beyond its
    bounds, and for numbers that JSON does not have."""
    data = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
    _check_size(data)
    _check_depth(content)
    return data


def _check_size(data: bytes) -> None:
    if len(data) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(DEEPEST):
        objects = [one.values() for one in level if isinstance(one, dict)]
        lists = [one for one in level if isinstance(one, list)]
        level = list(chain.from_iterable((*objects, *lists)))
        if not level:
            return
    raise ValueError(f"it is nested in more than {DEEPEST} levels")


def _whole(text: str) -> int:
    if len(text) > 20 or not -MOST <= int(text) <= MOST:
        raise ValueError(f"it holds {text:.25}, which does not fit 64 bits")
    return int(text)


def _number(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"it holds {text:.25}, which does not fit 64 bits")
    return float(text)


def _constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number of JSON")


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its checksum, which depends neither on layout nor on the order of fields."""
    digest = hashlib.sha256(canonical(content).encode()).hexdigest()
    return {**content, CHECKSUM: f"sha256:{digest}"}


def without_checksum(content: Any) -> tuple[Any, bool]:
    """The content without its checksum, and whether that is right. Files of earlier versions have
    none; one under another name was damaged."""
    if not isinstance(content, Mapping):
        return content, True
    if CHECKSUM not in content:
        return content, not any(map(_is_checksum, content.values()))
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    return rest, content[CHECKSUM] == with_checksum(rest)[CHECKSUM]


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value) is not None
