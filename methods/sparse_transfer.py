"""Sparse transfer: fine-tuning of a checkpoint that is pruned already, its zeros fixed (Kurtic et
al. 2022; Zafrir et al. 2021)."""

from methods.gmp_star import OBERT
from methods.published import common, distillation, rates
from zoo import (
    Cycles,
    Method,
    Request,
    Score,
    Value,
    Values,
    at_once,
    magnitude_of,
    nonzero,
    register_method,
    zero_when_masked,
)

TRANSFER = OBERT.replace("30 epochs", "sparse transfer")


def sparse_transfer_recipe(request: Request) -> tuple[Values, Values]:
    """The released recipes of 8 epochs."""
    train = {
        "batch": Value(16 if request.task == "squad" else 32, TRANSFER),
        "epochs": Value(8, TRANSFER),
        "warmup": Value(0.0, TRANSFER),
    }
    own = rates(TRANSFER, 1.5e-4) | distillation(request, 0.0, 1.0, TRANSFER)
    if request.distill:
        own["temperature"] = Value(5.5, TRANSFER)
    last = {"last_rate": Value(0.01, f"{TRANSFER}: 1.5e-6 at the end")}
    return common(request, code=TRANSFER) | train | own, last


@register_method(
    "sparse_transfer",
    recipe=sparse_transfer_recipe,
    label="sparse transfer",
    family="magnitude",
    order=23,
)
def sparse_transfer(density: float, *, last_rate: float = 0.01) -> Method:
    """Fine-tuning of a pruned checkpoint: weights that are 0 in it stay 0 (Kurtic 2022).

    Give the checkpoint by `--model`. Reproduces the transfer rows of oBERT's README. The density is
    that of the checkpoint, whatever is asked for, and is measured.
    """
    return Method(
        score=Score(magnitude_of),
        mask=nonzero,
        level=at_once(1.0),
        budget=None,
        zeroes=zero_when_masked,
        rate=Cycles((0.0,), last_rate),
    )
