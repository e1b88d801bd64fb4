"""Named factories for methods, tasks, suites and scales."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from zoo.errors import BenchmarkError, ConfigError, cause_of, one_line, unknown
from zoo.parts.ranges import RATES, Ranges, checked
from zoo.records.codec import Record, fields_of, from_json
from zoo.records.facts import MethodFacts, in_order
from zoo.records.trial import SLUG, SLUG_WORDS

Make = TypeVar("Make", bound=Callable[..., Any])
Facts = TypeVar("Facts", bound=Record)


@dataclass(frozen=True)
class NoFacts(Record):
    """Tasks, suites and scales are registered by name alone."""


@dataclass(frozen=True)
class Entry(Generic[Facts]):
    """A registered name: its factory, where it is defined, what its registration says about it.

    `recipe` says where values come from: for a method a function of a Request or the name of a
    method whose recipe it uses, for a task the task of the papers whose recipes it follows.
    `ranges` are what `--tune` searches for a method.
    """

    name: str
    make: Callable[..., Any]
    file: str
    line: int
    facts: Facts
    recipe: Callable[..., Any] | str | None = None
    ranges: Ranges = field(default_factory=lambda: RATES, compare=False)

    @property
    def origin(self) -> str:
        """File and line of the definition, for messages."""
        relative = os.path.relpath(self.file)
        return f"{self.file if relative.startswith('..') else relative}:{self.line}"

    def takes(self, name: str) -> bool:
        """Whether the factory takes a hyper-parameter of this name."""
        parameters = inspect.signature(self.make).parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @property
    def may_retrain(self) -> bool:
        """Whether it prunes a dense model at once and takes steps only if it is asked to, at the
        learning rates of the dense model."""
        return "retrain" in self.parameters

    @property
    def parameters(self) -> list[str]:
        """Names of the factory's hyper-parameters."""
        parameters = inspect.signature(self.make).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD][1:]

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters that the factory sets where neither recipe nor suite does."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        return ((self.make.__doc__ or "").strip() or "(no description)").splitlines()[0]


@contextmanager
def blaming(what: str, entry: Entry[Any]) -> Iterator[None]:
    """Inside, a user's function is called; what its own code raises becomes a ConfigError that says
    where it is defined."""
    try:
        yield
    except BenchmarkError:
        raise
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise ConfigError(f"{what} ({entry.origin}): {cause_of(error)}") from error


class Registry(Generic[Facts]):
    """Factories of one kind by name. A name can be taken once; an unknown name is answered with
    the nearest known one."""

    def __init__(self, kind: str, facts: type[Facts]):
        self.kind = kind
        self.facts = facts
        self._entries: dict[str, Entry[Facts]] = {}

    def register(
        self,
        name: str,
        *,
        recipe: Callable[..., Any] | str | None = None,
        ranges: Ranges | None = None,
        **facts: Any,
    ) -> Callable[[Make], Make]:
        """Return a decorator that registers a factory; raises ConfigError for a bad or taken name
        and for a fact that is unknown or of another type."""
        if not isinstance(name, str) or not SLUG.fullmatch(name):
            raise ConfigError(f"{self.kind} name {name!r:.80} must be {SLUG_WORDS}")
        for fact in facts:
            if fact not in (names := [f.name for f in fields_of(self.facts)]):
                raise ConfigError(f"{self.kind} {name}: {unknown('fact', fact, names)}")
        try:
            known = from_json(self.facts, facts)
        except ValueError as error:
            raise ConfigError(f"{self.kind} {name}: {one_line(error, 200)}") from None
        self._check_label(name, known)
        searched = checked(ranges, f"{self.kind} {name}")

        def add(make: Make) -> Make:
            code = make.__code__
            file, line = os.path.abspath(code.co_filename), code.co_firstlineno
            entry = Entry(name, make, file, line, known, recipe, searched)
            if name in self._entries:
                raise ConfigError(
                    f"{self.kind} {name!r} exists already: defined at"
                    f" {self._entries[name].origin} and again at {entry.origin}; rename one"
                )
            self._entries[name] = entry
            return make

        return add

    def _check_label(self, name: str, facts: Facts) -> None:
        """Raise ConfigError for facts by which people would take the name for another."""

    def __getitem__(self, name: str) -> Entry[Facts]:
        if name not in self._entries:
            raise ConfigError(unknown(self.kind, name, self._entries))
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[Facts]]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


