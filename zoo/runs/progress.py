"""What a run says while it runs: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from tqdm import tqdm

from zoo.records.result import Failure, Outcome
from zoo.records.trial import Trial
from zoo.status import being_done

EVERY = 5.0
"""Seconds between two lines about finished trials where the output is not a terminal."""
SILENT = 8.0
"""Seconds without a line after which it says what is being done; a bar says so all the time."""
MOST = 3
"""Pieces of work that are shown at once."""


class Progress:
    """Counts the records that come in. `rebuild` is called every `rebuild_every` seconds."""

    def __init__(
        self,
        todo: int,
        rebuild: Callable[[], object] = lambda: None,
        *,
        rebuild_every: float = 60.0,
        out: TextIO | None = None,
    ):
        self.todo, self.rebuild, self.rebuild_every = todo, rebuild, rebuild_every
        self.out = out or sys.stdout
        self.bar = tqdm(total=todo, unit="trial", file=self.out, disable=None, dynamic_ncols=True)
        self.plain = bool(self.bar.disable)
        self.done = 0
        self.diverged: list[str] = []
        self.failures: list[str] = []
        self.last_rebuild = time.monotonic()
        self.last_line = 0.0

    def __call__(self, record: Outcome) -> None:
        """Take in one record that was just written."""
        self.done += 1
        if isinstance(record, Failure):
            self.failures.append(f"{record.trial.id}: {record.reason}")
            self.bar.write(f"FAILED {self.failures[-1]}", file=self.out)
        elif record.diverged:
            self.diverged.append(f"{record.trial.id}: at step {record.diverged.step}")
        self._show(record)
        now = time.monotonic()
        if now - self.last_rebuild >= self.rebuild_every and self.done < self.todo:
            self.last_rebuild = now  # also if it raises: not again after every trial
            self.rebuild()
            self.last_rebuild = time.monotonic()

    @contextlib.contextmanager
    def showing(self, cache: Path) -> Iterator[None]:
        """Inside, a thread says what the processes that use the cache are doing."""
        ended = Event()

        def watch() -> None:
            while not ended.wait(1.0):
                if not self.plain or time.monotonic() - self.last_line >= SILENT:
                    self._say(being_done(cache))

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _say(self, lines: list[str]) -> None:
        """Show what is being done, in the bar or on a line of its own."""
        if not lines:
            return
        rest = f" | and {len(lines) - MOST} more" if len(lines) > MOST else ""
        text = " | ".join(lines[:MOST]) + rest
        if self.plain:
            self.last_line = time.monotonic()
            print(f"  {text}", file=self.out, flush=True)
        else:
            self.bar.set_postfix_str(text)

    def _show(self, record: Outcome) -> None:
        self.bar.set_postfix_str(describe(record), refresh=False)
        self.bar.update()
        last, now = self.done == self.todo, time.monotonic()
        if last:
            self.bar.close()
        if self.plain and (last or now - self.last_line >= EVERY):
            self.last_line = now
            failed = f", {len(self.failures)} failed" if self.failures else ""
            line = f"{self.done}/{self.todo} done{failed} | {describe(record)}"
            print(line, file=self.out, flush=True)


def name_of(trial: Trial) -> str:
    """'movement 3 % tiny_span seed 0'."""
    distilled = " distilled" if trial.distill else ""
    return f"{trial.method}{distilled} {100 * trial.density:g} % {trial.task} seed {trial.seed}"


def describe(record: Outcome) -> str:
    """'movement 3 % tiny_span seed 0: em 83.2, f1 85.0'."""
    name = name_of(record.trial)
    if isinstance(record, Failure):
        return f"{name}: failed"
    shown = [f"{k} {v:.1f}" for k, v in record.metrics.items() if v is not None]
    return f"{name}: {', '.join(shown) or record.status}"
