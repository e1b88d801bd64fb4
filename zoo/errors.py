"""What can go wrong, as one line for the user and one exit code for the shell."""

import difflib
import re
import signal
from collections.abc import Iterable


class BenchmarkError(Exception):
    """An error whose message is one line that says what is wrong, where, and how to mend it."""

    exit_code = 1


class ConfigError(BenchmarkError):
    """The command, a plugin, a checkpoint or the data cannot be used; no trial was started."""

    exit_code = 2


class TrialError(BenchmarkError):
    """A trial cannot run or its method broke the masked model's rules; the others continue."""

    exit_code = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: it ends a run as Ctrl-C does, and no trial takes it for its own fault."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__()
        self.number = number


class StorageError(BenchmarkError):
    """A results folder or a cache cannot be written or read."""

    exit_code = 4


class ResourceError(BenchmarkError):
    """The hub or a cluster cannot be reached, a requested device is absent, or memory is short."""

    exit_code = 5


class StaleError(BenchmarkError):
    """A generated file is not what its sources give."""

    exit_code = 6


class RegressionError(BenchmarkError):
    """A method became worse from one folder of results to another."""

    exit_code = 7


class Diverged(Exception):
    """A loss or a gradient's norm, `value`, was not finite at `step` (from 0); the trial ends as a
    result, not as a failure."""

    def __init__(self, step: int, value: float):
        super().__init__(f"loss or gradient was {value} at step {step}")
        self.step = step
        self.value = value


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line about an unknown `name`: the nearest known name first, then all of them."""
    known, name = sorted(known), str(name)
    bare = {_bare(one): one for one in known}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = bare.get(_bare(name)) or next(iter(near), None)
    hint = f"; did you mean {meant!r}?" if meant else "."
    return f"unknown {kind} {name!r:.80}{hint} Known: {', '.join(known)}"


def _bare(name: str) -> str:
    """A name without case, dashes, underscores and blanks: 'SST-2' and 'sst2' are equal."""
    return re.sub(r"[-_\s]", "", name).casefold()


MEMORY = ("allocate memory", "out of memory", "bad_alloc", "Storage size calculation overflowed")
"""What systems, torch and CUDA say where memory is short, or could never do."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in MEMORY)


def one_line(text: object, most: int | None = None) -> str:
    """Text without line breaks, control and direction characters, cut to `most` characters."""
    whole = str(text)
    if not whole.isprintable():
        whole = "".join(c if c.isprintable() else " " for c in whole)
    line = " ".join(whole.split())
    return line if most is None or len(line) <= most else line[: most - 3] + "..."


def without_folders(text: str) -> str:
    """A text with the last names alone of absolute paths, and without tokens of the hub: what a
    record keeps must not tell where it was made, and by whom."""
    text = re.sub(r"\bhf_\w{8,}", "hf_...", text)
    return re.sub(r"(?<![\w./:])(?:/[^\s/'\",:;()]+)*/([^\s/'\",:;()]+)", r"\1", text)


def cause_of(error: BaseException) -> str:
    """'ValueError: its message' on one line of at most 200 characters or so."""
    return f"{type(error).__name__}: {one_line(error, 200)}"
