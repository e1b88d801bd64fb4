"""Dataclasses to JSON and back, checked field by field, so that records can grow.

A field with a default may be missing in a file. A field that this program does not know is kept in
`extra` and written again. A value of another type raises ValueError, which names the field, and so
does one that is too large for what is made of it: texts and names are shown, numbers are squared.
"""

import dataclasses
import types
import typing
from collections.abc import Hashable, Mapping, Sequence, Sized
from dataclasses import MISSING, dataclass, field
from functools import cache
from typing import Any, TypeVar

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Record:
    """A dataclass that `to_json` writes and `from_json` reads; `extra` holds unknown fields."""

    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False, hash=False)


R = TypeVar("R", bound=Record)


def omitted(default: Any, **metadata: Any) -> Any:
    """A field that is not written while it has its default, so that ids made before it existed
    stay the same."""
    return field(default=default, metadata={"omitted": True, **metadata})


def to_json(record: Record) -> dict[str, Any]:
    """The record as dicts, lists, strings, numbers, booleans and None."""
    content: dict[str, Any] = dict(record.extra)
    for f in fields_of(type(record)):
        value = getattr(record, f.name)
        if not (f.metadata.get("omitted") and value == f.default):
            content[f.name] = _plain(value)
    return content


def from_json(kind: type[R], content: Any, where: str = "") -> R:
    """The record of type `kind` that `to_json` wrote.

    Raises ValueError for a missing field without a default, a value of the wrong type and a value
    that the record itself refuses; the message begins with the field's path, e.g. "cost.seconds".
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where or 'it'} is {_article(content)}, not an object")
    hints = _hints(kind)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for f in fields_of(kind):
        path = f"{where}.{f.name}" if where else f.name
        if f.name in content:
            long = f.metadata.get("long", False)
            values[f.name] = _typed(hints[f.name], content[f.name], path, long)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{path} is missing")
    extra = {name: value for name, value in content.items() if name not in hints}
    _bounded(extra, where or "it")
    try:
        return kind(**values, extra=extra)
    except (ConfigError, ValueError) as error:
        raise ValueError(f"{where + ': ' if where else ''}{error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return to_json(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _typed(hint: Any, value: Any, path: str, long: bool) -> Any:
    """The value as its annotation says, or ValueError; `long` as in LONG."""
    if hint is Any or (type(hint) is type and hint in NAMES and _is(value, hint)):
        return _bounded(value, path, long)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, path, long)
    if isinstance(hint, type) and issubclass(hint, Record):
        return from_json(hint, value, path)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        inner = arguments[1]
        _check_names(value, path)
        return {name: _typed(inner, one, f"{path}.{name}", long) for name, one in value.items()}
    if origin is not None and issubclass(origin, Sequence) and isinstance(value, list | tuple):
        inner = arguments[0]
        _check_length(value, MOST_ENTRIES, path, long)
        if inner is not str and inner in NAMES and all(_is(one, inner) for one in value):
            return tuple(value)
        return tuple(_typed(inner, one, f"{path}[{i}]", long) for i, one in enumerate(value))
    raise ValueError(f"{path} is {_article(value)}, not {_name(hint)}")


def _bounded(value: Any, path: str, long: bool = False) -> Any:
    """The value. Raises ValueError for a text, a list and an object that is too long in it."""
    if isinstance(value, str):
        _check_length(value, MOST_LETTERS, path, long)
    elif isinstance(value, Mapping):
        _check_names(value, path)
        for name, one in value.items():
            _bounded(one, f"{path}.{name}")
    elif isinstance(value, list):
        _check_length(value, MOST_ENTRIES, path, long)
        for one in value:
            _bounded(one, path)
    return value


def _check_names(value: Mapping[str, Any], path: str) -> None:
    _check_length(value, MOST_ENTRIES, path)
    for name in value:
        _check_length(name, MOST_IN_NAME, f"a name in {path}")


def _check_length(value: Sized, most: int, path: str, long: bool = False) -> None:
    if len(value) > most and not long:
        raise ValueError(f"{path} has a length of {len(value):,}, more than {most:,}")


def _one_of(hints: Sequence[Any], value: Any, path: str, long: bool) -> Any:
    """The value as the first annotation of a union that fits."""
    if value is None and types.NoneType in hints:
        return None
    others = [hint for hint in hints if hint is not types.NoneType]
    for hint in others[:-1]:
        try:
            return _typed(hint, value, path, long)
        except ValueError:
            continue
    return _typed(others[-1], value, path, long)


def _is(value: Any, kind: type) -> bool:
    """Whether a plain value is of a plain type: a whole number is a float too, a bool no number.
    Whole numbers fit 64 bits, as those of numpy must, and squares of numbers are finite."""
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and not -MOST <= value <= MOST:
        return False
    if kind is float and isinstance(value, float | int):
        return abs(value) <= FAR
    return isinstance(value, kind)


def fields_of(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a record, `extra` excluded."""
    return _fields(kind)


@cache
def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(f for f in dataclasses.fields(kind) if f.name != "extra")


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    """The annotations of a record's fields."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields_of(kind)}


MOST, FAR = 2**63 - 1, 1e100
"""The largest whole number and the largest other number that are read."""
LONG: Mapping[str, Any] = {"long": True}
"""Metadata of a field whose texts and lists may be as long as a file: packed arrays, records."""
MOST_LETTERS, MOST_IN_NAME, MOST_ENTRIES = 10_000, 200, 2000
"""Letters of a text and of a name, entries of a list or an object, in all other fields."""
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _name(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is not None:
        return "an object" if issubclass(origin, Mapping) else "a list"
    return NAMES.get(hint, str(hint))


def _article(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value!r:.40}"
