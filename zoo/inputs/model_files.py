"""The files of a checkpoint: which of them are read, what their headers say, their fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "bpe.codes",
)
"""What tokenisers read. A vocabulary beside tokenizer.json counts too: which of the two is read is
up to the version of transformers."""
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
"""Sets of files that are enough to build a tokeniser."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of a tensor: its type ("F32", "I8", ...) and shape."""

    dtype: str
    shape: tuple[int, ...]


def weight_files(folder: Path) -> list[Path]:
    """The files of weights, as transformers chooses them: model.safetensors, or all that the index
    names. Raises ConfigError if there are none, or one is missing."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        there = ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))[:3])
        more = f"; {there} would have to be called {WEIGHTS}" if there else ""
        raise ConfigError(f"no {WEIGHTS} in it; convert the checkpoint to safetensors first{more}")
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, Mapping) or not all(isinstance(p, str) for p in places.values()):
        raise ConfigError(f"{INDEX} has no weight_map of tensors and their files")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ConfigError(f"{name:.80} is missing, which {INDEX} names")
    return [folder / INDEX, *(folder / name for name in names)]


def tensor_headers(files: Sequence[Path]) -> dict[str, TensorHeader]:
    """The tensors in files of weights, by name; files of another kind are skipped. Raises
    ConfigError for a damaged file."""
    found: dict[str, TensorHeader] = {}
    for file in files:
        if file.suffix == ".safetensors":
            found |= _header(file)
    return found


def _header(file: Path) -> dict[str, TensorHeader]:
    check_content(file)
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > min(LARGEST_HEADER, file.stat().st_size):
                raise ValueError("it is no safetensors file, or is cut short")
            content = json.loads(stream.read(size))
        entries = {name: one for name, one in content.items() if name != "__metadata__"}
        end = max((int(one["data_offsets"][1]) for one in entries.values()), default=0)
        if 8 + size + end != file.stat().st_size:
            raise ValueError(
                f"it has {file.stat().st_size:,} bytes, its header speaks of {8 + size + end:,}"
            )
        return {n: TensorHeader(str(o["dtype"]), tuple(o["shape"])) for n, o in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"cannot read {file.name}: {error}; download it again") from None


def check_content(file: Path) -> None:
    """Raise ConfigError for an empty file, and for a pointer of git-LFS in the place of a file."""
    try:
        with file.open("rb") as stream:
            start = stream.read(100)
    except OSError as error:
        raise ConfigError(f"cannot read {file.name}: {error.strerror or error}") from None
    if not start:
        raise ConfigError(f"{file.name} is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise ConfigError(f"{file.name} is a pointer of git-LFS, not the file; run git lfs pull")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ConfigError, one line."""
    try:
        check_content(file)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read {file.name}: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file.name} is not a JSON object")
    return content


def check_tokenizer_files(folder: Path) -> None:
    """Raise ConfigError unless the files are enough for a tokeniser, and none is empty or a
    pointer."""
    if not any(all((folder / file).exists() for file in files) for files in TOKENIZERS):
        other = next(iter(sorted(folder.glob("*.model"))), None)
        hint = f"; {other.name} alone is not read: save the fast tokeniser" if other else ""
        raise ConfigError(
            "no tokeniser in it; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt"
            + hint
        )
    for name in TOKENIZER_FILES:
        if (folder / name).is_file() and name != "merges.txt":
            check_content(folder / name)


def tokenizer_files(folder: Path) -> list[Path]:
    """All files that a tokeniser may read, those for other versions of the library included."""
    versions = sorted(folder.glob("tokenizer.*.json"))
    return [*(folder / name for name in TOKENIZER_FILES), *versions]


def fingerprint(files: Sequence[Path]) -> str:
    """The sha256 of names, sizes and contents of the files that exist. Raises ConfigError for one
    that cannot be read."""
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            content = read_bytes(file)
            digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_bytes(file: Path) -> bytes:
    """The content of a file; raises ConfigError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file.name}: {error.strerror or error}") from None
