"""Examples for choosing values, apart from those that judge: a fixed part of the training set.

Values that are chosen on the evaluation set are chosen for it. So candidates of hyper-parameters
train without these examples and are compared on them; the chosen values then train on the whole
training set and are judged on the evaluation set.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from zoo.errors import ConfigError
from zoo.inputs.task import Source, Task

CHOOSING = "choosing 1"
"""Version of the rule below; part of the fingerprint of the data."""
SHARE, MOST = 0.2, 2000
"""The part is a fifth of the training rows, or about 2,000 rows if that is fewer."""


def for_choosing(task: Task, source: Source) -> tuple[Task, Source]:
    """The task with the training set divided in two: candidates train on one part, and the other
    stands in the place of the first evaluation split.

    Rows are divided by a hash of their first text (premise, question, context), so that rows which
    share it stay together, and the part is the same whatever the order of the rows. Raises
    ConfigError if one of the parts would be empty.
    """
    split = next(name for name in task.evaluation if name in source.rows)
    share = min(SHARE, MOST / source.rows[task.train])
    columns = source.read(task.train)
    chosen = [_place(text) < share for text in _first_texts(task, columns)]
    counts = {task.train: chosen.count(False), split: chosen.count(True)}
    where = source.locations[task.train]
    if 0 in counts.values():
        raise ConfigError(
            f"task {task.name}: {where} has too few different texts to put a part aside for"
            " choosing values"
        )

    def read(name: str) -> Mapping[str, Sequence[Any]]:
        rows = [i for i, one in enumerate(chosen) if one is (name == split)]
        content = source.read(task.train)
        return {column: [values[i] for i in rows] for column, values in content.items()}

    locations = {task.train: f"{where}, without the examples for choosing"}
    locations[split] = f"{where}, the {counts[split]:,} examples for choosing"
    fingerprint = f"{source.fingerprint}, {CHOOSING}"
    divided = Source(source.name, fingerprint, counts, locations, read)
    return replace(task, evaluation=(split,)), divided


def _first_texts(task: Task, columns: Mapping[str, Sequence[Any]]) -> Sequence[str]:
    """The first column of texts."""
    for values in columns.values():
        if len(values) and isinstance(values[0], str):
            return values
    raise ConfigError(f"task {task.name} has no column of texts by which its rows can be divided")


def _place(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(f"{CHOOSING}\n{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
