"""Arrays on disk by the key of their content: made once, written whole, memory-mapped."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import StorageError
from zoo.trial import canonical

Contents = tuple[Mapping[str, np.ndarray], Any]
"""Named arrays, and one value that fits JSON."""


def cached(folder: Path, key: Mapping[str, Any], make: Callable[[], Contents]) -> Contents:
    """The contents stored under `key`, made and stored first if they are not there.

    Two processes may make the same contents at once; one of them stays. Raises StorageError if the
    cache cannot be written.
    """
    place = place_of(folder, key)
    if (place / "value.json").exists():
        try:
            return _load(place)
        except (OSError, ValueError, EOFError):  # damaged: made again
            shutil.rmtree(place, ignore_errors=True)
    _store(place, make())
    return _load(place)


def place_of(folder: Path, key: Mapping[str, Any]) -> Path:
    """The folder that holds the contents of a key."""
    digest = hashlib.sha256(canonical(key).encode()).hexdigest()[:24]
    return folder / digest


def _store(place: Path, contents: Contents) -> None:
    arrays, value = contents
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=place.parent))
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / "value.json").write_text(json.dumps(value), encoding="utf-8")
        temporary.chmod(0o755)
        with contextlib.suppress(FileExistsError):
            temporary.rename(place)
    except OSError as error:
        if place.is_dir():  # another process stored the same contents first
            return
        raise StorageError(
            f"cannot write the cache {place.parent}: {error.strerror or error}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _load(place: Path) -> Contents:
    arrays = {
        path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in place.glob("*.npy")
    }
    return arrays, json.loads((place / "value.json").read_text(encoding="utf-8"))