class Methods(Registry[MethodFacts]):
    """The registry of methods, in the order of listings and tables."""

    def __iter__(self) -> Iterator[Entry[MethodFacts]]:
        facts = {name: entry.facts for name, entry in self._entries.items()}
        return iter([self._entries[name] for name in in_order(facts)])

    def _check_label(self, name: str, facts: MethodFacts) -> None:
        own = {shown.casefold() for shown in (name, facts.label) if shown}
        for other, entry in self._entries.items():
            theirs = {shown.casefold() for shown in (other, entry.facts.label) if shown}
            if other != name and own & theirs:
                raise ConfigError(
                    f"method {name}: its name or label {facts.label!r:.80} is that of {other}"
                    f" ({entry.origin}); choose another"
                )

    @property
    def teacher(self) -> str:
        """The method whose trials teach in distillation."""
        found = [entry.name for entry in self if entry.facts.teaches]
        if len(found) != 1:
            raise ConfigError(
                f"one method must be registered with teaches=True, {len(found)} are:"
                f" {', '.join(found) or 'none'}"
            )
        return found[0]


methods = Methods("method", MethodFacts)
tasks = Registry("task", NoFacts)
suites = Registry("suite", NoFacts)
scales = Registry("scale", NoFacts)
REGISTRIES: tuple[Registry[Any], ...] = (methods, tasks, suites, scales)


def register_method(
    name: str,
    *,
    recipe: Callable[..., Any] | str | None = None,
    ranges: Ranges | None = None,
    **facts: Any,
) -> Callable[[Make], Make]:
    """Register a factory `(density, **hyper) -> Method` under a name.

    `recipe` says where its hyper-parameters come from: a function of a Request, or the name of a
    registered method whose recipe it uses. `ranges` are what `--tune` searches, by name of the
    value; without them the learning rates, a factor of 4 both ways. `facts` are fields of
    MethodFacts: label, family, order, prunes, control, teaches, drives. Raises ConfigError for a
    bad or taken name, a bad range and a bad fact.

    >>> from zoo import Method, register_method
    >>> @register_method("plain_again", recipe="dense", family="controls", prunes=False)
    ... def plain_again(density):
    ...     "Fine-tuning of all weights."
    ...     return Method()
    """
    return methods.register(name, recipe=recipe, ranges=ranges, **facts)


def register_task(name: str, *, recipes_of: str | None = None) -> Callable[[Make], Make]:
    """Register a factory `() -> Task`; `recipes_of` names the task of the papers whose recipes it
    uses.

    >>> from dataclasses import replace
    >>> from zoo import register_task
    >>> from tasks.glue import sst2
    >>> @register_task("short_reviews", recipes_of="sst2")
    ... def short_reviews():
    ...     "SST-2 under another name."
    ...     return replace(sst2(), name="short_reviews")
    """
    return tasks.register(name, recipe=recipes_of)


def register_suite(name: str) -> Callable[[Make], Make]:
    """Register a function `(scale, **axes) -> list[Cell]`.

    >>> from zoo import grid, register_suite
    >>> @register_suite("two_methods")
    ... def two_methods(scale, **given):
    ...     "Movement beside magnitude at 10 %."
    ...     return grid(scale, given, methods=("magnitude", "movement"), densities=(0.1,))
    """
    return suites.register(name)


def register_scale(name: str) -> Callable[[Make], Make]:
    """Register a factory `() -> Scale`: the model, the tasks and the values that suites run with.

    >>> from zoo import Scale, register_scale
    >>> @register_scale("mine")
    ... def mine():
    ...     "My model on SST-2."
    ...     return Scale(name="mine", tasks=("sst2",), model="my-model", about="my own model")
    """
    return scales.register(name)
