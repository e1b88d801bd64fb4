"""What a model says over a whole split: for evaluation, and frozen for the losses that read it.

A teacher's logits and the representations of frozen models are computed once over the training set
in evaluation mode, and kept in the cache as memory-mapped arrays.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.cache import Contents, cached, place_of
from zoo.errors import TrialError
from zoo.heads import HIDDEN_PADDING, Network
from zoo.losses import Bank
from zoo.task import Batch, Encoded, Task, by_length, collate

EVALUATION_BATCH = 64


@torch.no_grad()
def outputs(
    network: Network, data: Encoded, *, representations: bool = False
) -> Mapping[str, np.ndarray]:
    """`logits` in float32, (n, C), or (sum of lengths, 2) for spans, in the order of the examples;
    with `representations` also those, (n, hidden) of L2 norm 1, in float16."""
    device = next(network.parameters()).device
    pad = network.encoder.config.pad_token_id or 0
    was_training = network.training
    network.eval()
    found: dict[str, np.ndarray] = {}
    for rows in by_length(data, EVALUATION_BATCH):
        batch = collate(data, rows, pad, device)
        logits, representation = network(batch)
        if logits.dim() == 3:
            _put(
                found, "logits", int(data.bounds[-1]), _places(data, rows), logits[batch.attention]
            )
        else:
            _put(found, "logits", len(data), rows, logits)
        if representations:
            _put(
                found,
                "representations",
                len(data),
                rows,
                F.normalize(representation, dim=-1).half(),
            )
    network.train(was_training)
    return found


def _put(
    found: dict[str, np.ndarray], name: str, size: int, places: np.ndarray, values: Tensor
) -> None:
    array = values.cpu().numpy()
    if name not in found:
        found[name] = np.zeros((size, *array.shape[1:]), array.dtype)
    found[name][places] = array


def _places(data: Encoded, rows: np.ndarray) -> np.ndarray:
    """Where the tokens of `rows` stand in the flat arrays."""
    return np.concatenate([np.arange(data.bounds[row], data.bounds[row + 1]) for row in rows])


def outputs_of(
    cache: Path, key: Mapping[str, object], network: Network, data: Encoded
) -> Mapping[str, np.ndarray]:
    """The outputs and representations of a frozen network over a split, made once per key."""

    def make() -> Contents:
        return outputs(network, data, representations=True), None

    return cached(cache, {"outputs": dict(key)}, make)[0]


def _teacher_key(teacher: str) -> Mapping[str, object]:
    """The key of what a dense trial says over its training set. A trial's id stands for its model,
    tokeniser, data and length; rows are in the order of the training set."""
    return {"outputs": {"teacher": teacher}}


def has_outputs(cache: Path, teacher: str) -> bool:
    """Whether a dense trial's outputs are there."""
    return (place_of(cache, _teacher_key(teacher)) / "value.json").exists()


def leave_outputs(cache: Path, teacher: str, network: Network, task: Task, data: Encoded) -> None:
    """Compute and keep what a dense trial says over its training set, for its students."""

    def make() -> Contents:
        return outputs(network, data, representations=True), {"labels": list(task.labels)}

    cached(cache, _teacher_key(teacher), make)


def load_outputs(cache: Path, teacher: str, task: Task) -> Mapping[str, np.ndarray]:
    """What a dense trial left for its students; raises TrialError if it left nothing, or if its
    classes stand in another order than the task's."""

    def missing() -> Contents:
        raise TrialError(f"its teacher {teacher} left no outputs: see why that trial failed")

    arrays, facts = cached(cache, _teacher_key(teacher), missing)
    if facts["labels"] != list(task.labels):
        raise TrialError(
            f"its teacher {teacher} has the classes {facts['labels']}, the task {list(task.labels)}"
        )
    return arrays


def bank(arrays: Mapping[str, np.ndarray], device: torch.device) -> Bank:
    """The representations of frozen outputs, on the device."""
    return Bank(torch.from_numpy(np.array(arrays["representations"])).to(device))


def teacher_logits(logits: np.ndarray, data: Encoded, batch: Batch) -> Tensor:
    """The teacher's logits for a batch, shaped like the student's; spans padded as they are."""
    rows = batch.rows.cpu().numpy()
    if len(logits) == len(data) and batch.labels.dim() == 1:
        return torch.from_numpy(logits[rows]).to(batch.tokens.device)
    real = torch.from_numpy(logits[_places(data, rows)])
    padded = torch.full((*batch.tokens.shape, logits.shape[-1]), HIDDEN_PADDING, dtype=real.dtype)
    padded[batch.attention.cpu()] = real
    return padded.to(batch.tokens.device)
