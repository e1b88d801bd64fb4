"""Suites: functions that name the cells of a benchmark, and the scales that say on what they run.

A suite is a grid of (method, task, density, distill, seed). Users register their own with a plugin.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.registry import methods, register_suite


@dataclass(frozen=True)
class Scale:
    """On what a suite runs: its tasks, its model, and words for the head of every page."""

    name: str
    tasks: tuple[str, ...]
    model: str
    about: str


@dataclass(frozen=True)
class Cell:
    """One entry of a suite's grid. `given` are values (name, value) that the suite sets in place of
    the recipe's, for training or as the method's hyper-parameters."""

    method: str
    task: str
    density: float
    distill: bool
    seed: int
    given: tuple[tuple[str, Any], ...] = ()


Suite = Callable[..., list[Cell]]
"""(scale, **given) -> cells; `given` are the axes that the command line sets."""


def grid(scale: Scale, given: Mapping[str, Sequence[Any]], **axes: Sequence[Any]) -> list[Cell]:
    """The product of the axes methods, tasks, densities, distill and seeds, what is given first.

    Seed by seed, so that a first table stands early. A method that does not prune stands once, at
    density 1 and without distillation.
    """
    chosen = {"tasks": scale.tasks, "seeds": range(5), "distill": (False,), **axes, **given}
    cells = dict.fromkeys(
        Cell(method, task, density, distill, seed)
        if methods[method].facts.get("prunes", True)
        else Cell(method, task, 1.0, False, seed)
        for seed in chosen["seeds"]
        for method in chosen["methods"]
        for density in chosen["densities"]
        for distill in chosen["distill"]
        for task in chosen["tasks"]
    )
    return list(cells)


TINY = Scale(
    name="tiny",
    tasks=("tiny_inference", "tiny_paraphrase", "tiny_span"),
    model=str(Path(__file__).parent.parent / "tasks" / "laboratory"),
    about="the embedded laboratory: an artificial language and a BERT of half a megabyte; its"
    " scores compare methods with each other and say nothing about published numbers",
)
BASE = Scale(
    name="base",
    tasks=("mnli", "qqp", "squad"),
    model="bert-base-uncased",
    about="the papers' scale: real data and a real pre-trained model",
)
SCALES = {scale.name: scale for scale in (TINY, BASE)}

CONTROLS = ("dense", "scratch", "head_only", "random")
SANH = ("magnitude", "movement", "soft_movement", "l0")
SMP = ("smp_l", "smp_s", "smp_g", "smp_t")


@register_suite("smoke")
def smoke(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Seconds: four methods, one task, one density, one seed; to see that everything works."""
    axes = {"methods": ("dense", "magnitude", "movement", "smp_l"), "tasks": scale.tasks[:1]}
    return grid(scale, given, densities=(0.1,), seeds=(0,), **axes)


@register_suite("high_sparsity")
def high_sparsity(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 1: 50, 10 and 3 % remaining weights, with and without distillation."""
    if scale.name == "tiny":
        return taught_beside_plain(
            scale,
            given,
            plain=(*CONTROLS, *SANH, *SMP),
            taught=("movement", "smp_s", "cap_lite"),
            densities=(0.1, 0.03),
            seeds=range(3),
        )
    return taught_beside_plain(
        scale,
        given,
        plain=("dense", "head_only", "random", *SANH, *SMP[:2]),
        taught=(*SANH, *SMP[:2], "cap_lite"),
        densities=(0.5, 0.1, 0.03),
    )


def taught_beside_plain(
    scale: Scale,
    given: Mapping[str, Sequence[Any]],
    plain: Sequence[str],
    taught: Sequence[str],
    **axes: Sequence[Any],
) -> list[Cell]:
    """Some methods without distillation, some with it; cells of one seed stand together.

    `--methods` picks from both lists, and a name in neither runs without distillation; `--distill`
    says it for all methods.
    """
    wanted, flags = given.get("methods"), given.get("distill")
    cells: list[Cell] = []
    for flag, names in ((False, plain), (True, taught)):
        if flags is not None:
            names = (wanted or tuple(dict.fromkeys((*plain, *taught)))) if flag in flags else ()
        elif wanted is not None:
            names = [m for m in wanted if m in names or (not flag and m not in taught)]
        cells += grid(scale, {**given, "methods": names, "distill": (flag,)}, **axes)
    return sorted(dict.fromkeys(cells), key=lambda cell: cell.seed)


@register_suite("low_sparsity_glue")
def low_sparsity_glue(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 2: 80 % remaining weights on the eight GLUE tasks."""
    axes: dict[str, Any] = {}
    if scale.name != "tiny":
        axes["tasks"] = ("mnli", "qqp", "qnli", "sst2", "mrpc", "cola", "stsb", "rte")
    names = ("dense", "random", "magnitude", "movement", "smp_l", "smp_s")
    return grid(scale, given, methods=names, densities=(0.8,), **axes)


@register_suite("masking")
def masking(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 3: masking functions L, S, G, T at 80 (laboratory: 50), 10 and 3 %.

    No penalty leaves SMP-T more than 63 % there, on the answer spans 58 %.
    """
    axes = _ablation(scale)
    if scale.name == "tiny":
        axes["densities"] = (0.5, 0.1, 0.03)
    return grid(scale, given, methods=("dense", *SMP), **axes)


@register_suite("head")
def head(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 4: a head from scratch against label words, at 80, 10 and 3 %."""
    return grid(scale, given, methods=("dense", "smp_l", "smp_l_new_head"), **_ablation(scale))


@register_suite("regulariser")
def regulariser(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Table 5: SMP-L with and without its penalty on scores, at 80, 10 and 3 %."""
    return grid(scale, given, methods=("dense", "smp_l", "smp_l_no_penalty"), **_ablation(scale))


@register_suite("shuffled")
def shuffled(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """Is it the mask or only the allocation: SMP-S, its masks shuffled, and random masks."""
    names = ("dense", "random", "smp_l", "smp_s", "smp_s_shuffled")
    return grid(scale, given, methods=names, **_ablation(scale))


def _ablation(scale: Scale) -> dict[str, Any]:
    """The axes of SMP's ablations."""
    tasks = scale.tasks if scale.name == "tiny" else ("mnli", "squad")
    return {"densities": (0.8, 0.1, 0.03), "tasks": tasks}


@register_suite("sweep")
def sweep(scale: Scale, **given: Sequence[Any]) -> list[Cell]:
    """SMP, Figure 1: quality from 80 down to 3 % remaining weights."""
    names = ("dense", "random", "magnitude", "movement", "smp_l", "smp_s")
    return grid(scale, given, methods=names, densities=(0.8, 0.7, 0.5, 0.3, 0.1, 0.03))
