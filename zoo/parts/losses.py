"""Terms of the loss: the task's own, distillation, contrastive terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError, unknown
from zoo.inputs.task import Task

FROZEN = ("teacher", "pretrained", "finetuned")
"""Frozen outputs over the training set, by the names that a loss's `needs` gives."""


@dataclass(frozen=True)
class Bank:
    """One frozen vector per training example: `vectors` (examples, hidden), each of L2 norm 1."""

    vectors: Tensor


@dataclass(frozen=True)
class Step:
    """What a loss may read of one pass of a training step; B examples in the batch, C classes.

    The batch is all of a step's examples, or a part of them where training has `accumulation`:
    the loss of a step is then the mean of its passes' losses, weighted by their examples.
    `logits` (B, C), or (B, tokens, 2) for spans, with `labels` (B,), or (B, 2) for spans.
    `representation` (B, hidden) of the student, before any dropout of the head. `rows` (B,): the
    examples' indices in the training set. `classes`: the labels of the whole training set,
    (examples,), or (examples, 2) for spans. `teacher`: the teacher's logits for the batch, in the
    shape of `logits`. `banks` by name.
    `generator` draws random numbers for losses, independently of all other random numbers, on the
    device.
    """

    task: Task
    logits: Tensor
    labels: Tensor
    representation: Tensor
    rows: Tensor
    generator: torch.Generator
    classes: Tensor
    teacher: Tensor | None = None
    banks: Mapping[str, Bank] = field(default_factory=dict)


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss: weight * value(step).

    `needs` names the frozen outputs over the training set that `value` reads: "teacher" for the
    teacher's logits, "pretrained" and "finetuned" for banks of representations. Raises ConfigError
    for another name.

    >>> from zoo import LossTerm, task_loss
    >>> LossTerm(task_loss, weight=0.5).needs
    frozenset()
    """

    value: Callable[[Step], Tensor]
    weight: float = 1.0
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in self.needs:
            if name not in FROZEN:
                raise ConfigError(unknown("frozen output", str(name), FROZEN))


def task_loss(step: Step) -> Tensor:
    """The task's own loss: cross-entropy, squared error, or the mean over start and end.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from zoo import task_loss
    >>> from zoo.inputs.task import CLASSES
    >>> step = SimpleNamespace(task=SimpleNamespace(output=CLASSES),
    ...     logits=torch.zeros(4, 2), labels=torch.tensor([0, 1, 0, 1]))
    >>> task_loss(step)
    tensor(0.6931)
    """
    return step.task.output.loss(step.logits, step.labels)


@dataclass(frozen=True)
class Distillation:
    """T^2 KL(teacher || student) at temperature T, averaged over the batch (Hinton et al. 2015).

    Differs from the paper (SMP, Eq. 7), which prints KL(student || teacher): all released code
    computes this direction. Spans: the mean over start and end. Regression: squared error to the
    teacher's output, since a softmax over one logit is constant.

    >>> from zoo import Distillation, LossTerm
    >>> LossTerm(Distillation(temperature=2.0), 0.9, frozenset({"teacher"})).weight
    0.9
    """

    temperature: float = 2.0

    def __call__(self, step: Step) -> Tensor:
        assert step.teacher is not None
        return step.task.output.distillation(step.logits, step.teacher, self.temperature)


@dataclass(frozen=True)
class Contrast:
    """Contrastive loss of the batch against banks of frozen representations (CAP, Xu et al. 2022).

    Anchors are the student's representations of the batch. Columns are, for each bank: the
    student's representations of the batch (detached), the bank's vectors of the batch, and those of
    up to `extras` other training examples. Similarities are divided by `temperature`; an anchor's
    own column is left out. `same` says which columns are positives: those of the same example, or
    of the same class. With P(i) the positives of anchor i, the loss of a bank is
    - sum_i (1/|P(i)|) sum_{p in P(i)} log softmax_p / sum_i |P(i)|: the released reduction, which
    divides by the number of positives twice. The banks' losses are added. With `accumulation` the
    batch is that of a pass: anchors meet the student's representations of their pass alone.

    >>> from zoo import Contrast, LossTerm, same_class
    >>> banks = frozenset({"pretrained", "finetuned"})
    >>> LossTerm(Contrast(same_class, extras=1024), 10.0, banks).value.temperature
    0.1
    """

    same: Callable[[Step, Tensor], Tensor]
    banks: tuple[str, ...] = ("pretrained", "finetuned")
    extras: int = 4096
    temperature: float = 0.1

    def __call__(self, step: Step) -> Tensor:
        anchors = F.normalize(step.representation, dim=-1)
        others = self._others(step)
        rows = torch.cat([step.rows, step.rows, others])
        positive = self.same(step, rows)
        positive.fill_diagonal_(False)
        terms = [
            self._against(step.banks[b], anchors, step.rows, others, positive) for b in self.banks
        ]
        return torch.stack(terms).sum()

    def _others(self, step: Step) -> Tensor:
        """Indices of random training examples outside the batch, without repetition."""
        examples, batch, device = len(step.classes), len(step.rows), step.rows.device
        where = step.generator.device
        order = torch.randperm(examples, generator=step.generator, device=where).to(device)
        order = order[: self.extras + batch]
        last = torch.isin(order, step.rows).to(torch.uint8)  # no filter: its size is the host's
        return order[last.argsort(stable=True)[: min(self.extras, examples - batch)]]

    def _against(
        self, bank: Bank, anchors: Tensor, rows: Tensor, others: Tensor, positive: Tensor
    ) -> Tensor:
        vectors = bank.vectors[torch.cat([rows, others])].to(anchors.dtype)
        columns = torch.cat([anchors.detach(), vectors])
        similarity = anchors @ columns.T / self.temperature
        own = torch.eye(len(anchors), len(columns), dtype=torch.bool, device=anchors.device)
        log_p = F.log_softmax(similarity.masked_fill(own, -1e6), dim=-1)
        number = positive.sum(-1)
        per_anchor = (log_p * positive).sum(-1) / number.clamp(min=1)
        return -per_anchor.sum() / number.sum().clamp(min=1)


def same_example(step: Step, rows: Tensor) -> Tensor:
    """Whether each column belongs to the anchor's own example, (B, columns).

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from zoo import same_example
    >>> same_example(SimpleNamespace(rows=torch.tensor([4, 7])), torch.tensor([7, 4, 1]))
    tensor([[False,  True, False],
            [ True, False, False]])
    """
    return step.rows[:, None] == rows[None, :]


def same_class(step: Step, rows: Tensor) -> Tensor:
    """Whether each column's example has the anchor's class, (B, columns).

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from zoo import same_class
    >>> step = SimpleNamespace(rows=torch.tensor([0]), classes=torch.tensor([1, 0, 1]))
    >>> same_class(step, torch.tensor([0, 1, 2]))
    tensor([[ True, False,  True]])
    """
    return step.classes[step.rows][:, None] == step.classes[rows][None, :]
