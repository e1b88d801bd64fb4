"""One line on the terminal: done, running, failed, time left."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from zoo.estimate import words
from zoo.trial import Failure, Result

EVERY = 5.0
"""Least seconds between two lines where the output is not a terminal."""


class Progress:
    """Counts what comes in. `rebuild` is called now and then, and must be quick."""

    def __init__(
        self,
        todo: int,
        workers: int,
        rebuild: Callable[[], object],
        *,
        rebuild_every: float = 60.0,
        out: TextIO | None = None,
    ):
        self.todo, self.workers, self.rebuild = todo, workers, rebuild
        self.out = out or sys.stdout
        self.rebuild_every = rebuild_every
        self.done = 0
        self.seconds: list[float] = []
        self.diverged: list[str] = []
        self.failures: list[str] = []
        self.last_rebuild = time.monotonic()
        self.last_line = 0.0

    def __call__(self, record: Result | Failure) -> None:
        """Take in one record that was just written."""
        self.done += 1
        if isinstance(record, Failure):
            self.failures.append(f"{record.trial.id}: {record.reason}")
            self._print(f"FAILED {self.failures[-1]}\n")
        else:
            self.seconds.append(record.cost["seconds"])
        if isinstance(record, Result) and record.status == "diverged":
            where = record.diverged or {}
            self.diverged.append(f"{record.trial.id}: at step {where.get('step')}")
        now = time.monotonic()
        if self.done == self.todo or now - self.last_line >= self._pause():
            self.last_line = now
            self._line(record)
        if now - self.last_rebuild >= self.rebuild_every and self.done < self.todo:
            self.last_rebuild = now  # also where it raises: not again after every trial
            self.rebuild()
            self.last_rebuild = time.monotonic()

    def _pause(self) -> float:
        return 0.0 if self.out.isatty() else EVERY

    def _line(self, record: Result | Failure) -> None:
        running = min(self.workers, self.todo - self.done)
        each = sum(self.seconds) / max(len(self.seconds), 1)
        left = each * (self.todo - self.done) / self.workers
        line = (
            f"{self.done}/{self.todo} done, {running} running, {len(self.failures)} failed,"
            f" about {words(left)} left | {describe(record)}"
        )
        if self.out.isatty():
            end = "\n" if self.done == self.todo else ""
            self._print(f"\r\033[K{line[:150]}{end}")
        else:
            self._print(line + "\n")

    def _print(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def describe(record: Result | Failure) -> str:
    """'movement 3 % tiny_span seed 0: em 83.2, f1 85.0'."""
    trial = record.trial
    taught = " distilled" if trial.distill else ""
    name = f"{trial.method}{taught} {100 * trial.density:g} % {trial.task} seed {trial.seed}"
    if isinstance(record, Failure):
        return f"{name}: failed"
    shown = [f"{k} {v:.1f}" for k, v in record.metrics.items() if v is not None]
    return f"{name}: {', '.join(shown) or record.status}"
