"""The numbers of classes in data that number them otherwise than the task."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zoo import ConfigError

Classes = Mapping[str, Sequence[str]]
"""column -> the names of the task's classes, in order."""
Orders = Mapping[str, Mapping[str, Sequence[int]]]
"""split -> column -> the task's number of each class, by its number in the data."""


def class_names(metadata: bytes) -> dict[str, list[str]]:
    """The names of the classes of each column, from what `datasets` writes beside a table."""
    try:
        features = json.loads(metadata)["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def order_of(theirs: Sequence[str], ours: Sequence[str], where: str) -> list[int]:
    """The task's number of each of the data's classes, by their names. Raises ConfigError for other
    names; plain numbers are no names."""
    if list(theirs) == [str(number) for number in range(len(theirs))]:
        return list(range(len(theirs)))
    known = {name.lower(): number for number, name in enumerate(ours)}
    if sorted(name.lower() for name in theirs) != sorted(known):
        raise ConfigError(
            f"{where} has the classes {', '.join(theirs)}; expected {', '.join(ours)}, in any order"
        )
    return [known[name.lower()] for name in theirs]


def renumbered(columns: dict[str, Any], orders: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The columns with the task's numbers of classes; what is no number of a class stays."""
    for column, order in orders.items():
        if list(order) != list(range(len(order))):
            known = dict(enumerate(order))
            columns[column] = [known.get(value, value) for value in columns[column]]
    return columns
