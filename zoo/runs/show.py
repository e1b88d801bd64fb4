"""What run_benchmark.py prints: the plan, the trials and their cost, and where values come from."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from zoo.engine.build import make_method
from zoo.engine.snapshots import KEPT
from zoo.errors import BenchmarkError
from zoo.parts.recipes import Value, Values
from zoo.records.result import GIVEN
from zoo.registry import REGISTRIES, methods
from zoo.runs.command import Settings
from zoo.runs.estimate import duration, memory_of, seconds_of
from zoo.runs.jobs import Job
from zoo.runs.keeping import said
from zoo.runs.pending import Pending
from zoo.runs.plan import Planner

RESULT_KB = 15
"""Approximate size of a result file."""

Setting = tuple[float, bool]
"""Density, and whether with distillation."""


def print_list() -> None:
    """Methods by family, tasks, suites and scales, each with one line."""
    for registry in REGISTRIES:
        print(f"{registry.kind}s")
        width = max(len(entry.name) for entry in registry)
        families = groupby(registry, key=lambda entry: getattr(entry.facts, "family", ""))
        for family, entries in families:
            if family:
                print(f"  {family}")
            for entry in entries:
                print(f"{'    ' if family else '  '}{entry.name:{width}}  {entry.summary}")


def print_plan(planner: Planner, settings: Settings, jobs: Sequence[Job], state: Pending) -> None:
    """The first lines of a run: on what it runs and how much of it is left."""
    checkpoint = planner.checkpoint
    print(f"model {checkpoint.name} ({checkpoint.sha[:12]}), recipe {settings.version}")
    notes = planner.notes()
    for line in (*notes, *_beside(planner, notes), *state.remarks):
        print(line)
    for words in settings.conditions.words:
        print(f"{words}: these results never share a table with others")
    if settings.save != "none":
        print(said(settings.save, jobs, lambda trial: planner.of(trial).checkpoint.weights))
    print(f"{len(jobs)} trials: {len(state.done)} done, {len(state.jobs)} to run", flush=True)


def _beside(planner: Planner, notes: Collection[str]) -> Iterator[str]:
    """A line for each checkpoint beside the run's, and its notes but for those of the run."""
    whole = planner.checkpoint.prunable_weights
    for other in planner.beside:
        found = other.checkpoint
        ratio = 100 * found.prunable_weights / whole
        yield (
            f"beside it, without pruning: {found.name} ({found.sha[:12]}), {ratio:.2f} % of its"
            " prunable weights"
        )
        yield from (f"{found.name}: {note}" for note in other.notes() if note not in notes)


def print_trials(planner: Planner, jobs: Sequence[Job], state: Pending, workers: int) -> None:
    """Every trial, whether it is done, and a rough cost of those that are not."""
    left = {job.trial.id for job in state.jobs}
    for job in jobs:
        of = f"  ({job.trial.model})" if job.model else ""
        print(f"  {'to run' if job.trial.id in left else 'done  '}  {job.trial.id}{of}")
    seconds = seconds_of(state.jobs, state.done, planner)
    source = "from trials that ran" if state.done else "rough, from arithmetic"
    print(
        f"cost of what is left: {duration(seconds)} of one worker, {duration(seconds / workers)}"
        f" with {workers} workers ({source}); {len(state.jobs) * RESULT_KB / 1000:.1f} MB of"
        " results"
    )
    for line in memory_lines(jobs, planner):
        print(line)


