"""Tuned gradual magnitude pruning (GMP*, Kurtic and Alistarh 2022), on the skeleton of oBERT's
recipe."""

from methods.published import common, distillation, rates
from zoo import (
    OURS,
    Cycles,
    Method,
    Request,
    Value,
    Values,
    magnitude,
    register_method,
    stay_zero,
    stepwise,
    topk_in_all,
)

FAMILY = "tuned magnitude and second order"
OBERT = "oBERT's released recipes (sparseml, Apache-2.0), 30 epochs"
EPOCHS = 30
"""Epochs of oBERT's recipes, of which all moments are fractions."""


def fisher(request: Request) -> Values:
    """How the Fisher matrix is estimated in the released recipes."""
    squad = request.task == "squad"
    return {
        "block": Value(50, OBERT),
        "damping": Value(1e-7, OBERT),
        "gradients": Value(1024, OBERT),
        "gradient_batch": Value(8 if squad else 16, OBERT),
    }


def gmp_star_recipe(request: Request) -> tuple[Values, Values]:
    """oBERT's 30 epochs on MNLI, QQP and SQuAD; other tasks as MNLI. GMP*'s own values were not to
    be had; oBERT shares the recipe."""
    known = request.task in ("mnli", "qqp", "squad")
    source = OBERT if known else f"{OURS}: as MNLI, {OBERT}"
    squad = request.task == "squad"
    train = {
        "batch": Value(16 if squad else 32, source),
        "epochs": Value(EPOCHS, source),
        "warmup": Value(0.0, source),
    }
    own = rates(source, 8e-5 if squad else 5e-5) | distillation(request, 0.0, 1.0, source)
    hyper = {
        "first": Value(0.3, f"{source}: 70 % are pruned at once"),
        "start": Value(2 / EPOCHS, f"{source}: epoch 2"),
        "stop": Value(26 / EPOCHS, f"{source}: epoch 26"),
        "every": Value(4 / EPOCHS, f"{source}: every 4 epochs"),
        "last_rate": Value(0.1, f"{source}: learning rates fall to a tenth in each cycle"),
    }
    return common(request, code=source) | train | own, hyper | fisher(request)


@register_method("gmp_star", recipe=gmp_star_recipe, label="GMP*", family=FAMILY, order=25)
def gmp_star(
    density: float,
    *,
    first: float = 0.3,
    start: float = 2 / EPOCHS,
    stop: float = 26 / EPOCHS,
    every: float = 4 / EPOCHS,
    last_rate: float = 0.1,
) -> Method:
    """Gradual magnitude, tuned: few large steps, learning rates that rise again at each (GMP*).

    At `start` all but `first` of the weights are pruned by abs(W), over all matrices; then, every
    `every` of the run, more on a cubic curve, until `density` at `stop`. Learning rates fall to
    `last_rate` of their peak from one pruning to the next. Masked weights are 0 after each
    optimiser step, whatever momentum would make of them. Differs from the paper (Kurtic and
    Alistarh 2022): its hyper-parameters are those of oBERT's recipes, since the paper's were not
    readable.
    """
    level = stepwise(max(first, density), density, start, stop, every)
    starts = tuple(dict.fromkeys((0.0, *(time for time, _ in level.levels))))
    return Method(
        score=magnitude,
        mask=topk_in_all,
        level=level,
        zeroes=stay_zero,
        rate=Cycles(starts, last_rate),
    )
