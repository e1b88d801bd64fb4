"""The tokenised splits of a task, computed once and cached on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from zoo.errors import ConfigError, TrialError
from zoo.inputs.batches import Encoded
from zoo.inputs.cache import Contents, cached, code_of, forget
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.task import Source, Task
from zoo.inputs.tokeniser import load_tokenizer, read_as
from zoo.records.trial import canonical
from zoo.status import tell

TOKENISING = 3
"""Version of the tokenising code; part of the cache's key. Raise it with a change of the tokens."""
PARTS = ("tokens", "types", "bounds", "labels")
"""Arrays that every split has; a task may add its own."""


@dataclass(frozen=True)
class TaskData:
    """The tokenised splits of a task."""

    train: Encoded
    evaluation: Mapping[str, Encoded]


def encoding(task: Task) -> dict[str, object]:
    """What identifies the code that tokenises a task: a version, and the task's `encode`, which may
    be a user's."""
    return {"version": TOKENISING, "code": code_of(task.encode)}


def key_of(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, split: str
) -> dict[str, object]:
    """What the tokens of a split depend on."""
    return {
        "task": task.name,
        "split": split,
        "data": source.fingerprint,
        "tokeniser": read_as(checkpoint),
        "max_length": max_length,
        **encoding(task),
    }


def tokenise(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, folder: Path
) -> TaskData:
    """The tokenised splits of a task, from the cache in `folder` or computed and stored there.

    Raises ConfigError for rows that the task refuses, and StorageError.
    """

    def split(name: str) -> Encoded:
        make = partial(_made, task, source, checkpoint, max_length, name)
        arrays, texts = cached(folder, key_of(task, source, checkpoint, max_length, name), make)
        more = {name: array for name, array in arrays.items() if name not in PARTS}
        return Encoded(**{p: arrays[p] for p in PARTS}, arrays=more, texts=texts)

    there = [name for name in task.evaluation if name in source.rows]
    return TaskData(split(task.train), {name: split(name) for name in there})


def _made(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, split: str
) -> Contents:
    """A split tokenised now, as the cache stores it."""
    tokenizer = load_tokenizer(checkpoint)
    tell(f"tokenising {task.name}, {split}, {source.rows[split]:,} rows")
    try:
        encoded = task.encode(source.read(split), tokenizer, max_length, split == task.train)
    except ConfigError as error:
        raise ConfigError(f"data {source.locations[split]}: {error}") from None
    return {**{p: getattr(encoded, p) for p in PARTS}, **encoded.arrays}, encoded.texts


def check_cached(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, folder: Path
) -> None:
    """Compare the splits in the cache with the data, tokenised anew once in this process. Those
    that differ are removed, and TrialError is raised."""
    there = [name for name in (task.train, *task.evaluation) if name in source.rows]
    wrong = []
    for name in there:
        key = key_of(task, source, checkpoint, max_length, name)
        make = partial(_made, task, source, checkpoint, max_length, name)
        right = _right_sums(canonical(key))
        if not right:
            right.append(_sum_of(make()))
        if _sum_of(cached(folder, key, make)) != right[0]:
            forget(folder, key)
            wrong.append(name)
    if wrong:
        raise TrialError(
            f"the cache's examples of {task.name} ({', '.join(wrong)}) were not those of the data:"
            " they were removed, run again"
        )


@lru_cache(maxsize=64)
def _right_sums(key: str) -> list[str]:
    """A place for the sum of what is right under a key."""
    return []


def _sum_of(contents: Contents) -> str:
    arrays, texts = contents
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
