"""From the content of a file to its record: earlier schemas, checksums, and names that say what is
inside."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import one_line
from zoo.records.codec import from_json
from zoo.records.consistent import check_consistent
from zoo.records.content import CHECKSUM, without_checksum
from zoo.records.earlier import CONVERTERS, Converter, plan_of_schema_3
from zoo.records.result import SCHEMA, Failure, Outcome, Plan, Result
from zoo.records.trial import canonical

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What the content of a damaged or foreign file may raise."""
PLAN, FAILED = "plan-", ".failed"
"""How the names of plan files begin, and what the name of a failure has before `.json`."""
CHANGED = f'it was changed after it was written; if that is meant, delete its field "{CHECKSUM}"'
"""Why a record with a wrong checksum is refused, and a plan with another's name."""
RENAMED = "it was changed after it was written: its name has another checksum"


def outcome_of(name: str, content: Any) -> Outcome:
    """The result or failure in a file of this name. Raises one of DAMAGED."""
    content, intact = without_checksum(content)
    with _blaming(intact, CHANGED):
        content = _in_this_schema(content, CONVERTERS)
        failed = name.endswith(f"{FAILED}.json")
        record = from_json(Failure, content) if failed else from_json(Result, content)
        if name != f"{record.trial.id}{FAILED * failed}.json":
            raise ValueError(f"its name is not its trial's id, {record.trial.id}")
        if isinstance(record, Result):
            check_consistent(record)
        return record


def plan_of(name: str, content: Any) -> Plan:
    """The plan in a file of this name. Raises one of DAMAGED."""
    with _blaming(name == plan_name(canonical(content)), RENAMED):
        content = plan_of_schema_3(content) if isinstance(content, list) else content
        plan = from_json(Plan, _in_this_schema(content, {}))
        _ = [trial.id for trial in plan.trials]  # raises for a trial that has no id
        return plan


def plan_name(text: str) -> str:
    """The name of a plan's file, which has a checksum of its content."""
    return f"{PLAN}{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


@contextlib.contextmanager
def _blaming(intact: bool, words: str) -> Iterator[None]:
    """Raise ValueError with these words after the block, and behind what the block itself raises,
    unless a file is intact."""
    try:
        yield
    except DAMAGED as error:
        if intact:
            raise
        raise ValueError(f"{one_line(error, 120)}; {words}") from None
    if not intact:
        raise ValueError(words)


def _in_this_schema(content: Any, converters: Mapping[int, Converter]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError("it is not an object")
    if "schema" not in content:
        raise ValueError("schema is missing")
    while content["schema"] != SCHEMA:
        if content["schema"] not in converters:
            raise ValueError(
                f"its schema is {content['schema']!r:.40}, this program reads {SCHEMA}"
            )
        content = converters[content["schema"]](content)
    return content
