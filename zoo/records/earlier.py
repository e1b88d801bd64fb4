"""Converters from earlier schemas of the result files, one step each.

A converter takes the content of a file of its schema and returns that of the next. Files on disk
are never changed.
"""

import csv
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

CAVEAT_OF_TINY = (
    "Scale tiny is the embedded laboratory: an artificial language and a very small BERT. Its"
    " metrics compare methods with each other; they say nothing about published numbers. The"
    " learning rates of built-in methods were chosen, among six candidates each, on these"
    " evaluation examples with other seeds (tasks/laboratory/choices.csv); ablations and global"
    " variants have the values of the method that they vary. Nothing was chosen for methods of"
    " one's own."
)
"""What a reader had to know about results of the scale tiny; plans of schema 3 did not say it."""
METHODS_FILE = Path(__file__).with_name("schema_3_methods.csv")
"""Facts about methods that results of schema 3 do not hold: family, order and kind."""


def from_schema_3(content: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 3 had metrics beside other keys in `best` and `curve`, matrices without layer and
    role, no facts about methods, and said in notes alone which part of the data there was."""
    trial = content["trial"]
    if "reason" in content:
        return {**content, "schema": 4, "facts": facts_of_schema_3(trial["method"])}
    new = {name: value for name, value in content.items() if name != "label"}
    best = dict(content["best"])
    chosen = {name: best.pop(name, None) for name in ("candidates", "step")}
    new["best"] = {**chosen, "metrics": best}
    new["curve"] = [_point(point) for point in content["curve"]]
    new["remaining"] = _remaining(content["remaining"])
    new["facts"] = {**facts_of_schema_3(trial["method"]), "label": content["label"]}
    new["distribution"] = content["distribution"] or None
    part = re.compile(rf"{re.escape(trial['task'])}: (\S+ has .* of .* rows|no \S+ set here.*)")
    if trial["scale"] == "tiny":
        new["environment"] = {**content["environment"], "caveat": CAVEAT_OF_TINY}
    new["whole_data"] = not any(map(part.fullmatch, content["notes"]))
    return {**new, "schema": 4}


def plan_of_schema_3(content: list[Any]) -> dict[str, Any]:
    """Plans of schema 3 were a list of trials."""
    names = dict.fromkeys(trial["method"] for trial in content)
    facts = {name: facts_of_schema_3(name) for name in names}
    laboratory = any(trial["scale"] == "tiny" for trial in content)
    caveats = {"tiny": CAVEAT_OF_TINY} if laboratory else {}
    return {"trials": content, "facts": facts, "caveats": caveats, "schema": 4}


Converter = Callable[[Mapping[str, Any]], Mapping[str, Any]]
CONVERTERS: dict[int, Converter] = {3: from_schema_3}
"""By the schema that they read."""

PLACE = re.compile(r"encoder\.layer\.(\d+)\.(.*)")
ROLES = {
    "attention.self.query": "Q",
    "attention.self.key": "K",
    "attention.self.value": "V",
    "attention.output.dense": "O",
    "intermediate.dense": "U",
    "output.dense": "D",
}
"""Schema 3 knew BERT and RoBERTa alone."""


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(point)
    own = {name: rest.pop(name) for name in ("step", "level", "loss")}
    return {**own, "remaining": rest.pop("density"), "metrics": rest}


def _remaining(remaining: Mapping[str, Any]) -> dict[str, Any]:
    matrices = {}
    for name, total in remaining["total"].items():
        found = PLACE.fullmatch(name)
        if found is None or found[2] not in ROLES:
            raise ValueError(f"remaining.total has the matrix {name!r:.80}, unknown to schema 3")
        matrices[name] = {
            "kept": remaining["kept"][name],
            "total": total,
            "layer": int(found[1]),
            "role": ROLES[found[2]],
            "attention_heads": remaining["heads"].get(name, []),
        }
    # The first results of schema 3 had no encoder_density.
    whole = remaining.get("encoder_density", remaining["density"])
    known = ("density", "encoder_density", "kept", "total", "heads")
    rest = {name: value for name, value in remaining.items() if name not in known}
    own = {"density": remaining["density"], "encoder_density": whole, "matrices": matrices}
    return {**rest, **own}


@lru_cache
def _methods() -> dict[str, dict[str, Any]]:
    with METHODS_FILE.open(newline="", encoding="utf-8") as file:
        return {
            row["method"]: {
                "family": row["family"],
                "order": float(row["order"]),
                **{name: row[name] == "yes" for name in ("prunes", "control", "teaches")},
                "drives": row["drives"],
            }
            for row in csv.DictReader(file)
        }


def facts_of_schema_3(method: str) -> dict[str, Any]:
    """The facts of a method by its name; none for a method that a plugin registered."""
    return dict(_methods().get(method, {}))
