"""python -m tests.faults_of_ends: end commands in many ways, and count the ends that explain
themselves.

A fault is survived if the command ends in time with the exit code of that fault, says on stderr
the single line that it asks for, without a traceback, and leaves no process behind. `CLASSES` are
the functions that inject faults; each returns a row.
"""

import argparse
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tabulate import tabulate

from tests.helpers import ROOT, command, save_checkpoint, write_sst2
from zoo.runs.guard import Known, descendants, processes

LIMIT = 240
"""Seconds after which a command hangs."""
LEFT = 30
"""Seconds after which nothing may be left of a command that has ended."""
INLINE = ("--executor", "inline")
ALONE = (*INLINE, "--methods", "dense", "--seeds", "0", "--max-steps", "2")
PLUGIN = '''
import os, pathlib, re, shutil, signal, time
from dataclasses import replace
import torch
from methods.movement import movement
from zoo import register_method, topk_local

HERE = pathlib.Path(__file__).parent

def make(name, mask):
    @register_method(name, recipe="movement")
    def method(density, *, start, stop):
        """Movement with a mask function of its own."""
        return replace(movement(density, start=start, stop=stop), mask=mask)

def slow(scores, level):
    (HERE / "begun").touch()
    time.sleep(1)
    return topk_local(scores, level)

def loops(scores, level):
    """For ever, and no other thread of Python runs meanwhile."""
    re.match("(a+)+b", "a" * 60)

def killed(scores, level):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(scores, level):
    os._exit(0)

def on_gpu(scores, level):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

def on_cpu(scores, level):
    return torch.ones(2**50)

def prints(scores, level):
    print("x" * 20_000_000)
    return topk_local(scores, level)

def removes(scores, level):
    """Remove the results once there is one of another method."""
    for found in HERE.glob("results-*/smoke/sst2-dense*.json"):
        shutil.rmtree(found.parent.parent)
    return topk_local(scores, level)

for function in (slow, loops, killed, leaves, on_gpu, on_cpu, prints, removes):
    make(function.__name__, function)
'''


@dataclass(frozen=True)
class Row:
    """A class of faults: how many were injected and survived, in how many seconds, and what became
    of the others."""

    name: str
    injected: int
    survived: int
    seconds: float
    lost: Sequence[str] = ()


@dataclass(frozen=True)
class Fault:
    """A command and what happens to it: the exit code, a pattern of the only line on stderr ("" for
    none), one of a line on stdout; `before` runs in the process first, `act` beside it. `words` are
    options of run_benchmark, or another whole command."""

    what: str
    words: Sequence[str]
    code: int
    line: str = ""
    out: str = ""
    act: Callable[["Running"], None] = lambda running: None
    before: Callable[[], None] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A command that runs, and the processes that it has started."""

    process: subprocess.Popen[str]
    here: Path
    known: Known = field(default_factory=dict)

    def look(self) -> None:
        """See which processes it has started."""
        self.known |= descendants(self.process.pid)

    def wait_for(self, pattern: str) -> None:
        """Wait for a file, or the end of the command."""
        while self.process.poll() is None and not any(self.here.glob(pattern)):
            self.look()
            time.sleep(0.1)

    def left(self) -> list[int]:
        """Numbers of processes that it has started and that still run."""
        now = {(number, began) for number, (began, _) in processes().items()}
        return [number for number, began in self.known.items() if (number, began) in now]


def prepare(here: Path) -> None:
    """Write the model, the data and the plugin that faults use."""
    save_checkpoint(here / "small")
    write_sst2(here / "data")
    (here / "mine.py").write_text(PLUGIN)
    (here / "loop").symlink_to(here / "loop")
    (here / "loop.py").symlink_to(here / "loop.py")


def outcome(fault: Fault, here: Path) -> str:
    """What is wrong with the end of a command, "" for nothing."""
    results = tempfile.mkdtemp(prefix="results-", dir=here)
    (here / "begun").unlink(missing_ok=True)
    whole = fault.words[:1] == [sys.executable]
    words = list(fault.words) if whole else command(results, *fault.words)
    process = subprocess.Popen(
        words,
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | fault.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGINT, signal.default_int_handler),
            fault.before(),
        ),
    )
    running = Running(process, here)
    try:
        fault.act(running)
        running.look()
        out, err = process.communicate(timeout=LIMIT)
        return _judged(fault, running, out, err)
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(results, ignore_errors=True)


def _judged(fault: Fault, running: Running, out: str, err: str) -> str:
    lines = err.strip().splitlines()
    said = f": {err[-300:]!r}"
    if running.process.returncode != fault.code:
        return f"exit code {running.process.returncode}, not {fault.code}{said}"
    if len(lines) != bool(fault.line) or not re.search(fault.line, err):
        return f"{len(lines)} lines{said}"
    if "Traceback" in out or not re.search(fault.out, out):
        return f"its output ends with {out[-300:]!r}"
    end = time.monotonic() + LEFT
    while running.left() and time.monotonic() < end:
        time.sleep(0.2)
    return f"{len(running.left())} processes are left" if running.left() else ""


def injected(name: str, faults: Sequence[Fault], share: float = 1.0) -> Row:
    """Inject faults, or a share of them; print those that are not survived."""
    start, lost = time.monotonic(), []
    chosen = faults[:: max(round(1 / share), 1)]
    with tempfile.TemporaryDirectory(prefix="ends-") as folder:
        prepare(Path(folder))
        for fault in chosen:
            why = outcome(fault, Path(folder))
            if why:
                lost.append(f"{name}: {fault.what}: {why}")
                print(lost[-1], flush=True)
    seconds = time.monotonic() - start
    return Row(name, len(chosen), len(chosen) - len(lost), seconds, lost)


# ----------------------------------------------------------------------------- what happens


def listens(process: int) -> bool:
    """Whether a process has reached its first line, where it handles SIGTERM."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text("utf-8").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def send(number: int, seconds: float, running: Running, *, after: str = "") -> None:
    """Send a signal so many seconds after the first line, or after a file was written."""
    while not listens(running.process.pid) and running.process.poll() is None:
        time.sleep(0.005)
    if after:
        running.wait_for(after)
    time.sleep(seconds)
    running.look()
    running.process.send_signal(number)


