"""The tokenised splits of a task, computed once and cached on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ConfigError
from zoo.inputs.batches import Encoded
from zoo.inputs.cache import Contents, cached, code_of
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.task import Source, Task
from zoo.inputs.tokeniser import load_tokenizer, read_as
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


def tokenise(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, folder: Path
) -> TaskData:
    """The tokenised splits of a task, from the cache in `folder` or computed and stored there.

    Raises ConfigError for rows that the task refuses, and StorageError.
    """

    def split(name: str) -> Encoded:
        def make() -> Contents:
            tokenizer = load_tokenizer(checkpoint)
            tell(f"tokenising {task.name}, {name}, {source.rows[name]:,} rows")
            try:
                encoded = task.encode(source.read(name), tokenizer, max_length, name == task.train)
            except ConfigError as error:
                raise ConfigError(f"data {source.locations[name]}: {error}") from None
            return {**{p: getattr(encoded, p) for p in PARTS}, **encoded.arrays}, encoded.texts

        key = {
            "task": task.name,
            "split": name,
            "data": source.fingerprint,
            "tokeniser": read_as(checkpoint),
            "max_length": max_length,
            **encoding(task),
        }
        arrays, texts = cached(folder, key, make)
        more = {name: array for name, array in arrays.items() if name not in PARTS}
        return Encoded(**{p: arrays[p] for p in PARTS}, arrays=more, texts=texts)

    there = [name for name in task.evaluation if name in source.rows]
    return TaskData(split(task.train), {name: split(name) for name in there})
