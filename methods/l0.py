"""L0 regularisation (Louizos, Welling and Kingma 2018), as Sanh et al. 2020 run it."""

from dataclasses import replace

from methods.magnitude import sanh_recipe, sanh_source
from methods.movement import movement
from methods.published import DRIVEN, WEIGHTS, PublishedRun, rates
from zoo import (
    Constant,
    Method,
    Penalty,
    Request,
    Value,
    Values,
    expected_l0,
    expected_l0_gradient,
    hard_concrete,
    learned_log_odds,
    open_gates,
    register_method,
    share,
)

L0 = {
    "mnli": PublishedRun(32, 6, 73632, 12000),
    "qqp": PublishedRun(32, 6, 68226, 11000),
    "squad": PublishedRun(16, 10, 55330, 5400),
}
"""The L0 runs of the Movement log."""


def l0_recipe(request: Request) -> tuple[Values, Values]:
    """The Movement log; the penalty is looked up by density among its runs."""
    source = sanh_source(request)
    scores = 1e-2 if request.task == "qqp" else 1e-1
    train, _ = sanh_recipe(request, source, rates(source, 3e-5, scores))
    if request.task in L0:
        run = L0[request.task]
        train["epochs"] = Value(run.epochs, source)
        train["warmup"] = share(run.warmup, run.steps, source)
    return train, {}


@register_method(
    "l0",
    recipe=l0_recipe,
    ranges={**WEIGHTS, **DRIVEN},
    family="regularisation",
    order=30,
    drives="penalty",
)
def l0(density: float, *, penalty: float) -> Method:
    """L0 regularisation with hard-concrete gates (Louizos 2018, as in Sanh 2020, section 4).

    Reproduces the L0 rows of Sanh 2020, Tables 2 and 3, which are interpolations between two runs
    of one seed. Evaluation multiplies W by fractional gates; remaining weights are the gates that
    are not zero. The density follows from the constant lambda `penalty` and is measured.
    """
    return replace(
        movement(density, start=0.0, stop=1.0),
        score=learned_log_odds,
        mask=open_gates,
        level=Constant(1.0),
        gate=hard_concrete,
        budget=None,
        penalty=Penalty(expected_l0, expected_l0_gradient, Constant(penalty)),
    )
