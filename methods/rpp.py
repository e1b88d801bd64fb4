"""Reweighted proximal pruning in fine-tuning, after the idea of Guo et al. 2019.

Neither their text with its equations nor their code could be had: what is here is ours.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.magnitude import magnitude
from methods.published import DRIVEN, WEIGHTS
from zoo import (
    ConfigError,
    Method,
    Moment,
    Score,
    Staircase,
    magnitude_of,
    nonzero,
    register_method,
    stay_zero,
)

UNIT = 1e-3
"""Penalties are gamma in thousandths, so that they are of the size of other methods' penalties."""


def ones(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Ones: the first alpha."""
    return torch.ones_like(weight)


@dataclass(frozen=True)
class Shrinking:
    """After each optimiser step w <- sign(w) max(abs(w) - eta gamma alpha, 0), with eta the
    learning rate of the step; alpha is the stored score.

    It ends at the fraction `stop` of the run. After each of `rounds` equal parts of its steps but
    the last, alpha <- 1 / (abs(w) + offset).
    """

    gamma: float
    offset: float
    rounds: int
    stop: float

    def __call__(self, layer: Any, moment: Moment) -> None:
        last = round(self.stop * moment.total)
        if moment.step > last:
            return
        weight, alpha = layer.weight, layer.score
        most = moment.rate * self.gamma * alpha
        weight.sub_(weight.clamp(-most, most))
        if moment.step in (round(i * last / self.rounds) for i in range(1, self.rounds)):
            alpha.copy_(1 / (weight.abs() + self.offset))


@register_method(
    "rpp",
    recipe="magnitude",
    ranges={**WEIGHTS, **DRIVEN},
    label="RPP in fine-tuning (ours)",
    family="magnitude",
    order=24,
    drives="penalty",
)
def rpp(
    density: float,
    *,
    penalty: float,
    offset: float = 1e-3,
    rounds: int = 4,
    fixed: float = 2 / 3,
) -> Method:
    """Reweighted l1 by a proximal step beside AdamW, then a fixed mask (ours, after Guo 2019).

    The l1 penalty gamma * sum of alpha * abs(w) over the matrices never enters AdamW's gradients
    and moments: after its step on the loss alone, weights shrink by learning rate * gamma * alpha,
    to 0 where they would change sign. alpha is 1 in the first of `rounds` equal rounds, then 1 /
    (abs(w) + offset) of the weights that the round before ended with. From the fraction `fixed` of
    the run on, zeros are masked and nothing shrinks. The density follows from `penalty`, which is
    1000 gamma, and is measured; until `fixed` all weights count as kept. Raises ConfigError for
    values out of range. Differs from the paper, whose equations and code could not be had, so that
    these are unverified: it prunes in pre-training, this in fine-tuning, with magnitude's values.
    """
    if penalty < 0 or offset <= 0 or rounds < 1:
        raise ConfigError(
            "penalty must be at least 0, offset above 0 and rounds at least 1, got"
            f" {penalty:g}, {offset:g} and {rounds}"
        )
    shrinking = Shrinking(UNIT * penalty, offset, rounds, fixed)
    return replace(
        magnitude(density, start=0.0, stop=1.0),
        score=Score(magnitude_of, ones, after=shrinking),
        mask=nonzero,
        level=Staircase(((fixed, 1.0),)),
        budget=None,
        zeroes=stay_zero,
    )