def kill_server(name: str, running: Running) -> None:
    """Kill a server of Ray once a trial trains."""
    running.wait_for("begun")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if int(path.parent.name) in running.known and f"/{name}\0" in path.read_text("utf-8"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                return


def bound_by_permissions() -> None:
    """Let permissions bind this process, if it is root's, from its next program on."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def few_files(many: int) -> None:
    """Let this process open so many files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (many, many))


def close(path: str, mode: int) -> None:
    """Make a folder and take permissions away from it."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    bound_by_permissions()


# -------------------------------------------------------------------------------- the classes

ENDS = ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129))
"""Signals, and the exit codes of commands that they end."""


def imports(share: float = 1.0) -> Row:
    """A signal in the first seconds."""
    board = [sys.executable, "-m", "leaderboard", str(ROOT / "docs/runs/laboratory/high_sparsity")]
    commands = {
        "run": [*ALONE],
        "leaderboard": [*board, "--out", "board"],
        "counts": [sys.executable, "-m", "zoo.tools.counts"],
        "latency": [sys.executable, "-m", "zoo.tools.latency", "--random", "tiny"],
    }
    faults = []
    for name, words in commands.items():
        for seconds in (0, 0.05, 0.3, 1, 2):
            for number, code in ENDS:
                what, act = (
                    f"{name}, {number.name} after {seconds} s",
                    partial(send, number, seconds),
                )
                faults.append(Fault(what, words, code, "^stopped", act=act))
    return injected("signals in imports", faults, share)


def trials(share: float = 1.0) -> Row:
    """A signal while a trial trains, in processes and under Ray."""
    slow = ("--plugin", "mine.py", "--methods", "slow", "--seeds", "0,1")
    faults = []
    for executor in ((*INLINE, "--jobs", "2"), ("--executor", "ray")):
        for number, code in ENDS:
            act = partial(send, number, 0.5, after="begun")
            what = f"{' '.join(executor)}, {number.name}"
            line = "^stopped; finished trials are kept. To continue: python run_benchmark.py"
            faults.append(Fault(what, (*slow, *executor), code, line, act=act))
        act = partial(send, signal.SIGKILL, 0.5, after="begun")
        faults.append(Fault(f"{' '.join(executor)}, SIGKILL", (*slow, *executor), -9, act=act))
    return injected("signals in trials", faults, share)


def names(share: float = 1.0) -> Row:
    """Names that are too long, and links that lead back to themselves."""
    faults = []
    for bad in ("x" * 300, "/".join(["y" * 200] * 25), "loop", "loop/x"):
        short, reason = bad[:8], "too long|no such folder|does not exist|link|Too many levels"
        for option, value, code in (
            ("--results", bad, 4),
            ("--model", f"./{bad}", 2),
            ("--data-dir", bad, 2),
            ("--plugin", f"{bad}.py", 2),
        ):
            faults.append(Fault(f"{option} {short}", (*ALONE, option, value), code, reason))
    return injected("names", faults, share)


def permissions(share: float = 1.0) -> Row:
    """Folders that may not be read or written, a umask that takes everything away, few files."""
    faults = [
        Fault(f"{option} {path} {mode:o}", (*ALONE, option, path), code, "Permission denied",
              before=partial(close, folder, mode))
        for option, folder, path, mode, code in (
            ("--results", "a", "a/b/c", 0, 4),
            ("--results", "b", "b", 0, 4),
            ("--results", "c", "c", 0o555, 4),
            ("--results", "d/smoke", "d", 0, 4),
            ("--results", "e/.cache", "e", 0o555, 4),
            ("--model", "f", "f/small", 0, 2),
            ("--model", "g", "g", 0, 2),
            ("--data-dir", "h", "h/data", 0, 2),
            ("--plugin", "i", "i/mine.py", 0, 2),
        )
    ]  # fmt: skip
    home = {"HOME": "closed", "HF_HOME": "", "MPLCONFIGDIR": ""}
    for executor in ("inline", "ray"):
        faults.append(
            Fault(f"HOME closed, {executor}", (*ALONE, "--executor", executor), 0,
                  before=partial(close, "closed", 0), environment=home)
        )  # fmt: skip
    umask = lambda: (os.umask(0o777), bound_by_permissions())  # noqa: E731
    faults.append(
        Fault("umask 777", (*ALONE, "--results", "u"), 4, "Permission denied", before=umask)
    )
    faults += [
        Fault("8 files", ALONE, 4, "Too many open files; raise the limit", before=partial(few_files, 8)),
        Fault("32 files", ALONE, 0, before=partial(few_files, 32)),
        Fault("32 files, Ray", (*ALONE, "--executor", "ray"), 5, "Ray cannot start here",
              before=partial(few_files, 32)),
    ]  # fmt: skip
    return injected("permissions and limits", faults, share)


def trouble(share: float = 1.0) -> Row:
    """Trials that end their process, need too much memory or time, or print without an end; and
    results that vanish."""
    faults = []
    for executor in ((*INLINE, "--jobs", "2"), ("--executor", "ray")):
        for method, more, code, line, out in (
            ("killed", (), 3, "", r"failed: .*ended twice without a result.*if memory was short"),
            ("leaves", (), 3, "", r"failed: .*its worker process ended twice without a result"),
            ("on_gpu", (), 3, "", r"failed: .*out of memory, with [\d.]+ GB at its peak .*CUDA"),
            ("on_cpu", (), 3, "", r"failed: .*out of memory, with [\d.]+ GB at its peak"),
            ("loops", ("--trial-timeout", "0.2"), 3, "", r"failed: .*took longer than 0.2 minutes"),
            ("prints", (), 0, "", r"(?s)^(?!.{2000000}).*leaderboard"),
            ("dense,removes", (), 4, "^error: 1 of the 2 records", ""),
        ):
            words = ("--plugin", "mine.py", "--seeds", "0", *executor, "--methods", method, *more)
            faults.append(Fault(f"{method}, {executor[-1]}", words, code, line, out))
    slow = ("--plugin", "mine.py", "--methods", "slow", "--seeds", "0,1", "--executor", "ray")
    for name in ("raylet", "gcs_server"):
        line = f"^error: Ray's {name} has ended, killed or out of memory; finished trials are kept"
        faults.append(Fault(f"{name} killed", slow, 5, line, act=partial(kill_server, name)))
    return injected("trials in trouble", faults, share)


CLASSES = (imports, trials, names, permissions, trouble)


def rows(share: float = 1.0, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of all classes, or of those that are named."""
    for inject in CLASSES:
        if not only or inject.__name__ in only:
            yield inject(share)


def main(argv: Sequence[str] | None = None) -> int:
    """Inject the faults; the exit code is 1 if one was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults_of_ends", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="the part of the faults to inject")
    parser.add_argument("--classes", default="", help="names of classes, separated by commas")
    options = parser.parse_args(argv)
    found = list(rows(options.share, [name for name in options.classes.split(",") if name]))
    body = [(row.name, row.injected, row.survived, f"{row.seconds:.0f}") for row in found]
    print(tabulate(body, ["Class", "Injected", "Survived", "Seconds"], "pipe"))
    return int(any(row.lost for row in found))


if __name__ == "__main__":
    sys.exit(main())
