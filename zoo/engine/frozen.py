"""Outputs of a network over a whole split: for evaluation, and of frozen models for losses.

A teacher's logits and the representations of frozen models are computed once over the training set
in evaluation mode, and kept in the cache as memory-mapped arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine.build import Run
from zoo.errors import TrialError
from zoo.inputs.batches import Batch, Encoded, by_length, collate, sent
from zoo.inputs.cache import Contents, cached, code_of, forget, is_cached
from zoo.inputs.task import Task
from zoo.inputs.tokenised import encoding
from zoo.parts.heads import HIDDEN_PADDING, Network
from zoo.parts.losses import Bank
from zoo.parts.method import Method
from zoo.status import tell

EVALUATION_BATCH, ON_A_GPU = 64, 256
"""Examples of a batch in evaluation. A GPU takes more at once, and the host launches less."""
OUTPUTS = "outputs over the training set"


@dataclass(frozen=True)
class Frozen:
    """Outputs of frozen models over the training set that losses read: the teacher's logits, banks
    of representations by name, and the labels of all training examples; and the parameters that
    return once the weights of a dense trial made masks, by name."""

    logits: np.ndarray | None = None
    banks: Mapping[str, Bank] = field(default_factory=dict)
    classes: Tensor = field(default_factory=lambda: torch.zeros(1))
    start: Mapping[str, Tensor] = field(default_factory=dict)


def load_frozen(run: Run, cache: Path) -> Frozen:
    """Load or compute only what the method's losses need, and put the weights of a dense trial into
    the network where training starts from them. Raises TrialError if the teacher has not stored its
    outputs or weights."""
    needs, banks = run.method.needs, {}
    if "pretrained" in needs:
        arrays = outputs_of(cache, _start_key(run), run.network, run.data.train)
        banks["pretrained"] = bank(arrays, run.device)
    arrays = {}
    if needs & {"teacher", "finetuned"}:
        read = examples_read(run.method, run.steps, run.trial.train.batch)
        arrays = load_outputs(cache, run.trial.teacher, run.task, read)
    start = {}
    if run.method.dense and run.method.dense.rewinds:
        start = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    if "weights" in needs:
        load_weights(cache, run.trial.teacher, run.network)
    if "finetuned" in needs:
        banks["finetuned"] = bank(arrays, run.device)
    logits = arrays["logits"] if "teacher" in needs else None
    classes = torch.from_numpy(np.array(run.data.train.labels)).to(run.device)
    return Frozen(logits, banks, classes, start)


def _start_key(run: Run) -> dict[str, object]:
    """What the representations before the first step depend on; a fresh pooler on the seed."""
    trial = run.trial
    return {
        "model": trial.model_sha,
        "data": trial.data_sha,
        "task": trial.task,
        "encoding": encoding(run.task),
        "max_length": trial.train.max_length,
        "head": run.method.head.name,
        "start": code_of(run.method.start),
        "seed": trial.seed,
    }


@torch.no_grad()
def predict(
    network: Network,
    data: Encoded,
    *,
    representations: bool = False,
    only: np.ndarray | None = None,
    what: str = "evaluating",
) -> Mapping[str, np.ndarray]:
    """`logits` in float32, (n, C), or (sum of lengths, 2) for spans, in the order of the examples;
    with `representations=True` also the representations, (n, hidden), of L2 norm 1, in float16.
    Rows that are not among `only` are left at 0. `what` is shown while it runs."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    found: dict[str, np.ndarray] = {}
    many, done = len(data) if only is None else len(only), 0
    batch_size = ON_A_GPU if device.type == "cuda" else EVALUATION_BATCH
    for rows in by_length(data, batch_size, only):
        done += len(rows)
        tell(lambda: f"{what}, example {done:,} of {many:,}")  # noqa: B023 - called at once
        batch = collate(data, rows, network.pad, device, packs=network.architecture.packs)
        logits, representation = network(batch)
        if logits.dim() == 3:
            tokens = data.flat_indices(rows)
            _put(found, "logits", int(data.bounds[-1]), tokens, logits[batch.attention])
        else:
            _put(found, "logits", len(data), rows, logits)
        if representations:
            unit = F.normalize(representation, dim=-1).half()
            _put(found, "representations", len(data), rows, unit)
    network.train(was_training)
    return found


def _put(
    found: dict[str, np.ndarray], name: str, size: int, indices: np.ndarray, values: Tensor
) -> None:
    array = values.cpu().numpy()
    if name not in found:
        found[name] = np.zeros((size, *array.shape[1:]), array.dtype)
    found[name][indices] = array


def outputs_of(
    cache: Path, key: Mapping[str, object], network: Network, data: Encoded
) -> Mapping[str, np.ndarray]:
    """Logits and representations of a frozen network over a split, computed once per key."""

    def make() -> Contents:
        return predict(network, data, representations=True, what=OUTPUTS), None

    return cached(cache, {"outputs": dict(key)}, make)[0]


