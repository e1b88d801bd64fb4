"""The numbers of classes in data that number them otherwise than the task."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo import ConfigError

Classes = Mapping[str, Sequence[str]]
"""column -> the names of the task's classes, in order."""
Orders = dict[Path, Mapping[str, Sequence[int]]]
"""file -> column -> the task's number of each class, by its number in the file."""


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


def check_orders(orders: Orders, classes: Classes) -> None:
    """Raise ConfigError if a file numbers its classes otherwise than the task and another does not
    say how it numbers them."""
    for column in classes:
        named = {file: list(order[column]) for file, order in orders.items() if column in order}
        other = [file for file, order in named.items() if order != sorted(order)]
        silent = [file for file in orders if file not in named]
        if other and silent:
            raise ConfigError(
                f"data file {other[0]} numbers the classes of {column!r} otherwise than the task,"
                f" and {silent[0].name} does not say how; write both with their class names"
            )


def renumbered(columns: dict[str, Any], orders: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The columns with the task's numbers of classes; what is no number of a class stays."""
    for column, order in orders.items():
        if list(order) != list(range(len(order))):
            known = dict(enumerate(order))
            columns[column] = [known.get(value, value) for value in columns[column]]
    return columns
