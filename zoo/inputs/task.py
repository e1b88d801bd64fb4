"""What a task is: its data, its kind of output, its label words and its metrics.

An adapter in tasks/ registers a factory `() -> Task`. Reading, tokenising and evaluating are the
adapter's functions; batches are made in zoo/inputs/batches.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from zoo.inputs.batches import Encoded
from zoo.inputs.checkpoint import Checkpoint


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) against class numbers (B,)."""
    return F.cross_entropy(logits, labels)


def regression_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error of logits (B, 1) against targets (B,)."""
    return F.mse_loss(logits.squeeze(-1), labels)


def span_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the cross-entropies of start and end: logits (B, tokens, 2), labels (B, 2)."""
    return F.cross_entropy(logits, labels)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over the last axis and averaged
    over the others (Hinton et al. 2015).

    >>> import torch
    >>> from zoo import divergence
    >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]), 2.0)
    tensor(0.)
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return temperature**2 * kl.sum(-1).mean()


def span_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The divergence over positions, averaged over start and end; both (B, tokens, 2)."""
    return divergence(student.transpose(1, 2), teacher.transpose(1, 2), temperature)


def regression_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared error to the teacher's output; the temperature is not used."""
    return F.mse_loss(student, teacher)


@dataclass(frozen=True)
class Output:
    """A kind of output: where logits are read and how they are compared.

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
class Source:
    """Where a task's raw rows come from: the hub, a local folder, or the project itself.

    `name` is for people; `fingerprint` changes with the content; `rows` counts the rows of each
    split, without evaluation splits that are missing; `locations` names each split's file or
    repository in messages; `read(split)` returns columns by name.
    """

    name: str
    fingerprint: str
    rows: Mapping[str, int]
    locations: Mapping[str, str]
    read: Callable[[str], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Evaluation:
    """Metrics in percent by name, None where undefined; for each example whether the answer was
    correct, None where answers are not right or wrong; and what was answered, so that the metrics
    can be computed on other examples: the class, the value, or the F1 of a text in [0, 1]."""

    metrics: dict[str, float | None]
    correct: np.ndarray | None
    answers: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    `labels` names the classes in the order of their numbers; `words` are the label words in the
    order of the logits. `metrics` are shown in this order; the first one selects the best
    evaluation. `train` and `evaluation` name splits; `official` holds their official row counts.

    `locate(data_dir)` finds the raw rows; `encode(columns, tokenizer, max_length, training)`
    tokenises a split; `evaluate(split, logits, encoded)` computes the metrics of a split.
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
    evaluate: Callable[[str, Any, Encoded], Evaluation]

    @property
    def logits(self) -> int:
        """Logits per example, or per token: the number of label words."""
        return len(self.words)

    def is_whole(self, source: Source) -> bool:
        """Whether every split has its official number of rows."""
        return all(source.rows.get(split) == rows for split, rows in self.official.items())

    def notes(self, source: Source) -> list[str]:
        """What a reader should know wherever a metric is shown: splits that are smaller than the
        official ones, or missing."""
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
    """A note if the checkpoint was trained on the task's classes in another order, judged by their
    names. Its classification head is never used, so nothing goes wrong."""
    theirs, ours = ([name.lower() for name in names] for names in (checkpoint.labels, task.labels))
    if theirs == ours or sorted(theirs) != sorted(ours):
        return []
    return [
        f"{task.name}: the checkpoint's labels are {', '.join(theirs)}, the data's"
        f" {', '.join(ours)}; its own head is not used"
    ]
