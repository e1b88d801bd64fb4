"""A cache of arrays on disk, memory-mapped, keyed by everything that they depend on."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from zoo.errors import StorageError
from zoo.records.trial import canonical

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
    if (entry / "value.json").exists():
        try:
            return _load(entry)
        except (OSError, ValueError, EOFError):  # damaged: computed again
            shutil.rmtree(entry, ignore_errors=True)
    _store(entry, make())
    return _load(entry)


def forget(folder: Path, key: Mapping[str, Any]) -> None:
    """Remove the contents under `key`, if there are any."""
    shutil.rmtree(entry_of(folder, key), ignore_errors=True)


def is_cached(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether there are contents under `key`."""
    return (entry_of(folder, key) / "value.json").exists()


def entry_of(folder: Path, key: Mapping[str, Any]) -> Path:
    """The subfolder for the contents of a key."""
    return folder / hashlib.sha256(canonical(key).encode()).hexdigest()[:24]


def _store(entry: Path, contents: Contents) -> None:
    arrays, value = contents
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / "value.json").write_text(json.dumps(value), encoding="utf-8")
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


def _load(entry: Path) -> Contents:
    arrays = {
        path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in entry.glob("*.npy")
    }
    return arrays, json.loads((entry / "value.json").read_text(encoding="utf-8"))
