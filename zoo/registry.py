"""Named factories for methods, tasks and suites, and the plugins that fill them.

Built-in names and users' names take the same way: a plugin is a module (`methods`, `tasks`) or a
file (`my_method.py`) whose import registers what it defines. A worker imports the same plugins.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from zoo.errors import ConfigError

BUILT_IN = ("methods", "tasks")
Factory = TypeVar("Factory", bound=Callable[..., Any])
SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """One registered name: its factory, where it was defined, and facts for tables and listings."""

    name: str
    make: Callable[..., Any]
    file: str
    line: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"{_short(self.file)}:{self.line}"

    def takes(self, name: str) -> bool:
        """Whether the factory takes a hyper-parameter by this name."""
        parameters = inspect.signature(self.make).parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @property
    def defaults(self) -> dict[str, Any]:
        """What the factory takes where a recipe or suite says nothing."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        return ((self.make.__doc__ or "").strip() or "(no description)").splitlines()[0]


class Registry:
    """Factories of one kind by name; a name is taken once, and an unknown one names its nearest."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Factory], Factory]:
        """Decorate a factory with its name; raises ConfigError for a bad or a taken name."""
        if not isinstance(name, str) or not SLUG.fullmatch(name):
            raise ConfigError(
                f"{self.kind} name {name!r:.80} must be 1 to 64 of a-z, 0-9, '_', '.', '-'"
                " and start with a letter or digit"
            )

        def add(make: Factory) -> Factory:
            code = make.__code__
            entry = Entry(name, make, os.path.abspath(code.co_filename), code.co_firstlineno, facts)
            if name in self._entries:
                raise ConfigError(
                    f"{self.kind} {name!r} exists already: defined at"
                    f" {self._entries[name].origin} and again at {entry.origin}; rename one"
                )
            self._entries[name] = entry
            return make

        return add

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise ConfigError(unknown(self.kind, name, self._entries))
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


methods = Registry("method")
tasks = Registry("task")
suites = Registry("suite")
register_method = methods.register
register_task = tasks.register
register_suite = suites.register


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for an unknown `name`: the nearest known name first, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r:.80}{hint} Known: {', '.join(known)}"


@dataclass(frozen=True)
class Plugin:
    """A module to import before a trial; `path` and `sha256` are empty for importable modules."""

    name: str
    path: str = ""
    sha256: str = ""


def find_plugin(given: str) -> Plugin:
    """Resolve what the user wrote: a file ending in .py (hashed), or the name of a module."""
    if not given.endswith(".py"):
        return Plugin(given)
    path = Path(given).expanduser().resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"plugin {given}: {error.strerror}; give the path of a .py file"
        ) from None
    return Plugin(path.name, str(path), hashlib.sha256(content).hexdigest())


def load_plugin(plugin: Plugin) -> None:
    """Import a plugin once per process; raises ConfigError with file and line if it cannot be."""
    with _all_or_nothing():
        if not plugin.path:
            _run(plugin, lambda: importlib.import_module(plugin.name))
            return
        if find_plugin(plugin.path).sha256 != plugin.sha256:
            raise ConfigError(f"plugin {plugin.path} changed since the run was planned; run again")
        name = f"plugin_{plugin.sha256[:16]}"
        if name in sys.modules:
            return
        spec = importlib.util.spec_from_file_location(name, plugin.path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"plugin {plugin.path} is not a Python file")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            _run(plugin, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
        except ConfigError:
            del sys.modules[name]
            raise


def plugin_of(entry: Entry, plugins: Iterable[Plugin]) -> Plugin | None:
    """The user's plugin file that registered `entry`, or None for what an importable module did."""
    return next((p for p in plugins if p.path and p.path == os.path.realpath(entry.file)), None)


def _run(plugin: Plugin, load: Callable[[], Any]) -> None:
    try:
        load()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # what a user's file does at import is theirs to mend
        where = plugin.path or plugin.name
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == where]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        at = f"{where}:{line}" if line else where
        raise ConfigError(f"plugin {at}: {type(error).__name__}: {one_line(error)}") from error


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """A plugin that breaks half-way leaves no name behind."""
    before = [(registry, dict(registry._entries)) for registry in (methods, tasks, suites)]
    try:
        yield
    except ConfigError:
        for registry, entries in before:
            registry._entries = entries
        raise


def one_line(error: object, most: int = 200) -> str:
    """A message made safe for one terminal line: no control characters, at most `most` long."""
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."


def _short(file: str) -> str:
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
