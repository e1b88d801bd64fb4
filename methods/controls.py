"""What pruned models are seen beside: no pruning, fewer layers, random masks, no training of the
encoder, no pre-training."""

from dataclasses import replace

from methods.magnitude import magnitude, magnitude_recipe
from methods.published import (
    CODE,
    LARGE,
    LOG,
    PublishedRun,
    common,
    distillation,
    rates,
)
from zoo import (
    OURS,
    Method,
    Request,
    Value,
    Values,
    first_half_of_layers,
    from_random_weights,
    noise,
    nothing,
    register_method,
    share,
)

DENSE = {
    "mnli": PublishedRun(32, 3, 36816, 12000),
    "qqp": PublishedRun(32, 3, 34113, 11300),
    "squad": PublishedRun(16, 3, 16599, 5400),
}
"""The dense runs of the Movement log."""


def dense_recipe(request: Request, *, ours: str = "", code: str = CODE) -> tuple[Values, Values]:
    """Plain fine-tuning of the Movement log; other tasks as MNLI, small ones with 5 epochs. `ours`
    and `code` replace the sources for methods that share these values."""
    known = request.task in DENSE
    run = DENSE.get(request.task, DENSE["mnli"])
    source = ours or (LOG if known else f"{OURS}: as MNLI")
    epochs = run.epochs if known or request.task in LARGE else 5
    train = {
        "batch": Value(run.batch, source),
        "epochs": Value(epochs, source if known else OURS),
        "warmup": share(run.warmup, run.steps, source),
    }
    own = rates(source, run.lr_weights) | distillation(request, 0.1, 0.9, source)
    return common(request, code=code) | train | own, {}


def control_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe for a control that nobody published."""
    return dense_recipe(request, ours=f"{OURS}: as dense", code=f"{OURS}, as {CODE}")


def head_only_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe with a larger learning rate for the head, the only part that trains."""
    train, hyper = control_recipe(request)
    head = {"lr_head": Value(1e-3, f"{OURS}: a head alone needs a larger step")}
    return train | rates("", None) | head, hyper


def random_recipe(request: Request) -> tuple[Values, Values]:
    """Magnitude's recipe for a control that nobody published."""
    return magnitude_recipe(request, published=f"{OURS}: as magnitude", code=f"{OURS}, as {CODE}")


@register_method(
    "dense",
    recipe=dense_recipe,
    family="controls",
    order=10,
    prunes=False,
    control=True,
    teaches=True,
)
def dense(density: float) -> Method:
    """Plain fine-tuning of all weights: the baseline, and the teacher of distillation."""
    return Method()


@register_method(
    "scratch", recipe=control_recipe, family="controls", order=11, prunes=False, control=True
)
def scratch(density: float) -> Method:
    """Plain fine-tuning from random weights: what pre-training is worth."""
    return Method(start=from_random_weights)


@register_method(
    "head_only", recipe=head_only_recipe, family="controls", order=12, prunes=False, control=True
)
def head_only(density: float) -> Method:
    """A trained head on the frozen encoder: how far the task gets without training the encoder."""
    return Method(trains=nothing)


@register_method(
    "first_half",
    recipe=control_recipe,
    label="dense, half the layers",
    family="controls",
    order=14,
    prunes=False,
)
def first_half(density: float) -> Method:
    """Plain fine-tuning of the first half of the layers: a dense rival of pruned models."""
    return Method(start=first_half_of_layers)


@register_method("random", recipe=random_recipe, family="controls", order=13, control=True)
def random(density: float, *, start: float, stop: float, power: int = 3) -> Method:
    """Random masks, fixed from the start, under magnitude's schedule; the weights train."""
    return replace(magnitude(density, start=start, stop=stop, power=power), score=noise)
