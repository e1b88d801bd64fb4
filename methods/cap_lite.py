"""CAP-lite: movement pruning with contrastive losses, a part of CAP (Xu et al. 2022)."""

from dataclasses import replace

from methods.movement import movement
from zoo.losses import Contrast, LossTerm, same_class, same_example
from zoo.method import Method
from zoo.registry import register_method

BANKS = frozenset({"pretrained", "finetuned"})


@register_method("cap_lite", label="CAP-lite (ours; PrC+FiC, no snapshots)")
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

    Has of CAP-m: hard movement, contrast with the pre-trained (PrC) and the fine-tuned dense model
    (FiC), unsupervised and supervised; banks in half precision. Lacks: snapshots (SnC), CAP-soft,
    CAP-f, and a variant without banks. Reproduces no published row. Differs from the released code:
    banks are encoded without dropout, and the anchor is read before the head's dropout. With both
    weights 0 it is movement.
    """
    terms = (
        LossTerm(Contrast(same_example, extras=extras), unsupervised, BANKS),
        LossTerm(Contrast(same_class, extras=extras), supervised, BANKS),
    )
    base = movement(density, start=start, stop=stop, power=power)
    return replace(base, losses=(*base.losses, *(term for term in terms if term.weight)))
