#!/usr/bin/env python3
"""Run a benchmark suite: plan it, run what is pending, rebuild the leaderboard."""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from leaderboard.collect import collect
from leaderboard.files import write, write_board
from leaderboard.prose import excluded
from zoo.ends import command, leave, listen, say
from zoo.engine.build import Resources
from zoo.engine.settings import usual_settings
from zoo.engine.snapshots import TRAINING, ask_to_end, asked_to_end
from zoo.errors import StorageError, Terminated, TrialError, one_line
from zoo.records.reading import FAILED
from zoo.records.result import Outcome, Plan
from zoo.records.storage import check_folder, make_folder, save_plan, write_whole
from zoo.registry import blaming, suites
from zoo.runs import cluster
from zoo.runs.beside import dense_cells, every_job, with_checkpoints
from zoo.runs.claims import now_in
from zoo.runs.command import Settings, check, load_plugins, make_parser
from zoo.runs.estimate import longest_first
from zoo.runs.inline import Executor, Report, inline
from zoo.runs.jobs import Job
from zoo.runs.judging import TOUCHED, as_before_plugins
from zoo.runs.keeping import MODELS, Keeper
from zoo.runs.pending import Pending, pending
from zoo.runs.plan import Planner
from zoo.runs.processes import Processes
from zoo.runs.progress import Progress
from zoo.runs.ray_tune import RayTune
from zoo.runs.show import print_list, print_plan, print_trials, print_values, workers_of
from zoo.runs.suites import Cell
from zoo.runs.tuning import Tuner


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    told: list[int] = []

    def end(number: int, frame: Any) -> None:
        """End at once, or after a snapshot of the trial that trains here, unless asked again."""
        told.append(number)
        if asked_to_end() or not ask_to_end():
            raise Terminated(number)

    listen(end, (signal.SIGTERM, signal.SIGHUP))
    try:
        options = make_parser().parse_args(argv)
        plugins = load_plugins(options.plugin)
        usual_settings()  # a plugin may have set others
        if options.list:
            print_list()
            return 0
        return run_suite(check(options, plugins))
    except KeyboardInterrupt:  # Ray makes one of a Terminated, therefore `told`
        bar = "\n" if sys.stdout.isatty() else ""
        say(f"{bar}stopped; finished trials are kept. To continue: {command_line(argv)}")
        return 128 + (told or [signal.SIGINT])[0]


def command_line(argv: Sequence[str] | None) -> str:
    """The command as the user may type it again."""
    return shlex.join(["python", "run_benchmark.py", *(sys.argv[1:] if argv is None else argv)])


def run_suite(settings: Settings) -> int:
    """Plan, show or run, and rebuild the leaderboard; returns the exit code."""
    planner = Planner(
        scale=settings.scale,
        version=settings.version,
        model=settings.model,
        data_dir=settings.data_dir,
        plugins=settings.plugins,
        conditions=settings.conditions,
    )
    scale = settings.scale
    print(f"suite {settings.suite}, scale {scale.name}: {scale.about}", flush=True)
    cells = cells_of(settings)
    planner = with_checkpoints(planner, settings.beside)
    jobs = every_job(planner, cells, settings.options)  # checks them before anything is tuned
    for path in (settings.folder, settings.cache):
        check_folder(path) if settings.dry_run else make_folder(path)
    if settings.conditions.tune:
        planner = every_tuned(planner, settings, cells)
        jobs = every_job(planner, cells, settings.options)
    folder, cache = settings.folder, settings.cache
    keeper = Keeper(settings.save, folder, looking=settings.dry_run)
    state = pending(jobs, folder, cache, take_over=not settings.dry_run, keeper=keeper)
    print_plan(planner, settings, jobs, state)
    if settings.dry_run:
        if not settings.conditions.tune:
            print_trials(planner, jobs, state, workers_of(settings))
        print_values(settings, jobs)
        return 0
    progress = Progress(len(state.jobs), partial(write, folder, figures=False))
    written: list[str] = []
    report = every(progress, keeper, lambda record: written.append(record.trial.id))
    facts = {job.trial.method: job.facts for job in jobs}
    caveats = {scale.name: scale.caveat} if scale.caveat else {}
    with progress.showing(cache):
        make_ready(planner, state, settings)
        save_plan(Plan(tuple(job.trial for job in jobs), facts, caveats), folder)
        execute(planner, state, settings, folder, report, folder / MODELS)
    if settings.latency:
        time_forms(planner, settings, folder, jobs)
    return finish(folder, progress, written)


def time_forms(planner: Planner, settings: Settings, folder: Path, jobs: Collection[Job]) -> None:
    """Time the kept models of these jobs in all their forms, after all trials have ended."""
    from zoo.tools.measured import Measurement, measure_suite

    if not any((folder / MODELS).glob("[!.]*")):
        print("no model was kept, so none is timed", flush=True)
        return
    print("timing the kept models in all their forms:", flush=True)
    for one in (planner, *planner.beside):
        trials = {job.trial.id for job in jobs if planner.of(job.trial) is one}
        if one is not planner:
            print(f"those of {one.checkpoint.name}:", flush=True)
        how = Measurement(model=one.located, data_dir=settings.data_dir, threads=settings.cpus)
        measure_suite(folder, trials, how, partial(print, flush=True))


