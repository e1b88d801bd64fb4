"""Movement pruning, hard and soft (Sanh, Wolf and Rush 2020)."""

from dataclasses import replace
from typing import Any

from methods.magnitude import magnitude, sanh_recipe, sanh_run, sanh_source
from methods.published import DRIVEN, WEIGHTS, rates
from zoo import (
    ConfigError,
    Method,
    Penalty,
    Ramp,
    Request,
    Values,
    above_threshold,
    learned_from,
    mean_sigmoid,
    mean_sigmoid_gradient,
    register_method,
    straight_through,
    topk_global,
)

TAU = 0.1
"""Final threshold of sigmoid(S) in soft movement (the authors' run log)."""


def movement_recipe(request: Request) -> tuple[Values, Values]:
    """The Movement log; other tasks as MNLI."""
    source = sanh_source(request)
    return sanh_recipe(request, source, rates(source, sanh_run(request).lr_weights, 1e-2))


@register_method("movement", recipe=movement_recipe, family="movement", order=40)
def movement(
    density: float,
    *,
    start: float,
    stop: float,
    power: int = 3,
    first: float = 1.0,
    penalty: float = 0.0,
    score_start: str = "constant",
    score_scale: float = 0.0,
) -> Method:
    """Movement pruning: the highest learned scores of each matrix stay (Sanh 2020, MvP).

    Reproduces the MvP rows of Sanh 2020, Tables 2 and 3, and of SMP, Table 1. Scores start at 0 and
    learn straight through the mask; weights train too, embeddings do not.

    What the authors' code offers beside: `first` is the density before the ramp
    (`--initial_threshold`); scores start as `score_start` and `score_scale` say (`--mask_init`,
    `--mask_scale`; zoo.learned_from); `penalty` is the final weight of the mean of sigmoid(S)
    (`--regularization l1`, `--final_lambda`), which there follows the density and so falls on the
    same ramp, from penalty * first / density.
    """
    base = magnitude(density, start=start, stop=stop, power=power)
    weight = Ramp(penalty * first / density, penalty, start, stop, power)
    return replace(
        base,
        level=Ramp(first, density, start, stop, power),
        score=learned_from(score_start, score_scale),
        gate=straight_through,
        penalty=Penalty(mean_sigmoid, mean_sigmoid_gradient, weight) if penalty else None,
    )


@register_method(
    "movement_global", recipe="movement", label="movement, global", family="movement", order=41
)
def movement_global(density: float, **hyper: Any) -> Method:
    """Movement pruning with one ranking of scores over all matrices (Sanh 2020's run log).

    Differs from the released code, which ranks anew every 25 steps; this ranks at every step. The
    log's MNLI runs of this kind had a warm-up of 11,000 steps in place of 12,000.
    """
    return replace(movement(density, **hyper), mask=topk_global, budget=None)


@register_method(
    "soft_movement",
    recipe=movement_recipe,
    ranges={**WEIGHTS, **DRIVEN},
    family="movement",
    order=42,
    drives="penalty",
)
def soft_movement(
    density: float,
    *,
    start: float,
    stop: float,
    penalty: float,
    power: int = 3,
    first: float = 0.0,
    tau: float = TAU,
    score_start: str = "constant",
    score_scale: float = 0.0,
) -> Method:
    """Soft movement: scores above a rising threshold stay, a penalty pushes them down (SMvP).

    Reproduces the SMvP rows of Sanh 2020, Tables 2 and 3, which are interpolations between two runs
    of one seed. The threshold rises from `first` to `tau` and lambda with it, to `penalty`; the
    density follows from `penalty` and is measured. `first`, `tau`, `score_start` and `score_scale`
    are `--initial_threshold`, `--final_threshold`, `--mask_init` and `--mask_scale` of the authors'
    code. Raises ConfigError for a `tau` outside (0, 1).
    """
    if not 0 < tau < 1:
        raise ConfigError(f"tau is a threshold of sigmoid(S), in (0, 1), got {tau!r}")
    weight = Ramp(penalty * first / tau, penalty, start, stop, power)
    return replace(
        movement(density, start=start, stop=stop, power=power),
        score=learned_from(score_start, score_scale),
        mask=above_threshold,
        level=Ramp(first, tau, start, stop, power),
        budget=None,
        penalty=Penalty(mean_sigmoid, mean_sigmoid_gradient, weight),
    )
