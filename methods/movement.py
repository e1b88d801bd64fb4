"""Movement pruning, hard and soft, and L0 regularisation (Sanh, Wolf and Rush 2020)."""

from dataclasses import replace
from typing import Any

from methods.magnitude import magnitude
from zoo.gates import hard_concrete, straight_through
from zoo.losses import (
    Penalty,
    expected_l0,
    expected_l0_gradient,
    mean_sigmoid,
    mean_sigmoid_gradient,
)
from zoo.masks import above_threshold, open_gates, topk_global
from zoo.method import Method
from zoo.registry import register_method
from zoo.schedules import Ramp, constant
from zoo.scores import learned, learned_log_odds

TAU = 0.1
"""Final threshold of sigmoid(S) in soft movement (the authors' run log)."""


@register_method("movement")
def movement(density: float, *, start: float, stop: float, power: int = 3) -> Method:
    """Movement pruning: the highest learned scores of each matrix stay (Sanh 2020, MvP).

    Reproduces the MvP rows of Sanh 2020, Tables 2 and 3, and of SMP, Table 1. Scores start at 0 and
    learn straight through the mask; weights train too, embeddings do not.
    """
    base = magnitude(density, start=start, stop=stop, power=power)
    return replace(base, score=learned, gate=straight_through)


@register_method("movement_global", label="movement, global", recipe="movement")
def movement_global(density: float, **hyper: Any) -> Method:
    """Movement pruning with one ranking of scores over all matrices (Sanh 2020's run log).

    Differs from the released code, which ranks anew every 25 steps; this ranks at every step. The
    log's MNLI runs of this kind had a warm-up of 11,000 steps in place of 12,000.
    """
    return replace(movement(density, **hyper), mask=topk_global, budget=None)


@register_method("soft_movement", drives="penalty")
def soft_movement(
    density: float, *, start: float, stop: float, penalty: float, power: int = 3
) -> Method:
    """Soft movement: scores above a rising threshold stay, a penalty pushes them down (SMvP).

    Reproduces the SMvP rows of Sanh 2020, Tables 2 and 3, which are interpolations between two runs
    of one seed. tau rises from 0 to 0.1 and lambda from 0
    to `penalty` on the same ramp; the density follows from `penalty` and is measured.
    """
    tau = Ramp(0.0, TAU, start, stop, power)
    weight = Ramp(0.0, penalty, start, stop, power)
    return replace(
        movement(density, start=start, stop=stop, power=power),
        mask=above_threshold,
        level=tau,
        budget=None,
        penalty=Penalty(mean_sigmoid, mean_sigmoid_gradient, weight),
    )


@register_method("l0", drives="penalty")
def l0(density: float, *, penalty: float) -> Method:
    """L0 regularisation with hard-concrete gates (Louizos 2018, as in Sanh 2020, section 4).

    Reproduces the L0 rows of Sanh 2020, Tables 2 and 3, which are interpolations between two runs
    of one seed. Evaluation multiplies W by fractional
    gates; remaining weights are the gates that are not zero. The density follows from the constant
    lambda `penalty` and is measured.
    """
    return replace(
        movement(density, start=0.0, stop=1.0),
        score=learned_log_odds,
        mask=open_gates,
        level=constant(1.0),
        gate=hard_concrete,
        budget=None,
        penalty=Penalty(expected_l0, expected_l0_gradient, constant(penalty)),
    )
