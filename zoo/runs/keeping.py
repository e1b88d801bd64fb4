"""Which trained models are kept: --save none, best or all."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from zoo.records.result import Outcome, Result
from zoo.records.trial import Trial
from zoo.runs.jobs import Job

SAVE = ("none", "best", "all")
"""The values of --save; `best` is the seed of each row and task with the best first metric."""
MODELS = "models"
"""The folder of models in a suite's."""
ONLY_BEST = ".best"
"""Its presence in that folder says that no model is there but those of runs with `best`."""
TOKENISER = 1_000_000
"""Bytes of a tokeniser, roughly."""

Place = tuple[object, ...]
"""What the seeds of one place in a table have in common."""


def place_of(trial: Trial) -> Place:
    """All of a trial but its seed and its teacher."""
    return (
        *(trial.method, trial.task, trial.density, trial.distill, trial.recipe, trial.model_sha),
        *(trial.data_sha, trial.train, tuple(sorted(trial.hyper.items(), key=str))),
    )


class Keeper:
    """Removes models that `best` does not keep, as results come in.

    Models that --save all kept before stay: a file says whether all models in the folder are from
    runs with `best`. With `looking=True` nothing is written or removed.
    """

    def __init__(self, policy: str, folder: Path, *, looking: bool = False):
        self.policy, self.models, self.looking = policy, folder / MODELS, looking
        self.best: dict[str, Result] = {}
        mark = self.models / ONLY_BEST
        there = {path.name for path in self.models.glob("[!.]*")}
        self.spared = set() if mark.exists() else there
        if policy == "best" and not there and not looking:
            self.models.mkdir(parents=True, exist_ok=True)
            mark.touch()
        elif policy == "all" and not looking:
            mark.unlink(missing_ok=True)

    def __call__(self, record: Outcome) -> None:
        """Take in one record; with `best` remove the model that is the worse of two."""
        if self.policy != "best" or not isinstance(record, Result) or not record.ok:
            return
        place = repr(place_of(record.trial))
        before = self.best.get(place)
        worse = None
        if before is None or value_of(record) > value_of(before):
            self.best[place], worse = record, before
        elif before.trial.id != record.trial.id:
            worse = record
        if worse is not None and not self.looking and worse.trial.id not in self.spared:
            shutil.rmtree(self.models / worse.trial.id, ignore_errors=True)

    def lacks(self, result: Result) -> bool:
        """Whether a finished trial should have a model and has none."""
        if self.policy == "none" or not result.ok:
            return False
        wanted = self.policy == "all" or self.best.get(repr(place_of(result.trial))) == result
        return wanted and not (self.models / result.trial.id).is_dir()


def value_of(result: Result) -> float:
    """The first metric of a result; lowest where it is undefined."""
    value = next(iter(result.metrics.values()), None)
    return float("-inf") if value is None else value


def said(policy: str, jobs: Iterable[Job], weights: Callable[[Trial], int]) -> str:
    """How many models are kept, and the size that they will have at most; `weights` counts those
    of a trial's model."""
    trials = [job.trial for job in jobs]
    kept = trials if policy == "all" else list({repr(place_of(t)): t for t in trials}.values())
    size = sum(4 * weights(trial) + TOKENISER for trial in kept) / 1e9
    shown = f"{size:.1f} GB" if size >= 1 else f"{1000 * size:.0f} MB"
    return f"models: {len(kept)} are kept, about {shown} in all, in {MODELS}/ of the suite's folder"
