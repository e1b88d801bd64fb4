"""Iterative magnitude pruning with rewinding: lottery tickets in BERT (Chen et al. 2020)."""

from methods.published import common, distillation, rates
from zoo import (
    OURS,
    Cycles,
    Method,
    Request,
    Staircase,
    Value,
    Values,
    magnitude,
    register_method,
    stay_zero,
    topk_in_all,
)

TICKETS = "BERT-Tickets' released code"
STEP = 0.1
"""The part of all weights that a round prunes."""


def densities(density: float) -> list[float]:
    """The density after each round: 10 points of the original count less each time, and the target
    at last.

    >>> from methods.imp import densities
    >>> [round(one, 4) for one in densities(0.65)]
    [0.9, 0.8, 0.7, 0.65]
    """
    found: list[float] = []
    while (left := 1 - STEP * (len(found) + 1)) > density + 1e-9:
        found.append(left)
    return [*found, density]


def imp_recipe(request: Request) -> tuple[Values, Values]:
    """The released code's rounds; one more trains the ticket."""
    squad = request.task == "squad"
    rounds, each = len(densities(request.density)) + 1, 4 if squad else 3
    train = {
        "batch": Value(16 if squad else 32, TICKETS),
        "epochs": Value(each * rounds, f"{TICKETS}: {each} in each of {rounds} trainings"),
        "warmup": Value(0.0, TICKETS),
    }
    own = rates(TICKETS, 3e-5 if squad else 2e-5)
    teacher = distillation(request, 0.1, 0.9, f"{OURS}: as movement")
    return common(request, code=TICKETS) | train | own | teacher, {}


@register_method("imp", recipe=imp_recipe, label="IMP, rewound", family="magnitude", order=22)
def imp(density: float) -> Method:
    """Rounds of training, pruning the smallest abs(W) of all, and rewinding to the start (IMP).

    Each round prunes 10 % of the original count among what remains, then all encoder weights return
    to the checkpoint's, the head is carried on, and optimiser and learning rates begin anew; a last
    training of the ticket follows. Reproduces the BERT-Tickets of Chen et al. 2020, without their
    pooler mask. Differs from the released code: learning rates fall to 0 in each round, there they
    fall over all rounds together.
    """
    levels = densities(density)
    times = [(i + 1) / (len(levels) + 1) for i in range(len(levels))]
    return Method(
        score=magnitude,
        mask=topk_in_all,
        level=Staircase(tuple(zip(times, levels, strict=True))),
        zeroes=stay_zero,
        rate=Cycles((0.0, *times), 0.0),
        rewinds=tuple(times),
    )
