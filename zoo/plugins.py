"""Plugins: modules and files whose import registers methods, tasks, suites or scales.

Built-ins and plugins are loaded the same way: a plugin is a module (`methods`, `tasks`) or a user's
file (`my_method.py`). Workers import the same plugins as the driver.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, cause_of, one_line
from zoo.registry import REGISTRIES, Entry

BUILT_IN = ("methods", "tasks")
"""Modules that register what the project itself provides."""


@dataclass(frozen=True)
class Plugin:
    """A module to import before a trial; `path` and `sha256` are "" for importable modules."""

    name: str
    path: str = ""
    sha256: str = ""


def load_modules(package: str, path: Iterable[str]) -> None:
    """Import all modules directly in a package, in the order of their names."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def find_plugin(given: str) -> Plugin:
    """The plugin that the user named: a file ending in .py, which is hashed together with the files
    of its folder that it imports, or a module."""
    if not given.endswith(".py"):
        return Plugin(given)
    path = Path(os.path.realpath(Path(given).expanduser()))  # `resolve` may raise RuntimeError
    try:
        content = path.read_bytes()
        helpers = [file.read_bytes() for file in _helpers(path)]
    except OSError as error:
        file = "" if error.filename in (None, str(path)) else f"{Path(error.filename).name}: "
        raise ConfigError(
            f"plugin {one_line(given, 200)}: {file}{error.strerror}; give the path of a .py file"
        ) from None
    digest = hashlib.sha256(content)
    for helper in helpers:
        digest.update(hashlib.sha256(helper).digest())
    return Plugin(path.name, str(path), digest.hexdigest())


def _helpers(path: Path) -> list[Path]:
    """The Python files in the folder of a plugin that it imports, or that those import."""
    found, left = {path}, [path]
    while left:
        for name in _imported(left.pop()):
            whole = path.parent.joinpath(*name.split("."))
            for file in (whole.with_suffix(".py"), whole / "__init__.py"):
                if file.is_file() and file not in found:
                    found.add(file)
                    left.append(file)
    return sorted(found - {path})


def _imported(path: Path) -> set[str]:
    """The names of modules that a file imports, those of packages around them included; none of a
    file that is no Python, which fails when it is loaded."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names}
    ends = [(name, at) for name in names for at, letter in enumerate(f"{name}.") if letter == "."]
    return {name[:at] for name, at in ends}


def load_built_in() -> None:
    """Import what the project itself registers."""
    for name in BUILT_IN:
        load_plugin(find_plugin(name))


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
        before = _entries()
        try:
            _run(plugin, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
            _REGISTERED.update(dict.fromkeys(_entries() - before, plugin.path))
        except ConfigError:
            del sys.modules[name]
            raise


def plugin_of(entry: Entry[Any], plugins: Iterable[Plugin]) -> Plugin | None:
    """The user's plugin file whose import registered `entry`; None if a built-in module's did."""
    path = _REGISTERED.get(entry)
    return next((p for p in plugins if p.path and p.path == path), None)


def needed(plugins: Iterable[Plugin], plugin_sha: str) -> tuple[Plugin, ...]:
    """Of these plugins those that a trial loads: what the project provides, and the files that its
    `plugin_sha` names. Code of no other file runs in its process."""
    own = plugin_sha.split("+")
    return tuple(plugin for plugin in plugins if not plugin.path or plugin.sha256 in own)


_REGISTERED: dict[Entry[Any], str] = {}
"""The plugin file whose import registered an entry."""


def _entries() -> set[Entry[Any]]:
    return {entry for registry in REGISTRIES for entry in registry}


def _run(plugin: Plugin, load: Callable[[], Any]) -> None:
    try:
        load()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a user's file may raise anything at import
        own = [f for f in traceback.extract_tb(error.__traceback__) if _is_of(plugin, f.filename)]
        where = own[-1].filename if own else plugin.path or plugin.name
        line = own[-1].lineno if own else None
        if isinstance(error, SyntaxError) and error.filename:
            where, line = error.filename, error.lineno
        at = f"{where}:{line}" if line else where
        raise ConfigError(f"plugin {at}: {cause_of(error)}") from error


def _is_of(plugin: Plugin, file: str) -> bool:
    """Whether a file is the plugin, or stands in the folder of a built-in package."""
    if plugin.path:
        return file == plugin.path
    package = importlib.util.find_spec(plugin.name)
    folders = (package and package.submodule_search_locations) or []
    inside = any(Path(file).parent == Path(folder) for folder in folders)
    return inside and Path(file).name != "__init__.py"


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Remove what a plugin registered before it raised."""
    before = [(registry, dict(registry._entries)) for registry in REGISTRIES]
    try:
        yield
    except ConfigError:
        for registry, entries in before:
            registry._entries = entries
        raise
