"""Penalties on scores, in closed form."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.parts.gates import SHIFT
from zoo.parts.schedules import Schedule


def every(scores: Collection[Tensor], score: Tensor) -> int:
    """How many score tensors there are.

    >>> import torch
    >>> from zoo.parts.penalties import every
    >>> every([torch.zeros(2), torch.zeros(2, 2)], torch.zeros(2))
    2
    """
    return len(scores)


@dataclass(frozen=True)
class Penalty:
    """A regulariser R of the scores in closed form, with weight lambda(step) in the objective.

    Training adds lambda * `gradient(S, n)` to the scores' gradients, dR/dS for one of n score
    tensors; n is `among(all of them, S)`, by default how many there are, where R is not a mean over
    all. `value`, R itself, takes all scores by name; it defines R and is part of no recorded loss.
    Where the schedule `weight` returns None, the last lambda stays.

    >>> from zoo import Penalty, Ramp, mean_sigmoid, mean_sigmoid_gradient
    >>> rising = Ramp(0.0, 400.0, 0.0, 1.0, power=3)
    >>> Penalty(mean_sigmoid, mean_sigmoid_gradient, rising).weight(50, 100)
    350.0
    """

    value: Callable[[Mapping[str, Tensor]], Tensor]
    gradient: Callable[[Tensor, int], Tensor]
    weight: Schedule
    among: Callable[[Collection[Tensor], Tensor], int] = every

    def of(self, score: Tensor, every_score: Collection[Tensor]) -> Tensor:
        """`gradient` for one of the score tensors."""
        return self.gradient(score, self.among(every_score, score))

    def gradients(self, scores: Sequence[Tensor], every_score: Collection[Tensor]) -> Tensor:
        """`gradient` for several of the score tensors, which have one shape, stacked: at once if it
        is a `SigmoidGradient`, else one after another."""
        tensors = self.among(every_score, scores[0])
        if isinstance(self.gradient, SigmoidGradient):
            return self.gradient.stacked(torch.stack([*scores]), tensors)
        return torch.stack([self.gradient(s, tensors).expand_as(s) for s in scores])


@dataclass(frozen=True)
class SigmoidGradient:
    """The derivative, for one of n score tensors, of the mean over tensors of the mean of
    sigmoid(S - shift): sigmoid'(S - shift) / (n * numel).

    >>> import torch
    >>> from zoo import SigmoidGradient
    >>> SigmoidGradient()(torch.zeros(1, 5), 1)
    tensor([[0.0500, 0.0500, 0.0500, 0.0500, 0.0500]])
    """

    shift: float = 0.0

    def __call__(self, score: Tensor, tensors: int) -> Tensor:
        return self._each(score.detach(), score.shape, tensors)

    def stacked(self, scores: Tensor, tensors: int) -> Tensor:
        """The same for several of the tensors, which have one shape, stacked."""
        return self._each(scores.detach(), scores.shape[1:], tensors)

    def _each(self, scores: Tensor, shape: torch.Size, tensors: int) -> Tensor:
        p = (scores - self.shift).sigmoid_() if self.shift else torch.sigmoid(scores)
        each = p.new_full((), 1 / (tensors * shape.numel())).expand_as(p)
        torch.ops.aten.sigmoid_backward.grad_input(each, p, grad_input=p)
        return p


def mean_sigmoid(scores: Mapping[str, Tensor]) -> Tensor:
    """The mean over matrices of the mean of sigmoid(S), in (0, 1).

    Differs from the papers (Sanh et al. 2020, section 4; SMP, Eq. 6), which write a sum: the
    released code computes this mean, and the published lambda = 400 is meant for it.

    >>> import torch
    >>> from zoo import mean_sigmoid
    >>> mean_sigmoid({"a": torch.zeros(2, 2), "b": torch.zeros(9)})
    tensor(0.5000)
    """
    return torch.stack([torch.sigmoid(s).mean() for s in scores.values()]).mean()


mean_sigmoid_gradient = SigmoidGradient()
"""The derivative of `mean_sigmoid` for one matrix."""


def expected_l0(scores: Mapping[str, Tensor]) -> Tensor:
    """The mean over matrices of the mean probability that a hard-concrete gate is not zero
    (Louizos et al. 2018, Eq. 12; the mean as in the released code of Sanh et al. 2020).

    >>> import torch
    >>> from zoo import expected_l0
    >>> expected_l0({"a": torch.full((4, 4), 2.197)})
    tensor(0.9780)
    """
    return mean_sigmoid({name: s - SHIFT for name, s in scores.items()})


expected_l0_gradient = SigmoidGradient(SHIFT)
"""The derivative of `expected_l0` for one matrix."""
