"""How rows and tables of one name are told apart: by hashes, by what a suite gave, by settings."""

import hashlib
from collections.abc import Iterable, Mapping

from zoo.records.codec import to_json
from zoo.records.result import GIVEN, Result
from zoo.records.trial import IN_WORDS, Trial, canonical


def named(trial: Trial, name: str) -> tuple[str, str, str]:
    """What a hash belongs to: a task's data, a method's plugin file or a model's name."""
    owners = {"data_sha": trial.task, "plugin_sha": trial.method, "model_sha": trial.model}
    return name, owners[name], getattr(trial, name)


def variants_of(trials: Iterable[Trial]) -> dict[tuple[str, str, str], str]:
    """Short names for hashes, where one task has several data sets, one method several files, or
    one name several models."""
    hashes: dict[tuple[str, str], set[str]] = {}
    for trial in trials:
        for name in ("data_sha", "plugin_sha", "model_sha"):
            kind, owner, sha = named(trial, name)
            hashes.setdefault((kind, owner), set()).add(sha)
    return {
        (kind, owner, sha): f"{owner}@{sha[:6]}"
        for (kind, owner), found in hashes.items()
        if len(found) > 1
        for sha in found
    }


def words_of(results: Iterable[Result], trials: Iterable[Trial]) -> dict[str, str]:
    """Per trial id how a suite changed the method: what `in_words` says, and hyper-parameters that
    are words where a suite gave them, by the sources of any result of the method."""
    given: dict[str, set[str]] = {}
    for result in results:
        own, sources = result.trial.hyper, result.environment.sources
        names = {
            n for n, value in own.items() if isinstance(value, str) and sources.get(n) == GIVEN
        }
        given.setdefault(result.trial.method, set()).update(names - {*IN_WORDS})
    found = {}
    for trial in trials:
        values = [trial.hyper.get(name) for name in sorted(given.get(trial.method, ()))]
        found[trial.id] = " ".join(str(word) for word in (trial.in_words, *values) if word)
    return found


def settings_of(trials: Mapping[str, Trial], words: Mapping[str, str]) -> dict[str, str]:
    """Per trial id a short name of its hyper-parameters and its teacher's, where the seeds of one
    group do not all have the same: those are not repetitions of each other."""

    def sha(trial: Trial) -> str:
        teacher = trials.get(trial.teacher)
        content = [to_json(trial.train), trial.hyper]
        content += [to_json(teacher.train), teacher.hyper] if teacher else []
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:6]

    groups: dict[str, set[str]] = {}
    for trial in trials.values():
        groups.setdefault(_all_but_settings(trial, words[trial.id]), set()).add(sha(trial))
    return {
        id: f"settings@{sha(trial)}" if len(groups[_all_but_settings(trial, words[id])]) > 1 else ""
        for id, trial in trials.items()
    }


def _all_but_settings(trial: Trial, words: str) -> str:
    """What the seeds of one group have in common whatever their settings."""
    apart = {"hyper": {}, "teacher": "", "seed": 0, "train": to_json(trial.train.conditions)}
    return canonical({**to_json(trial), **apart, "words": words})
