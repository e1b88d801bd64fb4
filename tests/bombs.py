"""Files that would take a reader's memory or time, for tests/faults.py: each in place of a result.

A reader may accept those whose content is true, such as a training with very many evaluations."""

import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.records.arrays import MOST_BINS
from zoo.records.codec import MOST_ENTRIES, MOST_LETTERS, from_json
from zoo.records.content import LARGEST, MOST_VALUES
from zoo.records.forms import MOST_LAYERS
from zoo.records.trial import Trial

Bomb = Callable[[Path, Any], Path]
"""Takes a result's file and its content; returns the file that is in its place."""


def _special(make: Callable[[Path], Any]) -> Bomb:
    """Something else than a regular file."""

    def bomb(path: Path, content: Any) -> Path:
        path.unlink()
        make(path)
        return path

    return bomb


def _text(text: str | bytes) -> Bomb:
    """Another content."""

    def bomb(path: Path, content: Any) -> Path:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return bomb


def _filled(before: str, middle: str, behind: str) -> Bomb:
    """JSON that fills a file to its bounds."""
    values = sum(middle.count(mark) for mark in ",[{")
    return _text(
        before
        + middle * min((MOST_VALUES - 9) // max(values, 1), (LARGEST - 99) // len(middle))
        + behind
    )


def _changed(change: Callable[[Any], Any]) -> Bomb:
    """A result with too much of something, under the name of its trial."""

    def bomb(path: Path, content: Any) -> Path:
        change(content)
        path.write_text(json.dumps(content), "utf-8")
        return path.rename(path.with_name(f"{from_json(Trial, content['trial']).id}.json"))

    return bomb


def _often(name: str, many: int) -> Bomb:
    """A list with its first entry, or a small one, so many times."""
    small = {
        "candidates": {"values": {"a": 1}, "metric": 1.0, "remaining": 0.1, "eligible": True},
        "forms": {"name": "packed", "bytes": 5},
        "notes": "a",
    }
    small["candidates"] |= {"chosen": False}
    return _changed(lambda content: content.update({name: [small[name]] * many}))


def _curve(content: Any) -> None:
    last = content["curve"][-1]
    content["curve"] = [last | {"step": step} for step in range(1, 30_001)]
    content["steps"] = dict.fromkeys(("taken", "planned", "recipe"), 30_000)
    content["best"] |= {"step": 30_000, "metrics": last["metrics"]}


def _metrics(content: Any) -> None:
    more = {f"m{number}": 1.0 for number in range(48)}
    for owner in (content, content["curve"][-1], content["best"]):
        owner["metrics"] |= more
    content["curve"] = content["curve"][-1:]
    content["best"] |= {"step": content["curve"][0]["step"], "metrics": content["metrics"]}


def _heads(content: Any) -> None:
    content["trial"]["method"] = "another"  # whose matrices no other result knows
    for number, matrix in enumerate(content["remaining"]["matrices"].values()):
        matrix |= {"layer": number, "attention_heads": [0.1] * MOST_LAYERS}


def _layers(content: Any, many: int = MOST_LAYERS) -> None:
    content["trial"]["method"] = "another"
    matrices = {
        f"m{number}": {
            "kept": 1 + number % 5,
            "total": 100,
            "layer": number,
            "role": "Q",
            "attention_heads": [0.03],
        }
        for number in range(many)
    }
    content["remaining"] |= {"matrices": matrices, "density": 0.03}
    content["curve"][-1]["remaining"] = 0.03
    content["distribution"] = None


def _units(content: Any) -> None:
    kinds = ("attention heads", "queries and keys", "values", "neurons")
    left = list(range(MOST_LAYERS))
    units = [{"kind": kind, "total": MOST_LAYERS, "left": left} for kind in kinds]
    content["forms"] = [{"name": "compact", "bytes": 5, "units": units}]


def _bins(content: Any) -> None:
    """Another shape than other planes of weights and scores have."""
    content["trial"]["method"] = "another"
    found = content["distribution"]
    for name in ("all", "kept"):
        found[name] = [sum(found[name]), *([0] * (MOST_BINS - 1))]
    found["scores"] = base64.b64encode(bytes(MOST_BINS * MOST_BINS)).decode()


BOMBS: Mapping[str, Bomb] = {
    "a pipe": _special(os.mkfifo),
    "a folder": _special(os.mkdir),
    "a link to itself": _special(lambda path: path.symlink_to(path)),
    "an endless device": _special(lambda path: path.symlink_to("/dev/zero")),
    "ten gigabytes": _special(lambda path: path.touch() or os.truncate(path, 10**10)),
    "nothing": _text(""),
    "zeros": _text(bytes(1000)),
    "UTF-16": _text("{}".encode("utf-16")),
    "a byte order mark": _text("\ufeff{}"),
    "lists": _filled("[", "[],", "0]"),
    "objects": _filled("[", '{"a":0},', "0]"),
    "letters": _filled("[", '"a",', "0]"),
    "numbers": _filled("[", "1.5,", "0]"),
    "one text": _filled('"', "a", '"'),
    "digits": _filled("", "9", ""),
    "unknown lists": _filled('{"trial": [', "[],", "0]}"),
    "unknown objects": _filled('{"trial": [', '{"a":{}},', "0]}"),
    "depth": _text("[" * 100_000),
    "10^12 examples": _changed(lambda c: c["correct"].update(validation=f"{10**12}:AA==")),
    "candidates": _often("candidates", MOST_ENTRIES),
    "more candidates": _often("candidates", 40_000),
    "forms": _often("forms", MOST_ENTRIES),
    "more forms": _often("forms", 60_000),
    "notes": _often("notes", 300_000),
    "options": _changed(lambda c: c["environment"].update(options=["-x"] * 300_000)),
    "long notes": _changed(lambda c: c.update(notes=["a" * MOST_LETTERS] * 700)),
    "hyper-parameters": _changed(
        lambda c: c["trial"]["hyper"].update({f"n{i}": "a" * 1000 for i in range(1900)})
    ),
    "sources": _changed(
        lambda c: c["environment"]["sources"].update({f"n{i}": "a" * 1000 for i in range(1900)})
    ),
    "evaluations": _changed(_curve),
    "metrics": _changed(_metrics),
    "heads": _changed(_heads),
    "layers": _changed(_layers),
    "more layers": _changed(lambda content: _layers(content, 2000)),
    "units": _changed(_units),
    "bins": _changed(_bins),
}
FIGURED = ("forms", "evaluations", "metrics", "heads", "layers", "units", "bins")
"""Those that figures show."""
