"""A cache of arrays on disk, memory-mapped, keyed by everything that they depend on.

An entry is a folder of arrays, a JSON value and the sha256 of each. A process checks these when it
first reads an entry; what is damaged, missing or half there is made again."""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from zoo.errors import StorageError
from zoo.records.storage import UNREADABLE, seal, sealed, sha256_of
from zoo.records.trial import canonical

VALUE, WRITING = "value.json", ".writing-"
"""A file of an entry, and how the names of entries that are being written begin."""
ABANDONED = 3600.0
"""Seconds after which what is half written has no writer."""
Contents = tuple[Mapping[str, np.ndarray], Any]
"""Named arrays, and one JSON-serialisable value."""


def code_of(function: Callable[..., Any]) -> list[str]:
    """What identifies the code of a function in a key: its name and line, the hash of its file, and
    what is bound to it: the arguments of a partial, the variables of a closure, the object of a
    method or of a callable value, by their representation."""
    if isinstance(function, partial):
        bound = [*function.args, *function.keywords, *function.keywords.values()]
        return code_of(function.func) + _described(bound)
    if isinstance(function, MethodType):
        return code_of(function.__func__) + _described([function.__self__])
    if hasattr(function, "__wrapped__"):  # decorated, as by functools.cache
        return code_of(function.__wrapped__)
    if not isinstance(function, FunctionType):
        call = type(function).__call__
        own = code_of(call) if isinstance(call, FunctionType) else []  # else written in C
        return own + _described([function])
    code, file = function.__code__, Path(function.__code__.co_filename)
    written = file.read_bytes() if file.is_file() else code.co_code  # else typed at a prompt
    content = hashlib.sha256(written).hexdigest()
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__qualname__, str(code.co_firstlineno), content, *_described(closed)]


def _described(values: Iterable[Any]) -> list[str]:
    """Functions by their code, other values by their representation."""
    found: list[str] = []
    for value in values:
        found += code_of(value) if isinstance(value, FunctionType | partial) else [repr(value)]
    return found


def cached(folder: Path, key: Mapping[str, Any], make: Callable[[], Contents]) -> Contents:
    """The contents stored under `key`; if there are none, `make` is called and its result stored.

    Two processes may compute the same contents at once; one of the copies is kept. Raises
    StorageError if the cache cannot be written.
    """
    entry = entry_of(folder, key)
    for _ in range(3):  # another process may remove what this one has stored, and store it again
        if entry.exists():
            try:
                return _load(entry)
            except UNREADABLE:  # computed again
                shutil.rmtree(entry, ignore_errors=True)
        _store(entry, make())
    return _load(entry)


def forget(folder: Path, key: Mapping[str, Any]) -> None:
    """Remove the contents under `key`, if there are any."""
    shutil.rmtree(entry_of(folder, key), ignore_errors=True)


def is_cached(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether there are contents under `key`, all as they were written."""
    entry = entry_of(folder, key)
    try:
        _check(entry)
    except UNREADABLE:
        return False
    return True


def entry_of(folder: Path, key: Mapping[str, Any]) -> Path:
    """The subfolder for the contents of a key."""
    return folder / hashlib.sha256(canonical(key).encode()).hexdigest()[:24]


def _store(entry: Path, contents: Contents) -> None:
    arrays, value = contents
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(entry.parent)
        temporary = Path(tempfile.mkdtemp(prefix=WRITING, dir=entry.parent))
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / VALUE).write_text(json.dumps(value), encoding="utf-8")
        seal(temporary)
        temporary.chmod(0o755)
        with contextlib.suppress(FileExistsError):
            temporary.rename(entry)
    except OSError as error:
        if entry.is_dir():  # another process stored the same contents first
            return
        raise StorageError(
            f"cannot write the cache {entry.parent}: {error.strerror or error}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left half written."""
    for path in folder.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


def _load(entry: Path) -> Contents:
    arrays = {
        name.removesuffix(".npy"): np.load(entry / name, mmap_mode="r", allow_pickle=False)
        for name in _check(entry)
        if name != VALUE
    }
    return arrays, json.loads((entry / VALUE).read_text(encoding="utf-8"))


def _check(entry: Path) -> list[str]:
    """The files of an entry; one of UNREADABLE is raised unless all are as they were written."""
    return sealed(entry, _sum_of)


def _sum_of(path: Path) -> str:
    """The sha256 of a file, which is read again only if it has changed."""
    state = path.stat()
    return _known_sum(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _known_sum(path: Path, changed: int, size: int) -> str:
    return sha256_of(path)
