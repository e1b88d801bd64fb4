"""The command line of run_benchmark.py: its options, and the settings that they ask for."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, NoReturn

from zoo.errors import ConfigError, one_line, unknown
from zoo.parts.recipes import VERSIONS, Value
from zoo.plugins import BUILT_IN, Plugin, find_plugin, load_plugin
from zoo.records.storage import check_folder
from zoo.records.trial import Conditions, condition_fields, option_of
from zoo.registry import blaming, methods, scales, suites, tasks
from zoo.runs.keeping import SAVE
from zoo.runs.suites import Scale

DISTILL = {"off": (False,), "on": (True,), "both": (False, True)}
EXECUTORS = ("ray", "inline")


class Parser(argparse.ArgumentParser):
    """argparse with errors on one line, the nearest known option, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message:
            given = message.split(":", 1)[1].split()[0]
            message = unknown("option", given, [o for a in self._actions for o in a.option_strings])
        raise ConfigError(message)


def number(kind: Callable[[str], Any], least: float, what: str) -> Callable[[str], Any]:
    """An argparse type: a finite number of at least `least`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be {what} of at least {least:g}, got {text!r}")
        return value

    return parse


def several(kind: Callable[[str], Any], what: str) -> Callable[[str], tuple[Any, ...]]:
    """An argparse type: values separated by commas, without repetition."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None

    return parse


def not_empty(text: str) -> str:
    """An argparse type: a text that is not empty, and that libraries can read in this locale."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a folder, or leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        what = f"{text!r} is not readable in this locale; set LC_ALL=C.UTF-8, or rename it"
        raise argparse.ArgumentTypeError(what) from None
    return text


def existing_folder(text: str) -> str:
    """An argparse type: the path of a folder."""
    path = Path(not_empty(text)).expanduser()
    try:
        what = "is not a folder" if path.exists() else "does not exist"
        if path.is_dir():
            return text
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    shown = one_line(text, 200)
    raise argparse.ArgumentTypeError(f"{shown} {what}; give a folder with glue/ and squad/")


WHOLE = number(int, 1, "a whole number")
NAMES = several(str, "names")
MODELS = several(not_empty, "folders or hub names")
DENSITIES = several(float, "fractions such as 0.5,0.1")
SEEDS = several(int, "whole numbers such as 0,1,2")


def make_parser() -> argparse.ArgumentParser:
    """The command line; a test holds its options."""
    p = Parser(prog="run_benchmark.py", description="Run a benchmark suite.", allow_abbrev=False)
    p.add_argument("--suite", help="what to run; see --list")
    p.add_argument("--scale", help="on what: tiny (embedded, the default) or base (the papers')")
    p.add_argument(
        "--model", type=not_empty, help="a folder or hub name[@revision] (then --scale is base)"
    )
    p.add_argument(
        "--data-dir",
        type=existing_folder,
        help="a folder with glue/ and squad/ (then --scale is base)",
    )
    p.add_argument(
        "--beside", type=MODELS, default=(), help="other models, to be fine-tuned without pruning"
    )
    p.add_argument("--tasks", type=NAMES, help="names separated by commas, not the suite's")
    p.add_argument("--methods", type=NAMES, help="names separated by commas, not the suite's")
    p.add_argument("--densities", type=DENSITIES, help="fractions that remain, e.g. 0.5,0.1")
    p.add_argument("--seeds", type=SEEDS, help="whole numbers separated by commas, e.g. 0,1,2")
    p.add_argument("--distill", choices=DISTILL, help="for all methods, not the suite's")
    p.add_argument(
        "--recipe", choices=VERSIONS, default=VERSIONS[0], help=f"default: {VERSIONS[0]}"
    )
    p.add_argument(
        "--plugin", action="append", default=[], help="a .py file of your own; repeatable"
    )
    p.add_argument(
        "--results",
        type=not_empty,
        default="results",
        help="folder of the results (default: results)",
    )
    _add_running(p)
    add_conditions(p, condition_fields())
    _add_keeping(p)
    p.add_argument("--dry-run", action="store_true", help="show trials, cost and values, run none")
    p.add_argument("--list", action="store_true", help="show methods, tasks, suites and scales")
    return p


def _add_running(p: argparse.ArgumentParser) -> None:
    """Options of how trials run."""
    p.add_argument(
        "--executor", choices=EXECUTORS, default="ray", help="ray (default), or without Ray"
    )
    p.add_argument("--jobs", type=WHOLE, help="processes of inline (default: this one alone)")
    gpus = number(float, 0, "a number")
    p.add_argument("--gpus-per-trial", type=gpus, help="share of a GPU per trial, e.g. 0.5")
    p.add_argument("--cpus-per-trial", type=WHOLE, default=1, help="CPU threads per trial")
    late = "minutes after which a trial is ended, and fails (default 0: it may take any time)"
    p.add_argument("--trial-timeout", type=number(float, 0, "a number"), default=0.0, help=late)


def _add_keeping(p: argparse.ArgumentParser) -> None:
    """Options of what is kept beside results."""
    often = "between snapshots of a trial in training, from which it goes on (default 10; 0: none)"
    minutes = number(float, 0, "a number")
    p.add_argument("--checkpoint-minutes", type=minutes, default=10.0, help=often)
    saves = "trained models that are kept: none (default), best (of the seeds) or all"
    p.add_argument("--save", choices=SAVE, default=SAVE[0], help=saves)
    times = "time a kept model of each row in all its forms, on the CPU; needs --save best or all"
    p.add_argument("--latency", action="store_true", help=times)


def add_conditions(p: argparse.ArgumentParser, wanted: Iterable[Field[Any]]) -> None:
    """An option for each of the wanted fields of Conditions."""
    for f in wanted:
        if f.default is False:
            p.add_argument(option_of(f), action="store_true", help=f.metadata["help"])
        else:
            how: dict[str, Any] = {"choices": f.metadata.get("choices")}
            if "least" in f.metadata:
                how["type"] = number(int, f.metadata["least"], "a whole number")
            p.add_argument(option_of(f), default=f.default, help=f.metadata["help"], **how)


def conditions_of(options: argparse.Namespace, wanted: Iterable[Field[Any]]) -> Conditions:
    """The conditions that a command line with `add_conditions` asks for."""
    return Conditions(**{f.name: getattr(options, f.name) for f in wanted})


@dataclass(frozen=True)
class Settings:
    """The command line after checking; axes that were not given are not in `given`."""

    suite: str
    scale: Scale
    version: str
    model: str
    data_dir: str | None
    given: Mapping[str, tuple[Any, ...]]
    plugins: tuple[Plugin, ...]
    results: Path
    executor: str
    workers: int
    cpus: int
    gpus: float | None
    conditions: Conditions
    minutes: float
    timeout: float
    save: str
    latency: bool
    dry_run: bool
    beside: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the suite's results."""
        return self.results / self.suite

    @property
    def cache(self) -> Path:
        """The folder for tokenised data and outputs of frozen models."""
        return self.results / ".cache"

    def options(self, model: str) -> list[str]:
        """What a reader must add to the command of a row to run its trials, of a model, again; of
        absolute paths the last name alone, since they belong to one machine."""
        words = []
        if model != self.scale.model:
            words += ["--model", _without_folders(model)]
        if self.data_dir:
            words += ["--data-dir", _without_folders(self.data_dir)]
        for plugin in self.plugins:
            words += ["--plugin", _without_folders(plugin.path)] if plugin.path else []
        return words