def _teacher_key(teacher: str) -> Mapping[str, object]:
    """The key of a dense trial's outputs over its training set. The trial's id covers its model,
    tokeniser, data and length; rows are in the order of the training set."""
    return {"outputs": {"teacher": teacher}}


def examples_read(method: Method, steps: int, batch: int) -> int | None:
    """How many examples of the first epoch a student reads in so many steps; None if it reads the
    representations of the whole training set."""
    if "finetuned" in method.needs:
        return None
    return steps * batch if "teacher" in method.needs else 0


def has_outputs(cache: Path, teacher: str, read: int | None) -> bool:
    """Whether a dense trial has stored its outputs of the first `read` examples, None of all."""
    key = _teacher_key(teacher)
    return is_cached(cache, key) and _covers(cached(cache, key, _nothing)[1], read)


def _nothing() -> Contents:
    """What is stored where a cache was damaged a moment ago: outputs of no example."""
    return {}, {"examples": 0}


def _covers(stored: Any, read: int | None) -> bool:
    kept = stored.get("examples")
    return kept is None or (read is not None and read <= kept)


def store_outputs(
    cache: Path,
    teacher: str,
    network: Network,
    task: Task,
    data: Encoded,
    only: np.ndarray | None = None,
) -> None:
    """Compute and store a dense trial's outputs over its training set for its students; `only`
    those of the examples that they read first, in the order of training."""

    def make() -> Contents:
        arrays = predict(network, data, representations=True, only=only, what=OUTPUTS)
        kept = None if only is None else len(only)
        return arrays, {"labels": list(task.labels), "examples": kept}

    if not has_outputs(cache, teacher, None if only is None else len(only)):
        forget(cache, _teacher_key(teacher))
    cached(cache, _teacher_key(teacher), make)


def load_outputs(
    cache: Path, teacher: str, task: Task, read: int | None = None
) -> Mapping[str, np.ndarray]:
    """Outputs that a dense trial stored for its students. Raises TrialError if there are none, if
    they are of fewer examples than the first `read` (None: all), or if its classes are in another
    order than the task's."""

    def missing() -> Contents:
        raise TrialError(f"its teacher {teacher} left no outputs: see why that trial failed")

    arrays, stored = cached(cache, _teacher_key(teacher), missing)
    if not _covers(stored, read):
        raise TrialError(
            f"its teacher {teacher} left outputs of {stored['examples']:,} examples, which are too"
            " few: run again"
        )
    if stored["labels"] != list(task.labels):
        raise TrialError(
            f"its teacher {teacher} has the classes {stored['labels']}, the task"
            f" {list(task.labels)}"
        )
    return arrays


def _weights_key(teacher: str) -> Mapping[str, object]:
    """The key of a dense trial's weights, whose shapes and values its id covers."""
    return {"weights": {"teacher": teacher}}


def has_weights(cache: Path, teacher: str) -> bool:
    """Whether a dense trial has stored its weights."""
    return is_cached(cache, _weights_key(teacher))


def store_weights(cache: Path, teacher: str, network: Network) -> None:
    """Store all parameters of a dense trial, its head's too, for trials that start from them."""

    def make() -> Contents:
        named = dict(network.named_parameters())
        flat = torch.cat([p.detach().float().flatten() for p in named.values()])
        return {"flat": flat.cpu().numpy()}, {n: list(p.shape) for n, p in named.items()}

    cached(cache, _weights_key(teacher), make)


@torch.no_grad()
def load_weights(cache: Path, teacher: str, network: Network) -> None:
    """Put the weights that a dense trial stored into a network. Raises TrialError if there are
    none, or if they are of another network."""

    def missing() -> Contents:
        raise TrialError(f"its dense trial {teacher or 'is not named and'} left no weights")

    arrays, shapes = cached(cache, _weights_key(teacher), missing)
    named = dict(network.named_parameters())
    if shapes != {name: list(p.shape) for name, p in named.items()}:
        raise TrialError(f"its dense trial {teacher} has other parameters, or another head")
    flat = torch.from_numpy(np.array(arrays["flat"]))
    for parameter, part in zip(
        named.values(), flat.split([p.numel() for p in named.values()]), strict=True
    ):
        parameter.copy_(part.view_as(parameter))


def bank(arrays: Mapping[str, np.ndarray], device: torch.device) -> Bank:
    """Stored representations, on the device."""
    return Bank(torch.from_numpy(np.array(arrays["representations"])).to(device))


def teacher_logits(logits: np.ndarray, data: Encoded, batch: Batch) -> Tensor:
    """The teacher's logits for a batch in the shape of the student's; spans are padded alike."""
    rows, device = batch.host_rows, batch.tokens.device
    if len(logits) == len(data) and batch.labels.dim() == 1:
        return sent(logits[rows], device)
    padded = np.full((*batch.inside.shape, logits.shape[-1]), HIDDEN_PADDING, dtype=logits.dtype)
    padded[batch.inside] = logits[data.flat_indices(rows)]
    return sent(padded, device)
