"""CAP-lite: movement pruning with contrastive losses, a part of CAP (Xu et al. 2022)."""

from dataclasses import replace

from methods.magnitude import sanh_recipe, sanh_run, sanh_source
from methods.movement import movement
from methods.published import CAP_CODE, WEIGHTS, rates
from zoo import (
    OURS,
    Contrast,
    LossTerm,
    Method,
    Request,
    Times,
    Value,
    Values,
    register_method,
    same_class,
    same_example,
)

LOSSES = {"unsupervised": Times(0.25, 4), "supervised": Times(0.25, 4)}
"""The weights of the contrastive losses."""
BANKS = frozenset({"pretrained", "finetuned"})


def cap_lite_recipe(request: Request) -> tuple[Values, Values]:
    """CAP's released scripts for QQP and SQuAD, movement's values for MNLI; other tasks as QQP."""
    source = sanh_source(request, CAP_CODE)
    if request.task == "mnli":
        source = f"{OURS}: as movement"
    own = rates(source, sanh_run(request).lr_weights, 1e-2)
    train, hyper = sanh_recipe(request, source, own)
    squad, regression = request.task == "squad", request.task == "stsb"
    code = CAP_CODE if request.task in ("qqp", "squad") else f"{OURS}: as QQP, {CAP_CODE}"
    hyper["unsupervised"] = Value(0.5 if squad else 0.1, code)
    hyper["supervised"] = Value(0.0 if squad else 10.0, code)
    if regression:
        hyper["supervised"] = Value(0.0, f"{OURS}: regression has no classes")
    if request.task == "qqp":
        rate = Value(3e-5, f"{code}; movement's log has 3e-6")
        train |= {"lr_weights": rate, "lr_head": rate}
    return train, hyper


@register_method(
    "cap_lite",
    recipe=cap_lite_recipe,
    ranges={**WEIGHTS, **LOSSES},
    label="CAP-lite (ours; PrC+FiC, no snapshots)",
    family="movement",
    order=43,
)
def cap_lite(
    density: float,
    *,
    start: float,
    stop: float,
    power: int = 3,
    unsupervised: float = 0.1,
    supervised: float = 10.0,
    extras: int = 4096,
) -> Method:
    """CAP-lite (ours; PrC+FiC, no snapshots): movement with contrast to frozen representations.

    Of CAP-m it has: hard movement, contrast with the pre-trained (PrC) and the fine-tuned dense
    model (FiC), unsupervised and supervised; banks in half precision. It lacks: snapshots (SnC),
    CAP-soft, CAP-f, and a variant without banks. Reproduces no published row. Differs from the
    released code: banks are encoded without dropout, and the anchor is read before the head's
    dropout. With both weights 0 it is movement.
    """
    terms = (
        LossTerm(Contrast(same_example, extras=extras), unsupervised, BANKS),
        LossTerm(Contrast(same_class, extras=extras), supervised, BANKS),
    )
    base = movement(density, start=start, stop=stop, power=power)
    return replace(base, losses=(*base.losses, *(term for term in terms if term.weight)))