def _without_folders(given: str) -> str:
    """A path inside the working folder, relative to it; of other absolute paths, which belong to
    one machine, the last name; other names as given."""
    path = Path(given).expanduser()
    if not path.is_absolute():
        return given
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def load_plugins(given: Iterable[str]) -> tuple[Plugin, ...]:
    """Import the built-in methods, tasks, suites and scales, then the user's files."""
    for name in given:
        if not name.endswith(".py"):
            raise ConfigError(f"plugin {name}: give the path of a .py file")
    plugins = tuple(find_plugin(name) for name in (*BUILT_IN, *given))
    for plugin in plugins:
        load_plugin(plugin)
    return plugins


def scale_of(name: str) -> Scale:
    """A registered scale; a ConfigError if its own code raises or returns something else."""
    entry = scales[name]
    with blaming(f"scale {name}", entry):
        made = entry.make()
    if not isinstance(made, Scale):
        raise ConfigError(f"scale {name} ({entry.origin}) must return a zoo.Scale")
    for kind, value in made.values.items():
        if not isinstance(value, Value):
            raise ConfigError(f"scale {name} ({entry.origin}): {kind} must be a zoo.Value")
    return made


def check(options: argparse.Namespace, plugins: Sequence[Plugin]) -> Settings:
    """Check every option before anything is loaded. Raises ConfigError."""
    from zoo.runs.plan import check_density

    if not options.suite:
        raise ConfigError("give --suite NAME; --list shows the suites")
    suites[options.suite]
    local = options.model is not None or options.data_dir is not None
    scale = scale_of(options.scale or ("base" if local else "tiny"))
    axes = ("tasks", "methods", "densities", "seeds")
    given = {axis: getattr(options, axis) for axis in axes if getattr(options, axis) is not None}
    for axis, check_one in (
        ("tasks", tasks.__getitem__),
        ("methods", methods.__getitem__),
        ("densities", check_density),
        ("seeds", _check_seed),
    ):
        for value in given.get(axis, ()):
            check_one(value)
    if options.distill is not None:
        given["distill"] = DISTILL[options.distill]
    _check_together(options)
    return Settings(
        suite=options.suite,
        scale=scale,
        version=options.recipe,
        model=options.model or scale.model,
        data_dir=options.data_dir,
        given=given,
        plugins=tuple(plugins),
        results=check_folder(Path(options.results).expanduser().absolute()).resolve(),
        executor=options.executor,
        workers=options.jobs or 1,
        cpus=options.cpus_per_trial,
        gpus=options.gpus_per_trial,
        conditions=conditions_of(options, condition_fields()),
        minutes=options.checkpoint_minutes,
        timeout=options.trial_timeout,
        save=options.save,
        latency=options.latency,
        dry_run=options.dry_run,
        beside=options.beside,
    )


def _check_together(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go together."""
    if options.executor == "inline" and options.gpus_per_trial is not None:
        raise ConfigError("--gpus-per-trial belongs to --executor ray; inline uses what torch sees")
    if options.executor == "ray" and options.jobs is not None:
        raise ConfigError("--jobs belongs to --executor inline; ray fills the machine by itself")
    if options.latency and options.save == SAVE[0]:
        raise ConfigError("--latency times models that were kept: add --save best")


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"--seeds must be 0 or more, got {seed}")
