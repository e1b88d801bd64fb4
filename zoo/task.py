"""What a task is: data, the shape of its output, its label words and its metrics.

An adapter in tasks/ registers a factory `() -> Task`. Reading, tokenising and scoring are the
adapter's functions; batches are made here.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.cache import Contents, cached
from zoo.checkpoint import Checkpoint, load_tokenizer
from zoo.errors import ConfigError
from zoo.losses import divergence
from zoo.packing import Packing, pack


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) against class numbers (B,)."""
    return F.cross_entropy(logits, labels)


def regression_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error of logits (B, 1) against targets (B,)."""
    return F.mse_loss(logits.squeeze(-1), labels)


def regression_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared error to the teacher's output; the temperature has no meaning here."""
    return F.mse_loss(student, teacher)


def span_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the cross-entropies of start and end: logits (B, tokens, 2), labels (B, 2)."""
    return F.cross_entropy(logits, labels)


def span_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over start and end of the divergence over positions: (B, tokens, 2) both."""
    return divergence(student.transpose(1, 2), teacher.transpose(1, 2), temperature)


@dataclass(frozen=True)
class Output:
    """What a task asks of a model: where logits are read and how they are compared.

    `per_token` says whether there are logits at every token or at the first one only; `loss` takes
    (logits, labels) and `distillation` (student, teacher, temperature).
    """

    per_token: bool
    loss: Callable[[Tensor, Tensor], Tensor]
    distillation: Callable[[Tensor, Tensor, float], Tensor]


CLASSES = Output(False, classification_loss, divergence)
REGRESSION = Output(False, regression_loss, regression_distillation)
SPAN = Output(True, span_loss, span_distillation)


@dataclass(frozen=True)
class Encoded:
    """One tokenised split of n examples; arrays may be memory-mapped.

    `tokens` and `types` (sum of lengths,) hold all examples behind one another, `bounds` (n + 1,)
    their starts; `labels` (n,), or (n, 2) for spans. `arrays` and `texts` (a value that fits JSON)
    are whatever else the adapter's `score` reads.
    """

    tokens: np.ndarray
    types: np.ndarray
    bounds: np.ndarray
    labels: np.ndarray
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Any = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.bounds)


@dataclass(frozen=True)
class Batch:
    """Padded examples on the device: `rows` (B,), tokens, types and attention (B, longest); how
    they are packed, where that saves work."""

    rows: Tensor
    tokens: Tensor
    types: Tensor
    attention: Tensor
    labels: Tensor
    packing: Packing | None = None