def memory_lines(jobs: Sequence[Job], planner: Planner) -> list[str]:
    """What a trial of each method needs in memory, the most of its trials, and on disk while it
    trains."""
    found: dict[str, float] = {}
    activations = snapshot = 0.0
    for job in jobs:
        try:
            method = make_method(job.trial)
        except BenchmarkError:  # it was warned of, and its trials will fail
            continue
        need = memory_of(method, planner.of(job.trial).checkpoint, job.trial.train)
        found[job.trial.method] = max(found.get(job.trial.method, 0.0), need.state)
        activations = max(activations, need.activations)
        snapshot = max(snapshot, need.snapshot)
    each = ", ".join(f"{name} {_gigabytes(size)}" for name, size in found.items())
    return [
        f"memory of a trial: {each}; activations up to {_gigabytes(activations)} more; libraries on"
        " top (by arithmetic)",
        f"snapshots while a long trial trains, one every --checkpoint-minutes: up to {KEPT + 1} of"
        f" {_gigabytes(snapshot)} on disk",
    ]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def print_values(settings: Settings, jobs: Iterable[Job]) -> None:
    """Every value that trials train with and its source, once for all seeds."""
    groups: dict[tuple[str, ...], dict[Setting, Values]] = {}
    seeds: dict[int, None] = {}
    for job in jobs:
        trial, entry = job.trial, methods[job.trial.method]
        own = {**vars(trial.train), **trial.hyper}
        values = {name: Value(own[name], source) for name, source in job.sources.items()}
        source = f"the method's default, {entry.origin}"
        defaults = {name: Value(value, source) for name, value in entry.defaults.items()}
        given = (f"{n} {v.value!r}" for n, v in values.items() if v.source == GIVEN)
        named = f"{trial.method} of {trial.model}" if job.model else trial.method
        group = groups.setdefault((named, trial.task, *given), {})
        group[trial.density, trial.distill] = {**defaults, **values}
        seeds[trial.seed] = None
    print(f"seeds {', '.join(map(str, seeds))} (the SMP paper has five, the Movement log seed 92)")
    for words in settings.conditions.words:
        print(words)
    for (method, task, *_), found in groups.items():
        print(f"\n{method} on {task}, recipe {settings.version}")
        for line in lines_of(found):
            print(f"  {line}")


def by_value(settings: Mapping[Setting, Values]) -> Iterator[tuple[str, str, str]]:
    """(name, value, source) over settings. A value that differs says in which settings."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    for name in names:
        there = {key: values[name] for key, values in settings.items() if name in values}
        by_text: dict[str, list[Setting]] = {}
        for key, value in there.items():
            by_text.setdefault(text_of(value.value), []).append(key)
        texts = [
            " ".join(filter(None, (text, in_words(keys, settings))))
            for text, keys in by_text.items()
        ]
        sources = dict.fromkeys(value.source for value in there.values())
        yield name, "; ".join(texts), "; ".join(sources)


def in_words(keys: Collection[Setting], among: Collection[Setting]) -> str:
    """Which of all settings are meant: '' for all, 'at 10, 3 % with distillation'."""
    if set(keys) == set(among):
        return ""
    words = []
    for distill in (False, True):
        densities = [density for density, flag in keys if flag == distill]
        every = [density for density, flag in among if flag == distill]
        if densities:
            which = ", ".join(f"{100 * density:g}" for density in densities)
            words.append((f"at {which} %" * (densities != every), distill))
    if len(words) == 2 and words[0][0] == words[1][0]:
        return words[0][0]
    flags = {False: "without distillation", True: "with distillation"}
    named = len({flag for _, flag in among}) == 2
    return ", and ".join(
        " ".join(filter(None, (text, flags[flag] * named))) for text, flag in words
    )


def text_of(value: Any) -> str:
    """A value for people: numbers with at most four digits; yes and no, since tabulate would print
    both truth values as True where it wraps."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines_of(settings: Mapping[Setting, Values]) -> list[str]:
    """Name, value and source as aligned lines of text."""
    rows, widths = list(by_value(settings)), [None, 60, 90]
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=widths)
    return [line.rstrip() for line in text.splitlines()]


def workers_of(settings: Settings) -> int:
    """How many trials run at once on this machine."""
    import torch

    if settings.executor == "inline":
        return settings.workers
    at_once = (os.cpu_count() or 1) // settings.cpus
    gpus = torch.cuda.device_count()
    if gpus and settings.gpus != 0:
        at_once = min(at_once, int(gpus / (settings.gpus or 1)))
    return max(at_once, 1)
