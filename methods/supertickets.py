"""Super tickets: heads and feed-forward sub-layers that go before the model is trained anew (Liang
et al. 2021)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.taylor import FAMILY
from zoo import (
    ConfigError,
    FromDense,
    GateCalibration,
    MaskFn,
    Method,
    at_once,
    heads_and_feed_forward,
    magnitude,
    noise,
    register_method,
    zero_when_masked,
)
from zoo.errors import unknown

FEED_FORWARD = ".feed_forward"
"""How the names of groups of feed-forward sub-layers end; the others are heads."""


def sizes_at_positions(products: Tensor, real: Tensor) -> Tensor:
    """The sum over positions of abs(dL/dgate) of each unit, the mean over the examples of a batch
    (ST-C; the absolute value is taken position by position)."""
    return products.abs().sum((0, 1)).unsqueeze(0) / len(products)


def mean_importance(rows: Tensor) -> Tensor:
    """The mean over batches."""
    return rows.mean(0)


def released_importance(rows: Tensor) -> Tensor:
    """What the released code adds up, which never clears a gradient: the first of N batches counts
    N times, the last once."""
    weights = torch.arange(len(rows), 0, -1, dtype=rows.dtype, device=rows.device) / len(rows)
    return torch.tensordot(weights, rows, 1)


IMPORTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean_importance,
    "released": released_importance,
}


def gone_at(density: float, units: int, share: float = 1.0) -> int:
    """How many of all units go: int(units * share * (1 - density)).

    >>> from methods.supertickets import gone_at
    >>> [gone_at(1 - k / 10, 144) for k in range(1, 9)]
    [14, 28, 43, 57, 72, 86, 100, 115]
    """
    return int(round(units * share * (1 - density), 6))


def all_but_lowest(scores: Tensor, many: int, protected: Tensor) -> Tensor:
    """1 for all but the `many` units with the lowest scores (layers, units) that are not
    protected; ties go by index."""
    open_to_go = scores.masked_fill(protected, torch.inf).flatten()
    order = open_to_go.argsort(stable=True)[: min(many, int((~protected).sum()))]
    kept = torch.ones_like(open_to_go, dtype=torch.bool)
    kept[order] = False
    return kept.view(scores.shape)


def lowest_go(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """M = 0 at the heads with the lowest scores of all layers, but for the best of each layer, and
    at the feed-forward sub-layers with the lowest: int(heads * (1 - density)), and 10/12 of that
    fraction of the sub-layers (ST-C's levels 1 to 8 are densities 0.9 to 0.2).

    >>> import torch
    >>> from methods.supertickets import lowest_go
    >>> scores = {"layer.0.heads": torch.tensor([0.9, 0.1, 0.5])}
    >>> masks = lowest_go(scores | {"layer.1.heads": torch.tensor([0.2, 0.3, 0.8])}, 0.5)
    >>> {name: mask.tolist() for name, mask in masks.items()}
    {'layer.0.heads': [True, False, True], 'layer.1.heads': [False, False, True]}
    """
    masks: dict[str, Tensor] = {}
    for is_last, share in ((False, 1.0), (True, 10 / 12)):
        own = {n: s for n, s in scores.items() if n.endswith(FEED_FORWARD) is is_last}
        if not own:
            continue
        stacked = torch.stack(list(own.values()))
        protected = torch.zeros_like(stacked, dtype=torch.bool)
        if not is_last:
            protected.scatter_(1, stacked.argmax(1, keepdim=True), True)
        kept = all_but_lowest(stacked, gone_at(density, stacked.numel(), share), protected)
        masks |= dict(zip(own, kept, strict=True))
    return {name: masks[name] for name in scores}


def divided(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Importances of heads over their norm in the layer, of sub-layers over that of all layers."""
    last = [s for n, s in scores.items() if n.endswith(FEED_FORWARD)]
    whole = torch.cat(last).norm() if last else torch.ones(())
    return {
        n: s / ((whole if n.endswith(FEED_FORWARD) else s.norm()) + 1e-20)
        for n, s in scores.items()
    }


def highest_go(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """The same with the highest scores; the head with the lowest one of each layer stays."""
    return lowest_go({name: -score for name, score in scores.items()}, density)


@dataclass(frozen=True)
class Ranked:
    """The masks that `go` makes of importances, which are made of the rows of batches."""

    importance: Callable[[Tensor], Tensor]
    go: MaskFn

    def __call__(self, rows: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        return self.go(divided({n: self.importance(own) for n, own in rows.items()}), density)


TICKETS: dict[str, MaskFn] = {"winning": lowest_go, "losing": highest_go, "random": lowest_go}
"""What goes from a ticket; scores of random ones are noise."""


@register_method("supertickets", recipe="dense", label="super tickets", family=FAMILY, order=93)
def supertickets(
    density: float,
    *,
    ticket: str = "winning",
    importance: str = "mean",
    examples: int | None = None,
    dense_seed: int | None = None,
) -> Method:
    """Heads and feed-forward sub-layers go by their gates' gradients, then training begins anew.

    Reproduces the single-task protocol of Liang 2021: importances come from the dense trial of the
    same seed, or of `dense_seed`, over the whole training set or `examples` of it; then all weights
    return to the checkpoint's and what stays trains by the dense recipe. int(heads * (1 - density))
    heads go and 10/12 of that fraction of the sub-layers, which with 12 layers are the paper's
    levels 1 to 8 at densities .9 to .2; remaining weights are measured. `ticket` is "winning",
    "losing" or "random" (as many units of each kind, from no importances). Differs from the
    released code, whose importances add up over batches (importance="released"), and which trains
    by Adamax, this by AdamW. Raises ConfigError for another ticket or importance.
    """
    if ticket not in TICKETS:
        raise ConfigError(unknown("ticket", ticket, TICKETS))
    if importance not in IMPORTANCES:
        raise ConfigError(unknown("importance", importance, IMPORTANCES))
    method = Method(
        score=magnitude,
        mask=Ranked(IMPORTANCES[importance], TICKETS[ticket]),
        level=at_once(density),
        budget=None,
        units=heads_and_feed_forward,
        zeroes=zero_when_masked,
        dense=FromDense(dense_seed, rewinds=True),
        calibration=GateCalibration(sizes_at_positions, examples),
    )
    if ticket != "random":
        return method
    return replace(method, score=noise, mask=lowest_go, dense=None, calibration=None)
