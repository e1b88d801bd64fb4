"""Pruning at once: a fine-tuned dense model loses weights in one step, and trains afterwards or
not. Magnitude per row, and Wanda (Sun et al. 2024)."""

from dataclasses import replace

from torch import Tensor

from methods.controls import dense_recipe
from zoo import (
    OURS,
    Calibration,
    Choice,
    FromDense,
    Method,
    Request,
    Value,
    Values,
    at_once,
    everything,
    magnitude,
    nothing,
    register_method,
    squares,
    topk_by_row,
    zero_when_masked,
)

FAMILY = "one-shot"
WANDA = "Wanda's released code (locuslab/wanda, MIT)"


def retraining(request: Request) -> Values:
    """Three epochs of the dense recipe: what trains where a method retrains (ours)."""
    train, _ = dense_recipe(request, ours=f"{OURS}: as dense", code=f"{OURS}, as dense")
    return train | {"epochs": Value(3, f"{OURS}: the masks are fixed")}


def magnitude_row_recipe(request: Request) -> tuple[Values, Values]:
    """The dense recipe, for retraining; there is nothing else to choose."""
    return retraining(request), {}


def wanda_recipe(request: Request) -> tuple[Values, Values]:
    """The released code's 128 sequences; the dense recipe for retraining."""
    return retraining(request), {"examples": Value(128, f"{WANDA}: sequences")}


@register_method(
    "magnitude_row",
    recipe=magnitude_row_recipe,
    label="magnitude, one-shot",
    family=FAMILY,
    order=80,
)
def magnitude_row(
    density: float, *, retrain: bool = False, dense_seed: int | None = None
) -> Method:
    """The largest abs(W) of each row of a fine-tuned model stay: Wanda without its inputs.

    Starts from the dense trial of the same seed, or of `dense_seed`. With `retrain` the mask is
    fixed and what remains trains by the dense recipe; without, no step is taken. Differs from the
    magnitude baseline of Wanda's code, which ranks whole matrices and prunes every tie.
    """
    return Method(
        score=magnitude,
        mask=topk_by_row,
        level=at_once(density),
        trains=everything if retrain else nothing,
        dense=FromDense(dense_seed),
        zeroes=zero_when_masked,
    )


def by_inputs(weight: Tensor, moments: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """Wanda: the score of a weight is abs(W) times the norm of its input; W stays as it is.

    `moments` (in,) are mean squares of inputs (Sun et al. 2024, Eq. 1). With orthogonal inputs no
    mask with as many weights per row has a smaller error of outputs.
    """
    return choice(weight.abs() * moments.sqrt()), weight


@register_method("wanda", recipe=wanda_recipe, label="Wanda", family=FAMILY, order=81)
def wanda(
    density: float,
    *,
    examples: int = 128,
    calibration_seed: int | None = None,
    retrain: bool = False,
    dense_seed: int | None = None,
) -> Method:
    """Wanda: the largest abs(W) * norm(input) of each row of a fine-tuned model stay (Sun 2024).

    Inputs are those of `examples` training texts, drawn by the trial's seed or `calibration_seed`,
    at real tokens, layer after layer through the pruned layers before. No weight is changed. The
    paper has no encoders. Differs from the released code: int(density * inputs) of a row are kept,
    which is never more than asked for.
    """
    base = magnitude_row(density, retrain=retrain, dense_seed=dense_seed)
    return replace(
        base, calibration=Calibration(by_inputs, squares, examples, seed=calibration_seed)
    )
