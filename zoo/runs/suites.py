"""Suites: grids of cells; and scales: the model, the tasks and the values that suites run with.

Suites and scales are registered by methods/, tasks/ and users' plugins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, unknown
from zoo.parts.recipes import Value
from zoo.registry import methods


@dataclass(frozen=True)
class Scale:
    """On what a suite runs, and everything in which that differs from other scales.

    `tasks` are those of the main table and `model` is a folder or a hub name; `about` is for the
    head of every page. `axes` replaces axes of suites, by the suite's name. `values` replaces
    training values of all recipes. `choices` is a CSV file of learning rates per method, chosen by
    zoo.tools.calibrate; `penalties` is a CSV file that says which penalty left how many weights,
    and `aim` the fraction of a target at which penalties aim: seeds vary, and a run that keeps more
    than its target does not count.
    `caveat` is what a reader must know about results at this scale; every page shows it.

    >>> from zoo import Scale
    >>> Scale("mine", tasks=("sst2",), model="my-model", about="my model on SST-2").axes
    {}
    """

    name: str
    tasks: tuple[str, ...]
    model: str
    about: str
    axes: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    choices: Path | None = None
    penalties: Path | None = None
    aim: float = 1.0
    caveat: str = ""

    def __post_init__(self) -> None:
        for name in ("choices", "penalties"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"scale {self.name}: {name} {path} is no file")
            object.__setattr__(self, name, None if path is None else Path(path))


@dataclass(frozen=True)
class Cell:
    """One entry of a suite's grid. `given` are values (name, value) that the suite sets instead of
    the recipe, for training or as the method's hyper-parameters. Raises ConfigError for a value
    that is neither a number nor a text nor a list of them.

    >>> from zoo import Cell
    >>> Cell("movement", "sst2", 0.1, distill=False, seed=0, given=(("batch", 16),)).density
    0.1
    """

    method: str
    task: str
    density: float
    distill: bool
    seed: int
    given: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        frozen = ((name, tuple(v) if isinstance(v, list) else v) for name, v in self.given)
        object.__setattr__(self, "given", tuple(frozen))
        try:
            hash(self)
        except TypeError as error:
            raise ConfigError(
                f"cell of {self.method!r:.40}: values are numbers, texts or lists of them ({error})"
            ) from None


AXES = ("methods", "tasks", "densities", "distill", "seeds")
"""The axes of a grid."""


def grid(scale: Scale, given: Mapping[str, Sequence[Any]], **axes: Sequence[Any]) -> list[Cell]:
    """The product of the axes methods, tasks, densities, distill and seeds; `given` takes
    precedence over `axes`. Raises ConfigError for another axis, and without methods or densities.

    Seeds are outermost, so that a complete first table appears early. A method that does not prune
    has one cell per task and seed, at density 1 and without distillation.

    >>> from zoo import Scale, grid
    >>> scale = Scale("mine", tasks=("sst2",), model="my-model", about="")
    >>> cells = grid(scale, {"seeds": (0, 1)}, methods=("dense", "movement"), densities=(0.5, 0.1))
    >>> [(cell.method, cell.density, cell.seed) for cell in cells[:3]]
    [('dense', 1.0, 0), ('movement', 0.5, 0), ('movement', 0.1, 0)]
    """
    chosen = {"tasks": scale.tasks, "seeds": range(5), "distill": (False,), **axes, **given}
    for axis in (*chosen, *AXES):
        if axis not in AXES:
            raise ConfigError(unknown("axis", axis, AXES))
        if axis not in chosen:
            raise ConfigError(f"the suite gives no {axis}")
    cells = dict.fromkeys(
        Cell(method, task, density, distill, seed)
        if methods[method].facts.prunes
        else Cell(method, task, 1.0, False, seed)
        for seed in chosen["seeds"]
        for method in chosen["methods"]
        for density in chosen["densities"]
        for distill in chosen["distill"]
        for task in chosen["tasks"]
    )
    return list(cells)
