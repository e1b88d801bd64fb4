"""Gradual magnitude pruning (Sanh 2020's baseline; Zhu and Gupta 2018)."""

from dataclasses import replace
from typing import Any

from zoo.masks import topk_global, topk_local
from zoo.method import Method, all_but_embeddings
from zoo.registry import register_method
from zoo.schedules import Ramp
from zoo.scores import magnitude as abs_weight


@register_method("magnitude")
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


@register_method("magnitude_global", label="magnitude, global", recipe="magnitude")
def magnitude_global(density: float, **hyper: Any) -> Method:
    """Gradual magnitude pruning with one ranking of abs(W) over all matrices.

    Differs from Sanh 2020's run log, which has such runs: the released code cannot make them, and
    ranks learned scores anew only every 25 steps; this ranks at every step.
    """
    return replace(magnitude(density, **hyper), mask=topk_global, budget=None)
