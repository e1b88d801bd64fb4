"""How files are damaged and forged for tests/faults.py: JSON in, text out, all from a seed."""

import base64
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""The names and numbers that lead to a field of a file."""

RAW = "@raw@"
"""Begins a text that stands for JSON which Python's encoder does not write."""
OTHERS = (None, True, False, "text", "", " ", 0, 3, -1, 2.5, [], {}, [[1]], {"a": {"b": 1}})
NAN = (RAW + "NaN", RAW + "Infinity", RAW + "-Infinity", RAW + "1e999", "NaN", "nan", "inf")
HUGE = (10**30, 2**63 - 1, -(2**63), 2**31, 1e308, -1e308, 1e99, 1e16, 5e-324)
HUGE += (RAW + "9" * 5000, RAW + "0." + "1" * 5000)
ODD = (
    "\ud800",
    "\0",
    "\u202edesrever",
    "a\nb|c`d\r\n# e",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "=cmd|' /C calc'!A0",
    "\\input{/etc/passwd}$x$",
    "😀" * 50,
    "\u0430\u0441\u0441",  # acc in Cyrillic
    "e" + "\u0301" * 300,
    "../../x",
    "-->" + "]]>" + "</script>",
    "\x1b[31mred\x1b[0m",
    "²",
)
FREE = ("matrices", "sources", "packages", "hyper", "facts", "values")
"""Objects whose names are no fields."""


