"""A job: a trial to run, and what is known of it before it runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.engine.frozen import has_outputs, has_weights
from zoo.errors import ConfigError, one_line
from zoo.parts.method import Method
from zoo.parts.recipes import Value
from zoo.records.codec import Record, from_json, to_json
from zoo.records.facts import MethodFacts
from zoo.records.result import Candidate
from zoo.records.trial import Trial, canonical
from zoo.registry import methods
from zoo.runs.values import Resolved


@dataclass(frozen=True)
class Job(Record):
    """A trial to run. `teaches` says that others need what it leaves: its outputs over the training
    set, of `reads` examples in the order of training, None for all, and its weights if `starts`
    says that their training starts from these; `trains` says whether it takes steps; `sources`
    say where each of its values comes from; `facts` are those of its method; `candidates` are those
    among which its values were chosen. `model` is where its checkpoint is, and `options` are what a
    reader adds to the command, if they are not those of the run."""

    trial: Trial
    teaches: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    facts: MethodFacts = field(default_factory=MethodFacts)
    candidates: tuple[Candidate, ...] = ()
    reads: int | None = None
    starts: bool = False
    trains: bool = True
    model: str = ""
    options: tuple[str, ...] = ()

    def has_left(self, cache: Path) -> bool:
        """Whether the trial has left all that others need of it."""
        outputs = has_outputs(cache, self.trial.id, self.reads)
        return outputs and (not self.starts or has_weights(cache, self.trial.id))


@dataclass(frozen=True)
class Tuned:
    """The values that were chosen for a cell, and all candidates."""

    given: tuple[tuple[str, Value], ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Planned:
    """A cell with everything that follows from it: its trial, its values, and its method, which is
    None if the method's own code raises; `problem` says what. `memory` are the bytes that its
    calibration holds at most."""

    trial: Trial
    values: Resolved
    method: Method | None
    problem: str = ""
    candidates: tuple[Candidate, ...] = ()
    memory: int = 0


def both(one: Job, other: Job) -> Job:
    """One job in the place of two of the same trial, for the students of both."""
    if not (one.teaches and other.teaches):
        return one if one.teaches else other
    reads = None if None in (one.reads, other.reads) else max(one.reads or 0, other.reads or 0)
    return replace(one, reads=reads, starts=one.starts or other.starts)


def job_of(trial: Trial, planned: Planned) -> Job:
    """The job of a trial; a ConfigError if it would not be read as it is written."""
    entry = methods[trial.method]
    job = Job(
        trial,
        sources=planned.values.sources,
        facts=entry.facts,
        candidates=planned.candidates,
        trains=planned.method is None or not planned.method.untrained,
    )
    try:
        from_json(Job, json.loads(canonical(to_json(job))))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"method {entry.name} ({entry.origin}) on {trial.task}: a value cannot be written down:"
            f" {one_line(error, 200)}"
        ) from None
    return job
