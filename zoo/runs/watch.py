"""Watch over the servers and the workers of a Ray that this process has started."""

import _thread
import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from zoo.runs.shortage import kernel_kills, peak_of, reason_of_ray

LOOK = 0.5
"""Seconds between two looks at the servers of a Ray, and at the memory of its workers."""


@dataclass
class Watch:
    """Looks after a Ray that this process has started: which of its servers has `ended`, and the
    most bytes that each of its workers had, by its number. `scratch` is a folder for what goes
    with it."""

    scratch: Path
    ended: str = ""
    peaks: dict[int, int] = field(default_factory=dict)
    kills: int = field(default_factory=kernel_kills)

    @contextlib.contextmanager
    def over(self, servers: Mapping[str, subprocess.Popen[bytes]]) -> Iterator[None]:
        """Inside, the main thread is interrupted, as by Ctrl-C, when a server has ended: Ray itself
        would end this process a while later."""
        done = Event()
        thread = Thread(target=self._look, args=(servers, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _look(self, servers: Mapping[str, subprocess.Popen[bytes]], done: Event) -> None:
        while not done.wait(LOOK):
            for name, server in servers.items():
                if server.poll() is not None:
                    self.ended = name
                    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in scripts
                    _thread.interrupt_main(signal.SIGTERM if ignored else signal.SIGINT)
                    return
                for worker in children(server.pid):
                    self.peaks[worker] = max(self.peaks.get(worker, 0), peak_of(worker))

    def why(self, said: str) -> str:
        """Why a trial failed whose worker has ended; `said` is what Ray says of it."""
        worker = re.search(r"\bpid: (\d+)", said)
        peak = self.peaks.get(int(worker[1]), 0) if worker else 0
        return reason_of_ray(said, peak, kernel_kills() > self.kills)


def children(process: int) -> list[int]:
    """The processes that the first thread of a process has started; [] where the system does not
    tell."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{process}/task/{process}/children").read_text("utf-8").split()
        return list(map(int, found))
    return []