def places(content: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all fields."""
    named: Any = content.items() if isinstance(content, dict) else ()
    named = enumerate(content) if isinstance(content, list) else named
    for name, value in named:
        yield (*path, name)
        yield from places(value, (*path, name))


def kinds(content: Any) -> list[list[Path]]:
    """The paths, those together that differ in numbers in lists and in free names alone."""
    found: dict[Path, list[Path]] = {}
    for path in places(content):
        kind = tuple(
            "*" if isinstance(name, int) or (i and path[i - 1] in FREE) else name
            for i, name in enumerate(path)
        )
        found.setdefault(kind, []).append(path)
    return [found[kind] for kind in sorted(found, key=str)]


def at(content: Any, path: Path) -> Any:
    """The field at a path."""
    for name in path:
        content = content[name]
    return content


def huge(value: Any, rng: random.Random) -> Any:
    """A number without bounds, or a text, list or object of the same kind with too much in it."""
    many = rng.choice((10_000, 200_000))
    if isinstance(value, str) and value.partition(":")[0].isdigit():
        return f"{rng.choice((10**12, 10**6))}:{value.partition(':')[2]}"
    if isinstance(value, str):
        return (value or "x") * many
    if isinstance(value, list):
        return (value or [1]) * (many // max(len(value), 1))
    if isinstance(value, dict):
        first = next(iter(value.values()), 1)
        return {**value, **{f"n{number}": first for number in range(many)}}
    return rng.choice(HUGE)


def deep(value: Any, rng: random.Random) -> Any:
    """A field inside so many lists or objects."""
    many = rng.choice((15, 30, 300, 100_000))
    before, behind = rng.choice((("[", "]"), ('{"a":', "}")))
    return RAW + before * many + json.dumps(value) + behind * many


Mutation = Callable[[Any, random.Random], Any]
MUTATIONS: Mapping[str, Mutation] = {
    "type": lambda value, rng: rng.choice(OTHERS),
    "NaN": lambda value, rng: rng.choice(NAN),
    "huge": huge,
    "deep": deep,
    "odd": lambda value, rng: rng.choice(ODD),
}


def mutated(content: Any, rng: random.Random) -> tuple[str, str, Path]:
    """The text of a file with one field mutated, removed or renamed, what was done, and where."""
    content = json.loads(json.dumps(content))
    path = rng.choice(rng.choice(kinds(content)))
    owner, name = at(content, path[:-1]), path[-1]
    how = rng.choice([*MUTATIONS, "removed", "renamed"])
    if how in MUTATIONS:
        owner[name] = MUTATIONS[how](owner[name], rng)
    elif how == "removed" or isinstance(name, int):
        del owner[name]
    else:
        owner[rng.choice(ODD)] = owner.pop(name)
    return written(content), how, path


def written(content: Any) -> str:
    """JSON, with raw texts as they are."""
    raws: list[str] = []

    def stand_in(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(RAW):
            raws.append(value.removeprefix(RAW))
            return f"{RAW}{len(raws) - 1}@"
        if isinstance(value, dict):
            return {name: stand_in(one) for name, one in value.items()}
        return [stand_in(one) for one in value] if isinstance(value, list) else value

    text = json.dumps(stand_in(content))
    for number, raw in enumerate(raws):
        text = text.replace(f'"{RAW}{number}@"', raw)
    return text


def flipped(data: bytes, rng: random.Random) -> bytes:
    """The same bytes with one bit flipped."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# Forged results: each part could be true, and not all of them together -----------------------------


def _denser(content: Any, rng: random.Random) -> None:
    content["remaining"]["density"] *= rng.uniform(0.1, 0.99)
    content["curve"][-1]["remaining"] = content["remaining"]["density"]


def _kept(content: Any, rng: random.Random) -> None:
    matrix = rng.choice(list(content["remaining"]["matrices"].values()))
    matrix["kept"] += 1 if matrix["kept"] < matrix["total"] else -1


def _better(content: Any, rng: random.Random) -> None:
    """The percentage of right answers, wherever it is said, but for the bits."""
    name, value = rng.choice(("acc", "em")), round(rng.uniform(90, 100), 1)
    name = name if name in content["metrics"] else next(iter(content["metrics"]))
    content["curve"] = content["curve"][-1:]
    content["best"]["step"] = content["curve"][0]["step"]
    content["best"]["metrics"] = content["curve"][0]["metrics"] = content["metrics"]
    content["metrics"][name] = value + 0.01


def _last(content: Any, rng: random.Random) -> None:
    last = content["curve"][-1]
    what = rng.choice(("remaining", "step", "metrics"))
    owner, name = (last, what) if what != "metrics" else (last["metrics"], "acc")
    name = name if name in owner else next(iter(owner))
    owner[name] = owner[name] / 2 + 0.001 if what != "step" else owner[name] + 1


def _steps(content: Any, rng: random.Random) -> None:
    low, high = rng.choice((("taken", "planned"), ("planned", "recipe")))
    content["steps"][low] = content["steps"][high] + rng.randrange(1, 1000)


def _parameters(content: Any, rng: random.Random) -> None:
    name = rng.choice(("new", "artifact_bytes", "other", "mask_bits"))
    content["parameters"][name] += rng.randrange(33, 1000)


def _bits(content: Any, rng: random.Random) -> None:
    """All answers are right."""
    number = int(content["correct"]["validation"].partition(":")[0])
    ones = base64.b64encode(((1 << number) - 1 << -number % 8).to_bytes(-(-number // 8), "big"))
    content["correct"]["validation"] = f"{number}:{ones.decode()}"


def _fewer(content: Any, rng: random.Random) -> None:
    """Half of the examples, with a metric that fits them."""
    content.pop("answers")
    content["correct"]["validation"] = "500:" + base64.b64encode(bytes(63)).decode()
    _better(content, rng)
    content["metrics"] |= dict.fromkeys(content["metrics"], 0.0)


def _best(content: Any, rng: random.Random) -> None:
    metrics = dict(content["best"]["metrics"])
    content["best"]["metrics"] = {name: 99.0 + rng.random() for name in metrics}


def _layers(content: Any, rng: random.Random) -> None:
    """A matrix is another than in the other trials of its method."""
    matrices = content["remaining"]["matrices"]
    name = rng.choice(list(matrices))
    matrices[f"another.{name}"] = matrices.pop(name)


FORGERIES: Mapping[str, Callable[[Any, random.Random], None]] = {
    "density": _denser,
    "kept": _kept,
    "metric": _better,
    "million": lambda content, rng: content["metrics"].update(acc=1e6),
    "last of curve": _last,
    "steps": _steps,
    "parameters": _parameters,
    "bits": _bits,
    "fewer examples": _fewer,
    "best": _best,
    "matrices": _layers,
}
