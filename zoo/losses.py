"""Addends of the loss: the task's own, distillation, contrastive terms; and penalties on scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.gates import SHIFT
from zoo.schedules import Schedule

if TYPE_CHECKING:
    from zoo.task import Task


@dataclass(frozen=True)
class Bank:
    """One frozen vector per training example: `vectors` (examples, hidden), rows of L2 norm 1."""

    vectors: Tensor


@dataclass(frozen=True)
class Step:
    """What a loss may read of one training step; B examples of the batch, C classes.

    `logits` (B, C), or (B, tokens, 2) for spans, with `labels` (B,), (B,) or (B, 2);
    `representation` (B, hidden) of the student before any dropout of the head; `rows` (B,) the
    examples' places in the training set; `teacher` the teacher's logits for the batch, shaped like
    `logits`; `banks` by name; `classes` (examples,) the labels of the whole training set;
    `generator` draws what a loss needs at random, apart from every other stream.
    """

    task: "Task"
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
    """One addend of the loss: weight * value(step).

    `needs` names the frozen outputs over the training set that `value` reads: "teacher" for the
    teacher's logits, "pretrained" and "finetuned" for banks of representations.
    """

    value: Callable[[Step], Tensor]
    weight: float = 1.0
    needs: frozenset[str] = frozenset()


def task_loss(step: Step) -> Tensor:
    """The task's own loss: cross-entropy, squared error, or the mean over start and end."""
    return step.task.output.loss(step.logits, step.labels)


@dataclass(frozen=True)
class Distillation:
    """T^2 KL(teacher || student) at temperature T, averaged over the batch (Hinton 2015).

    Differs from SMP, Eq. 7, which prints KL(student || teacher): all released code computes this.
    Spans: the mean over start and end. Regression: squared error to the teacher's output, since a
    softmax over one logit is constant.
    """

    temperature: float = 2.0

    def __call__(self, step: Step) -> Tensor:
        assert step.teacher is not None
        return step.task.output.distillation(step.logits, step.teacher, self.temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) over the last axis, else mean."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return temperature**2 * kl.sum(-1).mean()


@dataclass(frozen=True)
class Contrast:
    """Contrastive loss of the batch against banks of frozen representations (CAP, Xu et al. 2022).

    Anchors are the student's representations of the batch. Columns are, for each bank: the batch's
    own student representations (detached), the bank's vectors of the batch's examples, and those of
    up to `extras` other training examples; similarities over `temperature`, an anchor's own column
    left out. `same` says which columns are positives: those of the same example, or of the same
    class. With P(i) the positives of anchor i, the loss of a bank is
    - sum_i (1/|P(i)|) sum_{p in P(i)} log softmax_p / sum_i |P(i)|: the released reduction, which
    divides by the number of positives twice. The sum over banks is returned.
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
        """Rows of random training examples outside the batch, without repetition."""
        examples = len(step.classes)
        order = torch.randperm(examples, generator=step.generator).to(step.rows.device)
        order = order[~torch.isin(order, step.rows)]
        return order[: self.extras]

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
    """(B, columns): whether a column belongs to the anchor's own example."""
    return step.rows[:, None] == rows[None, :]


def same_class(step: Step, rows: Tensor) -> Tensor:
    """(B, columns): whether a column's example has the anchor's class."""
    return step.classes[step.rows][:, None] == step.classes[rows][None, :]


@dataclass(frozen=True)
class Penalty:
    """A regulariser R of the scores in closed form, added to the loss with weight lambda(step).

    `value` takes all scores by name. `gradient(S, n)` is dR/dS for one of n score tensors.
    """

    value: Callable[[Mapping[str, Tensor]], Tensor]
    gradient: Callable[[Tensor, int], Tensor]
    weight: Schedule


def mean_sigmoid(scores: Mapping[str, Tensor]) -> Tensor:
    """R: the mean over matrices of the mean of sigmoid(S), in (0, 1).

    Differs from the papers (Sanh 2020, section 4; SMP, Eq. 6), which write a sum: this is the
    released code, and lambda = 400 belongs to it.
    """
    return torch.stack([torch.sigmoid(s).mean() for s in scores.values()]).mean()


def mean_sigmoid_gradient(score: Tensor, matrices: int) -> Tensor:
    """sigmoid'(S) / (matrices * numel)."""
    p = torch.sigmoid(score.detach())
    each = p.new_full((), 1 / (matrices * score.numel())).expand_as(p)
    torch.ops.aten.sigmoid_backward.grad_input(each, p, grad_input=p)
    return p


def expected_l0(scores: Mapping[str, Tensor]) -> Tensor:
    """R: the mean over matrices of the mean probability that a hard-concrete gate is not zero."""
    return mean_sigmoid({name: s - SHIFT for name, s in scores.items()})


def expected_l0_gradient(score: Tensor, matrices: int) -> Tensor:
    """d expected_l0 / dS of one matrix."""
    return mean_sigmoid_gradient(score - SHIFT, matrices)
