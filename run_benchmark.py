#!/usr/bin/env python3
"""Run a benchmark suite: plan it, run what is pending, rebuild the leaderboard."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

import zoo.suites  # noqa: F401  registers the suites
from leaderboard import write
from zoo.build import FULL, PRECISIONS, Place
from zoo.errors import BenchmarkError, ConfigError, TrialError
from zoo.estimate import longest_first, seconds_of, words
from zoo.fidelity import lines_of
from zoo.launch import Executor, Pending, RayTune, inline, pending
from zoo.plan import Job, Planner, check_density, teacher_of
from zoo.progress import Progress
from zoo.recipes import RECIPES, Value
from zoo.registry import (
    BUILT_IN,
    Plugin,
    find_plugin,
    load_plugin,
    methods,
    one_line,
    suites,
    tasks,
    unknown,
)
from zoo.suites import SCALES, Cell, Scale
from zoo.trial import save_plan

RESULT_KB = 8
EXECUTORS = ("ray", "inline")
DISTILL = {"off": (False,), "on": (True,), "both": (False, True)}


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a run as Ctrl-C does, and no trial takes it for a fault of its own."""


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line with the nearest known option, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message:
            given = message.split(":", 1)[1].split()[0]
            message = unknown("option", given, [o for a in self._actions for o in a.option_strings])
        raise ConfigError(message)


