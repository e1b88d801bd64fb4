"""Read the folders of several suites as one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leaderboard.contradictions import contradictions
from zoo.records.result import Failure, Result
from zoo.records.storage import Folder, Unreadable, load_folder, result_path
from zoo.records.trial import Trial


@dataclass(frozen=True)
class Loaded:
    """The records of several folders, by trial id the suite, trials that two folders have with
    other results, and results that contradict the others, which are not among the records."""

    records: Folder
    suites: Mapping[str, str]
    conflicts: Sequence[str]
    left_out: Sequence[Unreadable]


def load_folders(folders: Iterable[Path]) -> Loaded:
    """Read all folders; the result in the first one counts."""
    results: dict[str, Result] = {}
    failures: dict[str, Failure] = {}
    planned: dict[str, Trial] = {}
    suites: dict[str, str] = {}
    first: dict[str, Path] = {}
    conflicts: list[str] = []
    whole = Folder()
    for folder in {folder.resolve(): folder for folder in folders}.values():
        found, suite = load_folder(folder), folder.resolve().name
        for result in found.results:
            id = result.trial.id
            if id in results and results[id].metrics != result.metrics:
                conflicts.append(f"{id} has other metrics in {folder} than in {first[id]}")
            results.setdefault(id, result)
            suites.setdefault(id, suite)
            first.setdefault(id, folder)
        failures |= {f.trial.id: f for f in found.failures}
        planned |= {trial.id: trial for trial in found.planned}
        whole = replace(
            whole,
            facts={**found.facts, **whole.facts},
            caveats={**found.caveats, **whole.caveats},
            unreadable=[*whole.unreadable, *found.unreadable],
        )
    wrong = contradictions(results.values())
    whole = replace(
        whole,
        results=[results[id] for id in sorted(results) if id not in wrong],
        failures=[failures[id] for id in sorted(failures) if id not in results],
        planned=[planned[id] for id in sorted(planned)],
    )
    left_out = [
        Unreadable(result_path(results[id].trial, first[id]), wrong[id]) for id in sorted(wrong)
    ]
    return Loaded(whole, suites, conflicts, left_out)
