"""The suites: what the papers compare, and which methods take part."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from zoo import Cell, Scale, grid, register_suite

SANH = ("magnitude", "movement", "soft_movement", "l0")
SMP = ("smp_l", "smp_s", "smp_g", "smp_t")
GLUE = ("mnli", "qqp", "qnli", "sst2", "mrpc", "cola", "stsb", "rte")
ABLATION = {"densities": (0.8, 0.1, 0.03), "tasks": ("mnli", "squad")}
"""The axes of SMP's ablations."""

Given = Mapping[str, Sequence[Any]]


def axes_of(suite: str, scale: Scale, **axes: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The axes of a suite, where the scale does not replace them."""
    return {**axes, **scale.axes.get(suite, {})}


@register_suite("smoke")
def smoke(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Seconds: four methods, one task, one density, one seed; to see that everything works."""
    names = ("dense", "magnitude", "movement", "smp_l")
    axes = {"methods": names, "tasks": scale.tasks[:1], "densities": (0.1,), "seeds": (0,)}
    return grid(scale, given, **axes_of("smoke", scale, **axes))


@register_suite("high_sparsity")
def high_sparsity(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 1: 50, 10 and 3 %, each also distilled (laboratory: 10 and 3 %, without)."""
    axes = axes_of(
        "high_sparsity",
        scale,
        plain=("dense", "head_only", "random", *SANH, "smp_l", "smp_s"),
        distilled=(*SANH, "smp_l", "smp_s", "cap_lite"),
        densities=(0.5, 0.1, 0.03),
    )
    return distilled_beside_plain(scale, given, **axes)


def distilled_beside_plain(
    scale: Scale,
    given: Given,
    plain: Sequence[str],
    distilled: Sequence[str],
    **axes: Sequence[Any],
) -> list[Cell]:
    """The methods `plain` without distillation and `distilled` with it; cells of one seed are
    together.

    `--methods` picks from both lists, and a name in neither runs without distillation; `--distill`
    applies to all methods.
    """
    wanted, flags = given.get("methods"), given.get("distill")
    cells: list[Cell] = []
    for flag, names in ((False, plain), (True, distilled)):
        if flags is not None:
            names = (wanted or tuple(dict.fromkeys((*plain, *distilled)))) if flag in flags else ()
        elif wanted is not None:
            names = [m for m in wanted if m in names or (not flag and m not in distilled)]
        cells += grid(scale, {**given, "methods": names, "distill": (flag,)}, **axes)
    return sorted(dict.fromkeys(cells), key=lambda cell: cell.seed)


@register_suite("low_sparsity_glue")
def low_sparsity_glue(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 2: 80 % remaining weights on the eight GLUE tasks."""
    names = ("dense", "random", "magnitude", "movement", "smp_l", "smp_s")
    axes = {"methods": names, "densities": (0.8,), "tasks": GLUE}
    return grid(scale, given, **axes_of("low_sparsity_glue", scale, **axes))


@register_suite("masking")
def masking(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 3: masking functions L, S, G, T at 80 (laboratory: 50), 10 and 3 %."""
    return grid(scale, given, **axes_of("masking", scale, methods=("dense", *SMP), **ABLATION))


@register_suite("head")
def head(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 4: a head from scratch against label words, at 80, 10 and 3 %."""
    names = ("dense", "smp_l", "smp_l_new_head")
    return grid(scale, given, **axes_of("head", scale, methods=names, **ABLATION))


@register_suite("regulariser")
def regulariser(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 5: SMP-L with and without its penalty on scores, at 80, 10 and 3 %."""
    names = ("dense", "smp_l", "smp_l_no_penalty")
    return grid(scale, given, **axes_of("regulariser", scale, methods=names, **ABLATION))


@register_suite("shuffled")
def shuffled(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Is it the mask or only the allocation: SMP-S, its masks shuffled, and random masks."""
    names = ("dense", "random", "smp_l", "smp_s", "smp_s_shuffled")
    return grid(scale, given, **axes_of("shuffled", scale, methods=names, **ABLATION))


@register_suite("size_and_speed")
def size_and_speed(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """What can be taken home: 50, 10 and 3 % beside the dense model and one of half its layers.

    For --save best --latency.
    """
    names = ("dense", "first_half", "magnitude", "movement", "soft_movement", "smp_s")
    axes = {"methods": names, "densities": (0.5, 0.1, 0.03)}
    return grid(scale, given, **axes_of("size_and_speed", scale, **axes))


@register_suite("sweep")
def sweep(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Figure 1: quality from 80 down to 3 % remaining weights."""
    names = ("dense", "random", "magnitude", "movement", "smp_l", "smp_s")
    axes = {"methods": names, "densities": (0.8, 0.7, 0.5, 0.3, 0.1, 0.03)}
    return grid(scale, given, **axes_of("sweep", scale, **axes))


def with_values(cells: Sequence[Cell], **values: Any) -> list[Cell]:
    """The cells, with values that the suite sets where weights are pruned."""
    return [
        replace(cell, given=(*cell.given, *values.items())) if cell.density < 1 else cell
        for cell in cells
    ]


ONE_SHOT = ("magnitude_row", "wanda", "sparsegpt", "admm", "obert_one_shot")
"""Methods that prune a fine-tuned model at once."""
BY_ROW = ("magnitude_row", "wanda")
"""Those of them whose weights compete in rows whatever the pattern."""
DENSE_SEED = 0
"""The dense trial that all pruned ones of `one_shot` and `coreset_slides` start from."""


@register_suite("one_shot")
def one_shot(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Pruning a fine-tuned model at once, without retraining: 80, 70, 60, 50 % and 2:4.

    Seeds are those of calibration; the dense model is trained once.
    """
    axes = {"methods": ("dense", *ONE_SHOT), "densities": (0.8, 0.7, 0.6, 0.5)}
    cells = grid(scale, given, **axes_of("one_shot", scale, **axes))
    free = with_values(cells, dense_seed=DENSE_SEED)
    half = [cell for cell in free if cell.density == 0.5]
    once = [cell for cell in free if cell.density < 1 or cell.seed == DENSE_SEED]
    return sorted([*once, *with_values(half, pattern="2:4")], key=lambda cell: cell.seed)


@register_suite("retrained")
def retrained(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Pruning a fine-tuned model at once, then retraining under a fixed mask: 50 %, 2:4 and 10 %.

    Each trial starts from the dense trial of its seed.
    """
    axes = {"methods": ("dense", *ONE_SHOT), "densities": (0.5, 0.1)}
    cells = with_values(grid(scale, given, **axes_of("retrained", scale, **axes)), retrain=True)
    half = [cell for cell in cells if cell.density == 0.5]
    return sorted([*cells, *with_values(half, pattern="2:4")], key=lambda cell: cell.seed)


@register_suite("tuned_baselines")
def tuned_baselines(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Well-tuned magnitude, second order and sensitivity beside movement and SMP-S: 10 and 3 %."""
    names = ("dense", "gmp_star", "imp", "magnitude", "movement", "smp_s", "obert", "platon")
    axes = {"methods": names, "densities": (0.1, 0.03)}
    found = {"gradients": (1024,), **axes_of("tuned_baselines", scale, **axes)}
    (gradients,) = found.pop("gradients")
    cells = grid(scale, given, **found)
    obert = with_values([c for c in cells if c.method == "obert"], gradients=gradients)
    return sorted([*(c for c in cells if c.method != "obert"), *obert], key=lambda c: c.seed)


@register_suite("patterns")
def patterns(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Free, by row, 1:2, 2:4, 4:8 and blocks of 4 x 4 at 50 %, for every kind of score."""
    names = ("dense", "magnitude", "movement", "smp_l", *ONE_SHOT[:3], "obert_one_shot")
    axes = {"methods": names, "densities": (0.5,)}
    cells = grid(scale, given, **axes_of("patterns", scale, **axes))
    pruned = [cell for cell in cells if cell.density < 1]
    for pattern in ("row", "1:2", "2:4", "4:8", "4x4"):
        own = [c for c in pruned if pattern != "row" or c.method not in BY_ROW]
        cells += with_values(own, pattern=pattern)
    return sorted(cells, key=lambda cell: cell.seed)


LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Levels 1 to 8 of super tickets, as the part of heads that stays."""
AT_ONCE = ("taylor", "coreset", "kwon")
"""Methods that prune units of a fine-tuned model at once."""
FEWER_LAYERS = ("drop_layers", "layerdrop")
"""Methods that take layers out of the encoder."""


@register_suite("structured")
def structured(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Heads, neurons, blocks and layers beside single weights at 70, 50 and 30 %.

    With --save best --latency, what each costs.
    """
    learned = ("magnitude", "movement", "smp_s", "smp_structured", "movement_blocks")
    names = ("dense", *learned, *AT_ONCE, "supertickets", *FEWER_LAYERS)
    axes = {"methods": names, "densities": (0.7, 0.5, 0.3)}
    cells = grid(scale, given, **axes_of("structured", scale, **axes))
    once = [cell for cell in cells if cell.method in AT_ONCE]
    others = [cell for cell in cells if cell.method not in AT_ONCE]
    return sorted([*others, *with_values(once, retrain=True)], key=lambda cell: cell.seed)


@register_suite("tickets")
def tickets(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Super tickets, winning, losing and random, at the paper's eight levels beside the full model.

    Is there a level at which a ticket beats it?
    """
    axes = {"methods": ("dense", "supertickets"), "densities": LEVELS}
    cells = grid(scale, given, **axes_of("tickets", scale, **axes))
    pruned = [cell for cell in cells if cell.density < 1]
    for kind in ("losing", "random"):
        cells += with_values(pruned, ticket=kind)
    return sorted(cells, key=lambda cell: cell.seed)


@register_suite("coreset_slides")
def coreset_slides(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Dimensions of attention heads drawn without data (a talk on coresets): 90, 70, 50 and 30 %.

    Without and with retraining, as in the talk's tables for BERT; densities are those of attention.
    Seeds are those of drawing; the dense model is trained once.
    """
    axes = {"methods": ("dense",), "densities": (1.0,), "shares": (1 / 3,)}
    found = dict(axes_of("coreset_slides", scale, **axes))
    (share,) = found.pop("shares")
    dense = [cell for cell in grid(scale, given, **found) if cell.seed == DENSE_SEED]
    names = tuple(name for name in given.get("methods", ("coreset",)) if name != "dense")
    cells = dense if "dense" in given.get("methods", ("dense",)) else []
    for attention in (0.9, 0.7, 0.5, 0.3):
        own = {"methods": names, "densities": (round(1 - share * (1 - attention), 4),)}
        some = grid(scale, {**given, **own}, **found)
        drawn = with_values(some, dense_seed=DENSE_SEED, attention=attention)
        cells += [*drawn, *with_values(drawn, retrain=True)]
    return sorted(cells, key=lambda cell: cell.seed)