def make_parser() -> argparse.ArgumentParser:
    """The command line; a test holds its options."""
    p = Parser(prog="run_benchmark.py", description=__doc__, allow_abbrev=False)
    p.add_argument("--suite", help="what to run; see --list")
    p.add_argument("--scale", help="on what: tiny (embedded, the default) or base (the papers')")
    p.add_argument("--model", help="a checkpoint: folder or hub name (then --scale is base)")
    p.add_argument("--data-dir", help="a folder with glue/ and squad/ (then --scale is base)")
    p.add_argument("--tasks", help="names separated by commas, instead of the suite's")
    p.add_argument("--methods", help="names separated by commas, instead of the suite's")
    p.add_argument("--densities", help="fractions of weights that remain, e.g. 0.5,0.1")
    p.add_argument("--seeds", help="whole numbers separated by commas, e.g. 0,1,2")
    p.add_argument("--distill", help="off, on or both, instead of the suite's")
    p.add_argument("--recipe", default="released", help="released (default) or paper")
    p.add_argument(
        "--plugin", action="append", default=[], help="a .py file of your own; repeatable"
    )
    p.add_argument("--results", default="results", help="where results go (default: results)")
    p.add_argument("--executor", default="ray", help="ray (default) or inline: in this process")
    p.add_argument("--gpus-per-trial", help="share of a GPU per trial, e.g. 0.5")
    p.add_argument("--cpus-per-trial", help="CPU threads per trial (default 1)")
    p.add_argument("--precision", default=FULL, help="of training: float32 (default) or bfloat16")
    p.add_argument("--compile", action="store_true", help="training by torch.compile, for GPUs")
    p.add_argument("--max-steps", help="stop trainings early; results are marked as shortened")
    p.add_argument("--dry-run", action="store_true", help="show trials, cost and recipes, run none")
    p.add_argument("--list", action="store_true", help="show methods, tasks and suites")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run(make_parser().parse_args(argv))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of what is printed, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print("\nstopped; what was finished is kept. Go on with the same command:", file=sys.stderr)
        print(f"  {command_line(argv)}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130


def _terminated(number: int, frame: Any) -> NoReturn:
    raise Terminated


def command_line(argv: Sequence[str] | None) -> str:
    """The command as the user may type it again."""
    return shlex.join(["python", "run_benchmark.py", *(sys.argv[1:] if argv is None else argv)])


def _run(options: argparse.Namespace) -> int:
    plugins = load_plugins(options.plugin)
    if options.list:
        print_list()
        return 0
    return run_suite(check(options, plugins))


@dataclass(frozen=True)
class Settings:
    """The command line after checking; axes that were not given are not in `given`."""

    suite: str
    scale: Scale
    model: str
    data_dir: str | None
    recipe: str
    given: Mapping[str, tuple[Any, ...]]
    plugins: tuple[Plugin, ...]
    results: Path
    executor: str
    cpus: int
    gpus: float | None
    max_steps: int | None
    precision: str
    compile: bool
    dry_run: bool


def check(options: argparse.Namespace, plugins: tuple[Plugin, ...]) -> Settings:
    """Check every option before anything is loaded. Raises ConfigError."""
    if not options.suite:
        raise ConfigError("give --suite NAME; --list shows the suites")
    suites[options.suite]
    local = options.model is not None or options.data_dir is not None
    for option, value in (("--model", options.model), ("--data-dir", options.data_dir)):
        if value == "":
            raise ConfigError(f"{option} is empty; give a folder, or leave it out")
    name = options.scale or ("base" if local else "tiny")
    one_of("scale", name, SCALES)
    one_of("executor", options.executor, EXECUTORS)
    one_of("recipe", options.recipe, RECIPES)
    one_of("precision", options.precision, PRECISIONS)
    given: dict[str, tuple[Any, ...]] = {}
    for axis, registry in (("tasks", tasks), ("methods", methods)):
        if getattr(options, axis) is not None:
            given[axis] = items(axis, getattr(options, axis), str)
            for one in given[axis]:
                registry[one]
    if options.densities is not None:
        given["densities"] = items("densities", options.densities, float)
        for density in given["densities"]:
            check_density(density)
    if options.seeds is not None:
        given["seeds"] = items("seeds", options.seeds, int)
        if min(given["seeds"]) < 0:
            raise ConfigError(f"--seeds must be 0 or more, got {min(given['seeds'])}")
    if options.distill is not None:
        one_of("value of --distill", options.distill, DISTILL)
        given["distill"] = DISTILL[options.distill]
    scale = SCALES[name]
    gpus = positive("--gpus-per-trial", options.gpus_per_trial, float, least=0)
    if options.executor == "inline" and gpus is not None:
        raise ConfigError("--gpus-per-trial belongs to --executor ray; inline uses what torch sees")
    return Settings(
        suite=options.suite,
        scale=scale,
        model=options.model or scale.model,
        data_dir=options.data_dir,
        recipe=options.recipe,
        given=given,
        plugins=plugins,
        results=Path(options.results).expanduser().resolve(),
        executor=options.executor,
        cpus=positive("--cpus-per-trial", options.cpus_per_trial or "1", int),
        gpus=gpus,
        max_steps=positive("--max-steps", options.max_steps, int),
        precision=options.precision,
        compile=options.compile,
        dry_run=options.dry_run,
    )


def one_of(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise ConfigError with the nearest known name unless `name` is known."""
    if name not in known:
        raise ConfigError(unknown(kind, name, known))


def items(axis: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Values separated by commas, without repetition."""
    try:
        values = tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
    except ValueError:
        what = {"densities": "fractions such as 0.5,0.1", "seeds": "whole numbers such as 0,1,2"}
        raise ConfigError(f"--{axis} must be {what[axis]}, got {text!r}") from None
    return values


def positive(option: str, text: str | None, kind: Callable[[str], Any], least: float = 1) -> Any:
    """A number of at least `least`, or None if the option was not given."""
    if text is None:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{option} must be {what} of at least {least:g}, got {text!r}")
    return value


def run_suite(settings: Settings) -> int:
    """Plan, show or run, and rebuild the leaderboard; returns the exit code."""
    planner = Planner(
        scale=settings.scale,
        recipe=settings.recipe,
        model=settings.model,
        data_dir=settings.data_dir,
        plugins=settings.plugins,
        max_steps=settings.max_steps,
        precision=settings.precision,
        compile=settings.compile,
    )
    print(
        f"suite {settings.suite}, scale {settings.scale.name}: {settings.scale.about}", flush=True
    )
    cells = cells_of(settings)
    jobs = planner.jobs(cells)
    folder, cache = settings.results / settings.suite, settings.results / ".cache"
    state = pending(jobs, folder, cache, take_over=not settings.dry_run)
    print_plan(planner, settings, jobs, state)
    if settings.dry_run:
        print_trials(planner, settings, jobs, state)
        print_recipes(planner, [*cells, *teachers_of(cells, jobs)])
        return 0
    progress = Progress(len(state.jobs), workers(settings), partial(write, folder, figures=False))
    if state.jobs:
        planner.prepare(state.jobs, cache)
        state.set_aside()
    save_plan((job.trial for job in jobs), folder)
    if state.jobs:
        ordered = longest_first(state.jobs, planner)
        executor(settings)(ordered, place(settings, cache), folder, progress)
    return finish(folder, progress)


def cells_of(settings: Settings) -> list[Cell]:
    """The suite's cells; a suite may be anybody's code."""
    entry = suites[settings.suite]
    try:
        return list(entry.make(settings.scale, **settings.given))
    except ConfigError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"suite {entry.name} ({entry.origin}): {reason}") from error


def print_plan(planner: Planner, settings: Settings, jobs: Sequence[Job], state: Pending) -> None:
    """The first lines of a run: on what it runs and how much of it is left."""
    checkpoint = planner.checkpoint
    print(f"model {checkpoint.name} ({checkpoint.sha[:12]}), recipe {settings.recipe}")
    for line in (*planner.notes(jobs), *state.remarks):
        print(line)
    if any("max_steps" in job.trial.train for job in jobs):
        print(
            f"SHORTENED to at most {settings.max_steps} steps: these results never share a table"
            " with full ones"
        )
    print(f"{len(jobs)} trials: {len(state.done)} done, {len(state.jobs)} to run", flush=True)


def print_trials(planner: Planner, settings: Settings, jobs: Sequence[Job], state: Pending) -> None:
    """Every trial, whether it is done, and a rough cost of those that are not."""
    left = {job.trial.id for job in state.jobs}
    for job in jobs:
        print(f"  {'to run' if job.trial.id in left else 'done  '}  {job.trial.id}")
    seconds = seconds_of(state.jobs, state.done, planner)
    source = "from trials that ran" if state.done else "rough, from arithmetic"
    number = workers(settings)
    print(
        f"cost of what is left: {words(seconds)} of one worker, {words(seconds / number)} with"
        f" {number} workers ({source}); {len(state.jobs) * RESULT_KB / 1000:.1f} MB of results"
    )


def teachers_of(cells: Iterable[Cell], jobs: Iterable[Job]) -> list[Cell]:
    """The cells of teachers that the jobs hold and the suite does not name."""
    taught = {(job.trial.task, job.trial.seed) for job in jobs if job.teaches}
    return [teacher_of(cell) for cell in cells if (cell.task, cell.seed) in taught]


def print_recipes(planner: Planner, cells: Iterable[Cell]) -> None:
    """Every value that trials train with and its source, once for all seeds."""
    groups: dict[tuple[Any, ...], dict[tuple[float, bool], Any]] = {}
    seeds: dict[int, None] = {}
    for cell in cells:
        train, hyper = planner.values(cell)
        entry = methods[cell.method]
        source = f"the method's default, {entry.origin}"
        defaults = {name: Value(value, source) for name, value in entry.defaults.items()}
        key = cell.density, cell.distill
        groups.setdefault((cell.method, cell.task, cell.given), {})[key] = train | defaults | hyper
        seeds[cell.seed] = None
    print(f"seeds {', '.join(map(str, seeds))} (ours; the SMP paper says five, Sanh's log ran 92)")
    if planner.max_steps:
        print(f"steps at most {planner.max_steps} (--max-steps)")
    compiled = ", compiled (--compile)" if planner.compile else ""
    print(f"precision of training {planner.precision} (--precision){compiled}")
    for (method, task, _), values in groups.items():
        print(f"\n{method} on {task}, recipe {planner.recipe}")
        for line in lines_of(values):
            print(f"  {line}")


def workers(settings: Settings) -> int:
    """How many trials run at once on this machine."""
    if settings.executor == "inline":
        return 1
    at_once = (os.cpu_count() or 1) // settings.cpus
    gpus = torch.cuda.device_count()
    if gpus and settings.gpus != 0:
        at_once = min(at_once, int(gpus / (settings.gpus or 1)))
    return max(at_once, 1)


def executor(settings: Settings) -> Executor:
    """What runs the jobs."""
    return inline if settings.executor == "inline" else RayTune(settings.cpus, settings.gpus)


def place(settings: Settings, cache: Path) -> Place:
    """Where trials run; `options` are what a reader must add to the command to run them again."""
    options = []
    if settings.model != settings.scale.model:
        options += ["--model", settings.model]
    if settings.data_dir:
        options += ["--data-dir", settings.data_dir]
    for plugin in settings.plugins:
        options += ["--plugin", plugin.name] if plugin.path else []
    local = Path(settings.model).expanduser()
    return Place(
        model=str(local.resolve()) if local.is_dir() else settings.model,
        data_dir=settings.data_dir and str(Path(settings.data_dir).expanduser().resolve()),
        cache=str(cache),
        plugins=settings.plugins,
        threads=settings.cpus,
        facts={"git": git_state(), "options": options},
    )


def git_state() -> str:
    """The commit of this checkout, with '+' if files differ from it; '' outside git."""
    root = Path(__file__).parent
    try:
        asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
        said = [
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
            for words in asked
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said[0].stdout.strip()[:12] + ("+" if said[1].stdout.strip() else "")


def finish(folder: Path, progress: Progress) -> int:
    """Write the leaderboard, name what went wrong; returns the exit code."""
    page = write(folder)
    for title, lines in (("diverged", progress.diverged), ("failed", progress.failures)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"leaderboard: {os.path.relpath(page)}")
    return TrialError.exit_code if progress.failures else 0


def load_plugins(given: Iterable[str]) -> tuple[Plugin, ...]:
    """Import the built-in methods, tasks and suites, then the user's files."""
    plugins = tuple(find_plugin(name) for name in (*BUILT_IN, *given))
    for plugin in plugins:
        load_plugin(plugin)
    return plugins


def print_list() -> None:
    """Methods, tasks and suites, each with one line."""
    for registry in (methods, tasks, suites):
        print(f"{registry.kind}s")
        width = max(len(entry.name) for entry in registry)
        for entry in registry:
            print(f"  {entry.name:{width}}  {entry.summary}")


if __name__ == "__main__":
    sys.exit(main())
