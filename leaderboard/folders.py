"""Read the folders of several suites as one."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from zoo.records.result import Failure, Result
from zoo.records.storage import Folder, load_folder
from zoo.records.trial import Trial


def load_folders(folders: Iterable[Path]) -> tuple[Folder, dict[str, str], list[str]]:
    """The records of all folders, by trial id the suite, and what contradicts itself."""
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
    whole = replace(
        whole,
        results=[results[id] for id in sorted(results)],
        failures=[failures[id] for id in sorted(failures) if id not in results],
        planned=[planned[id] for id in sorted(planned)],
    )
    return whole, suites, conflicts
