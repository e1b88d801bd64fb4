"""Gradual magnitude pruning (Sanh et al. 2020's baseline; Zhu and Gupta 2018)."""

from dataclasses import replace
from typing import Any

from methods.published import (
    CODE,
    LARGE,
    LOG,
    PublishedRun,
    common,
    distillation,
    rates,
    smp_epochs,
)
from zoo import (
    OURS,
    Method,
    Ramp,
    Request,
    Value,
    Values,
    all_but_embeddings,
    register_method,
    share,
    topk_global,
    topk_local,
)
from zoo import magnitude as abs_weight

SANH = {
    "mnli": PublishedRun(32, 6, 73632, 12000, 1, 1),
    "qqp": PublishedRun(32, 10, 113710, 11000, 2, 3, 3e-6),
    "squad": PublishedRun(16, 10, 55330, 5400, 1, 2),
}
"""The runs of the Movement log. Steps are epochs times the training set over the batch, since the
log holds none. SQuAD: 88,524 windows of the fast tokeniser; the authors' own tokeniser made about
55,400 steps."""


def sanh_source(request: Request, published: str = LOG) -> str:
    """The source of values from the Movement log: `published` for its tasks."""
    return published if request.task in SANH else f"{OURS}: as MNLI"


def sanh_run(request: Request) -> PublishedRun:
    """The run of the Movement log for a task, MNLI's for tasks that the log does not have."""
    return SANH.get(request.task, SANH["mnli"])


def sanh_recipe(
    request: Request, source: str, own: Values, code: str = CODE
) -> tuple[Values, Values]:
    """What the runs of the Movement log share; `own` are the learning rates of the method."""
    run = sanh_run(request)
    shared, epochs = common(request, code=code), Value(run.epochs, source)
    if request.task not in SANH:
        half = 2 if request.task in LARGE else 1
        epochs = Value(smp_epochs(request.task) // half, f"{OURS}: as many steps as SMP's code")
    train = {
        "batch": Value(run.batch, source),
        "epochs": epochs,
        "warmup": share(run.warmup, run.steps, source),
    }
    begin, end = run.initial * run.warmup, run.steps - run.final * run.warmup
    moments = {"start": share(begin, run.steps, source), "stop": share(end, run.steps, source)}
    return shared | train | own | distillation(request, 0.1, 0.9, source), moments


def magnitude_recipe(
    request: Request, *, published: str = LOG, code: str = CODE
) -> tuple[Values, Values]:
    """The Movement log. `published` and `code` are other sources for methods of the same values."""
    source = column = sanh_source(request, published)
    if request.task == "qqp":
        column += ", by the column and not by the experiment's name, which says 3e-6"
    return sanh_recipe(request, source, rates(column, 3e-5), code)


@register_method("magnitude", recipe=magnitude_recipe, family="magnitude", order=20)
def magnitude(density: float, *, start: float, stop: float, power: int = 3) -> Method:
    """Gradual magnitude pruning: the largest abs(W) of each matrix stay (Sanh 2020, MaP).

    Reproduces the MaP rows of Sanh 2020, Tables 2 and 3, and of SMP, Table 1. The mask follows the
    current weights; masked weights get no gradient, as in the released code.
    """
    return Method(
        score=abs_weight,
        mask=topk_local,
        level=Ramp(1.0, density, start, stop, power),
        trains=all_but_embeddings,
    )


@register_method(
    "magnitude_global", recipe="magnitude", label="magnitude, global", family="magnitude", order=21
)
def magnitude_global(density: float, **hyper: Any) -> Method:
    """Gradual magnitude pruning with one ranking of abs(W) over all matrices.

    Differs from Sanh 2020's run log, which has such runs: the released code cannot make them, and
    ranks learned scores anew only every 25 steps; this ranks at every step.
    """
    return replace(magnitude(density, **hyper), mask=topk_global, budget=None)
