"""What a method's registration says about it, and the order of methods that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.errors import ConfigError
from zoo.records.codec import Record


@dataclass(frozen=True)
class MethodFacts(Record):
    """What the registration of a method says about it, for listings, plans and tables.

    `label` is its name for people, "" for the registered name. `family` groups methods, `order`
    sorts them, smaller first. `prunes` is False for methods that keep every weight. `control`
    marks methods that are no competitors. `teaches` marks the method whose trials teach in
    distillation and head every table. `drives` is "density", or "penalty"
    for methods that reach a density only through the weight of their penalty.
    """

    label: str = ""
    family: str = "others"
    order: float = 1000.0
    prunes: bool = True
    control: bool = False
    teaches: bool = False
    drives: str = "density"

    def __post_init__(self) -> None:
        if self.drives not in ("density", "penalty"):
            raise ConfigError(f"drives must be density or penalty, got {self.drives!r:.80}")


def in_order(facts: Mapping[str, MethodFacts]) -> list[str]:
    """Names of methods in the order of listings and tables: by family, the one with the smallest
    `order` first, then by `order` and name."""
    first: dict[str, float] = {}
    for one in facts.values():
        first[one.family] = min(first.get(one.family, one.order), one.order)
    return sorted(facts, key=lambda n: (first[facts[n].family], facts[n].family, facts[n].order, n))
