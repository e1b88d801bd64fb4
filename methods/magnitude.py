"""Gradual magnitude pruning (Sanh 2020's baseline; Zhu and Gupta 2018)."""

from zoo.masks import topk_local
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
