"""Out of memory: what an error, or the end of a process, tells about it, and how to mend it."""

import re
import signal
from pathlib import Path

from zoo.errors import cause_of, lacks_memory, without_folders

MEND = (
    "give trials more memory: fewer --jobs, a larger --gpus-per-trial or --cpus-per-trial, or the"
    " training value accumulation"
)


def reason_of(error: BaseException, peak: int) -> str:
    """Why a trial failed, on one line; where memory was short, with the most bytes that it had and
    how to mend it."""
    said = without_folders(cause_of(error))
    if not lacks_memory(error):
        return said
    return f"out of memory, with {peak / 1e9:.1f} GB at its peak ({_shortened(said)}); {MEND}"


def _shortened(said: str) -> str:
    """An error of memory without the advice that torch adds."""
    return re.split(r" (?:Including non-PyTorch|If reserved but|See documentation)", said)[0]


def kernel_kills() -> int:
    """How many processes the kernel has killed for lack of memory since the machine started; 0
    where it does not tell."""
    return _number(Path("/proc/vmstat"), "oom_kill")


def peak_of(process: int) -> int:
    """The most bytes that a running process had in memory; 0 where the system does not tell."""
    return 1024 * _number(Path(f"/proc/{process}/status"), "VmHWM:")


def _number(file: Path, name: str) -> int:
    """The number behind a name in one of the kernel's files."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(words[1]) for words in map(str.split, lines) if words[:1] == [name]), 0)


def reason_of_end(code: int | None, peak: int, killed: bool) -> str:
    """Why a trial failed whose process ended twice without a result.

    `code` is its exit code, minus the signal's number after a signal, None if unknown; `peak` are
    the most bytes that were seen; `killed` says that the kernel has killed a process for lack of
    memory meanwhile.
    """
    what = "its worker process ended twice without a result"
    if code is not None:
        what += f" ({_ending(code)})"
    seen = f", with at least {peak / 1e9:.1f} GB in memory" if peak else ""
    if killed and code in (None, -signal.SIGKILL):
        return f"out of memory: {what}{seen}; the system ended a process for it; {MEND}"
    if code in (None, -signal.SIGKILL):
        return f"{what}{seen}; if memory was short, {MEND}"
    return f"{what}{seen}"


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def reason_of_ray(said: str, peak: int, killed: bool) -> str:
    """The same where Ray says why a worker ended."""
    memory = re.search(r"([\d.]+GB) used / ([\d.]+GB) limit", said)
    if memory:
        used = f"{memory[1]} of {memory[2]} were in use on its machine"
        return f"out of memory: Ray ended its worker process twice ({used}); {MEND}"
    return reason_of_end(None, peak, killed)