def make_ready(planner: Planner, state: Pending, settings: Settings) -> None:
    """Look for the cluster, tokenise what is left to run, and set unreadable files aside."""
    if state.jobs:
        if settings.executor == "ray":
            cluster.check_version()
            cluster.check_address(cluster.address())
        planner.tokenise(state.jobs, settings.cache)
        state.set_aside()


def execute(
    planner: Planner,
    state: Pending,
    settings: Settings,
    folder: Path,
    report: Report,
    models: Path | None = None,
) -> None:
    """Run what is left, the longest first; trained models are kept in `models`."""
    if state.jobs:
        ordered = longest_first(state.jobs, planner)
        given = replace(
            resources(settings, planner),
            snapshots=str(folder / TRAINING) if settings.minutes else "",
            since=now_in(folder),
            trial_minutes=settings.timeout,
        )
        if models is not None and settings.save != "none":
            given = replace(given, models=str(models))
        if has_plugins(settings):
            write_whole(settings.cache / TOUCHED, b"")
            as_before_plugins()
        executor(settings)(ordered, given, folder, report)


def every(*reports: Callable[[Outcome], object]) -> Report:
    """All reports of a record, one after the other."""

    def report(record: Outcome) -> None:
        for one in reports:
            one(record)

    return report


def tuned(planner: Planner, settings: Settings, cells: Sequence[Cell]) -> Planner:
    """The planner with values that were chosen among candidates, which are run where they lack a
    result."""
    folder, cache = settings.folder / "tuning", settings.cache

    def run(choosing: Planner, jobs: Sequence[Job], what: str) -> None:
        state = pending(jobs, folder, cache)
        left = len(state.jobs)
        print(f"{what}: {len(jobs)} trials, {len(state.done)} done, {left} to run", flush=True)
        progress = Progress(left)
        with progress.showing(cache):
            make_ready(choosing, state, settings)
            execute(choosing, state, settings, folder, progress)

    tuner = Tuner(planner, folder, run, say=partial(print, flush=True))
    if settings.dry_run:
        print(*tuner.plan(cells), sep="\n")
        return planner
    return tuner.tuned(cells)


def every_tuned(planner: Planner, settings: Settings, cells: Sequence[Cell]) -> Planner:
    """The same for the checkpoints beside too, with as many candidates."""
    dense = dense_cells(cells)
    others = tuple(tuned(other, settings, dense) for other in planner.beside)
    return replace(tuned(planner, settings, cells), beside=others)


def cells_of(settings: Settings) -> list[Cell]:
    """The suite's cells; a suite may be a user's code."""
    entry = suites[settings.suite]
    with blaming(f"suite {entry.name}", entry):
        return list(entry.make(settings.scale, **settings.given))


def executor(settings: Settings) -> Executor:
    """What runs the jobs."""
    if settings.executor == "ray":
        return RayTune(settings.cpus, settings.gpus)
    apart = has_plugins(settings) or settings.workers > 1 or settings.timeout > 0
    return Processes(settings.workers) if apart else inline


def has_plugins(settings: Settings) -> bool:
    """Whether this process has run code of users' files."""
    return any(plugin.path for plugin in settings.plugins)


def resources(settings: Settings, planner: Planner) -> Resources:
    """What trials run with: absolute paths, and the commit of a model on the hub."""
    return Resources(
        model=planner.located,
        data_dir=settings.data_dir and str(Path(settings.data_dir).expanduser().resolve()),
        cache=str(settings.cache),
        plugins=settings.plugins,
        threads=settings.cpus,
        snapshot_minutes=settings.minutes,
        environment={
            "git": git_state(),
            "options": tuple(settings.options(planner.model)),
            "caveat": settings.scale.caveat,
        },
    )


def git_state() -> str:
    """The commit of this checkout, with '+' if files differ from it; '' outside git."""
    root = Path(__file__).parent
    try:
        asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
        how: dict[str, Any] = {"cwd": root, "capture_output": True, "check": True}
        said = [subprocess.run(["git", *words], **how).stdout.strip() for words in asked]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said[0].decode()[:12] + "+" * bool(said[1])


def finish(folder: Path, progress: Progress, written: Sequence[str]) -> int:
    """Write the leaderboard, name what went wrong; returns the exit code. Raises StorageError if
    the records of trials that this run has ended are no longer there."""
    there = {path.name for path in folder.glob("*.json")}
    lost = [id for id in written if there.isdisjoint((f"{id}.json", f"{id}{FAILED}.json"))]
    board = collect(folder)
    page = write_board(board, folder)
    for line in map(one_line, excluded(board)):
        print(line)
    for title, lines in (("diverged", progress.diverged), ("failed", progress.failures)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"leaderboard: {os.path.relpath(page)}")
    if lost:
        raise StorageError(
            f"{len(lost)} of the {len(written)} records that this run has written are no longer in"
            f" {folder}: it was changed meanwhile; run the same command again to make them anew"
        )
    return TrialError.exit_code if progress.failures else 0


if __name__ == "__main__":
    leave(main())