@dataclass(frozen=True)
class Source:
    """Where a task's raw rows come from: the hub, a local folder, or the project itself.

    `name` is for people; `fingerprint` changes with the content; `rows` counts each split that is
    there, a missing evaluation split is not in it; `places` says where each split lies, for
    messages; `read(split)` gives columns by name.
    """

    name: str
    fingerprint: str
    rows: Mapping[str, int]
    places: Mapping[str, str]
    read: Callable[[str], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Scores:
    """Metrics in percent by name (None where undefined), and per example whether it was right."""

    metrics: dict[str, float | None]
    correct: np.ndarray | None


@dataclass(frozen=True)
class Task:
    """One task.

    `labels` names the classes in the order of their numbers; `words` are the label words in the
    order of the outputs. `metrics` are shown in this order, the first one chooses the best
    evaluation. `train` and `evaluation` name splits; `official` holds their official row counts.
    `locate(data_dir)` finds the raw rows, `encode(columns, tokenizer, max_length, training)`
    tokenises a split and `score(split, logits, encoded)` judges the logits of one.
    """

    name: str
    output: Output
    labels: tuple[str, ...]
    words: tuple[str, ...]
    metrics: tuple[str, ...]
    train: str
    evaluation: tuple[str, ...]
    official: Mapping[str, int]
    locate: Callable[[str | None], Source]
    encode: Callable[[Mapping[str, Sequence[Any]], Any, int, bool], Encoded]
    score: Callable[[str, Any, Encoded], Scores]

    @property
    def outputs(self) -> int:
        """Logits per place."""
        return len(self.words)

    def notes(self, source: Source) -> list[str]:
        """What to know wherever a score is shown: splits that are smaller or missing."""
        notes = []
        for split, official in self.official.items():
            if split not in source.rows:
                notes.append(f"{self.name}: no {split} set here, its metric is missing")
            elif source.rows[split] != official:
                notes.append(
                    f"{self.name}: {split} has {source.rows[split]:,} of {official:,} rows"
                )
        return notes


def label_notes(task: Task, checkpoint: Checkpoint) -> list[str]:
    """A note if the checkpoint was trained on the task's classes in another order, by name. Its own
    classification head is never used, so nothing goes wrong; a reader should know."""
    theirs, ours = ([name.lower() for name in names] for names in (checkpoint.labels, task.labels))
    if theirs == ours or sorted(theirs) != sorted(ours):
        return []
    return [
        f"{task.name}: the checkpoint's labels are {', '.join(theirs)}, the data's"
        f" {', '.join(ours)}; its own head is not used"
    ]


@dataclass(frozen=True)
class TaskData:
    """A task's tokenised splits."""

    train: Encoded
    evaluation: Mapping[str, Encoded]


TOKENISING = 1
"""Counted up whenever the code that tokenises changes what it gives; part of the cache's key."""


def encoding(task: Task) -> dict[str, object]:
    """What stands for the code that tokenises in the keys of caches: a version, and the file that
    defines the task's own part, which may be a user's."""
    function = task.encode
    while isinstance(function, partial):
        function = function.func
    own = Path(inspect.getfile(function)).read_bytes()
    return {"version": TOKENISING, "code": hashlib.sha256(own).hexdigest()}


def prepare(
    task: Task, source: Source, checkpoint: Checkpoint, max_length: int, folder: Path
) -> TaskData:
    """The tokenised splits of a task, from the cache in `folder` or made and stored there."""

    def split(name: str) -> Encoded:
        def make() -> Contents:
            tokenizer = load_tokenizer(checkpoint)
            try:
                encoded = task.encode(source.read(name), tokenizer, max_length, name == task.train)
            except ConfigError as error:
                raise ConfigError(f"data {source.places[name]}: {error}") from None
            arrays = {key: getattr(encoded, key) for key in ("tokens", "types", "bounds", "labels")}
            return {**arrays, **encoded.arrays}, encoded.texts

        key = {
            "task": task.name,
            "split": name,
            "data": source.fingerprint,
            "tokeniser": checkpoint.tokenizer_sha,
            "max_length": max_length,
            **encoding(task),
        }
        arrays, texts = cached(folder, key, make)
        own = {k: arrays[k] for k in ("tokens", "types", "bounds", "labels")}
        return Encoded(**own, arrays={k: v for k, v in arrays.items() if k not in own}, texts=texts)

    there = [name for name in task.evaluation if name in source.rows]
    return TaskData(split(task.train), {name: split(name) for name in there})


def collate(
    data: Encoded, rows: Sequence[int] | np.ndarray, pad: int, device: torch.device
) -> Batch:
    """The examples `rows`, padded to the longest of them, and packed."""
    starts, ends = data.bounds[rows], data.bounds[np.asarray(rows) + 1]
    lengths = ends - starts
    longest = int(lengths.max())
    inside = np.arange(longest)[None, :] < lengths[:, None]
    places = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    tokens = np.full((len(rows), longest), pad, dtype=np.int64)
    types = np.zeros((len(rows), longest), dtype=np.int64)
    tokens[inside] = data.tokens[places]
    types[inside] = data.types[places]

    def to(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if device.type == "cuda":  # from pinned memory the host need not wait for the copy
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    packed = pack(lengths)
    return Batch(
        to(np.asarray(rows, dtype=np.int64)),
        to(tokens),
        to(types),
        to(inside),
        to(data.labels[rows]),
        None if packed is None else Packing(*map(to, packed)),
    )


def shuffled(examples: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of rows, each epoch in a new random order; an epoch's last may be short."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(examples)
        yield from (order[i : i + batch] for i in range(0, examples, batch))


def by_length(data: Encoded, batch: int) -> Iterator[np.ndarray]:
    """Batches of rows in the order of their lengths, so that little is padding."""
    order = np.argsort(data.lengths, kind="stable")
    yield from (order[i : i + batch] for i in range(0, len(order), batch))
