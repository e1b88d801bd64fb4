"""How commands end: signals, what the system refuses, lack of memory and time, records that vanish,
a Ray that leaves nothing behind, and files that do not tell where they were made."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from tests import faults_of_ends
from tests.faults_of_ends import Fault, Running, injected, send
from tests.helpers import ROOT, a_trial, command
from zoo.ends import STOPPED, interruptible
from zoo.ends import command as command_line
from zoo.errors import ConfigError, StorageError, Terminated, without_folders
from zoo.records.result import Failure
from zoo.records.storage import load
from zoo.runs import cluster, guard, shortage
from zoo.runs.output import Bounded
from zoo.runs.shortage import MEND, reason_of, reason_of_end, reason_of_ray
from zoo.runs.watch import Watch, children

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


# --------------------------------------------------------------------------------- signals


@linux
def test_signals_in_the_first_seconds_are_one_line():
    """A few of the whole campaign, `python -m tests.faults_of_ends`."""
    assert faults_of_ends.imports(share=0.1).lost == []


def test_what_is_imported_before_signals_are_handled_is_little():
    heavy = {"torch", "numpy", "scipy", "matplotlib", "transformers"}
    code = (
        f"import sys, leaderboard, zoo.tools, zoo.ends; sys.exit(bool({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


class Sends:
    """Its removal sends this process a signal."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        for _ in range(1000):
            pass


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)],
)
def test_a_signal_that_python_drops_is_sent_again(number, raised):
    with pytest.raises(raised) as stop, interruptible():
        Sends(number)
        time.sleep(5)
    assert isinstance(stop.value, Terminated) == (number != signal.SIGINT)
    assert getattr(stop.value, "number", signal.SIGINT) == number


def test_a_signal_that_was_ignored_stays_ignored():
    """As under nohup; and what handled signals before handles them afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_exit_codes_of_signals(capsys):
    codes = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        codes.append(command_line(lambda number=number: os.kill(os.getpid(), number) or 0)())
        assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert codes == [*STOPPED] == [130, 143, 129]


# ------------------------------------------------------------------- what the system refuses


def test_what_the_system_refuses_is_one_line_and_other_errors_are_faults_of_ours(capsys):
    def refused(number: int) -> int:
        raise OSError(number, os.strerror(number), "some/file")

    assert command_line(refused)(errno.EMFILE) == 4
    said = "error: some/file: Too many open files; raise the limit of open files (ulimit -n)\n"
    assert capsys.readouterr().err == said
    with pytest.raises(OSError, match="No such file"):
        command_line(refused)(errno.ENOENT)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("unable to mmap 17 bytes from file <x>: Cannot allocate memory (12)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_a_lack_of_memory_is_one_line_and_other_errors_are_faults_of_ours(error, capsys):
    def raises(error: Exception) -> int:
        raise error

    assert command_line(raises)(error) == 5
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (") and err.count("\n") == 1
    with pytest.raises(RuntimeError, match="Handler"):
        command_line(raises)(RuntimeError("MemoryErrorHandler is missing"))


@linux
def test_a_folder_without_permissions_is_one_line():
    """As root too, from which the rights over all files are taken."""
    before = partial(faults_of_ends.close, "a", 0)
    words = (*faults_of_ends.ALONE, "--results", "a/b")
    fault = Fault(
        "results", words, 4, r"^error: cannot write in .*: Permission denied", before=before
    )
    assert injected("permissions", [fault]).lost == []


def test_records_that_vanish_during_a_run_are_said(run, checkpoint, sst2, tmp_path, monkeypatch):
    import run_benchmark

    execute = run_benchmark.execute

    def and_then(*given):
        execute(*given)
        for path in (tmp_path / "results" / "smoke").glob("sst2-dense-*seed1-*"):
            path.unlink()

    monkeypatch.setattr(run_benchmark, "execute", and_then)
    options = ("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2))
    more = ("--tasks", "sst2", "--methods", "dense", "--seeds", "0,1", "--max-steps", "1")
    code, out, err = run(*options, *more)
    assert code == StorageError.exit_code and "2/2 done" in out
    assert err.startswith("error: 1 of the 2 records that this run has written are no longer in ")


# ----------------------------------------------------------------------------- memory, time


def test_errors_of_memory_say_the_peak_and_how_to_mend_it():
    advice = " Including non-PyTorch memory, this process has 77.00 GiB memory in use."
    on_gpu = torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB.{advice}")
    said = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert reason_of(on_gpu, 75_250_000_000) == (
        f"out of memory, with 75.2 GB at its peak ({said}); {MEND}"
    )
    assert reason_of(MemoryError(), 10**9).startswith("out of memory, with 1.0 GB at its peak (Mem")
    with pytest.raises(RuntimeError) as on_cpu:
        torch.ones(2**50)
    assert reason_of(on_cpu.value, 10**9).startswith("out of memory, with 1.0 GB at its peak (Run")
    assert reason_of(ValueError("7"), 10**9) == "ValueError: 7"


@pytest.mark.parametrize(
    ("code", "peak", "killed", "reason"),
    [
        (1, 0, False, "{} (exit code 1)"),
        (1, 0, True, "{} (exit code 1)"),
        (-11, 2 * 10**9, False, "{} (SIGSEGV), with at least 2.0 GB in memory"),
        (-9, 0, False, "{} (SIGKILL); if memory was short, MEND"),
        (-9, 10**9, True, "out of memory: {} (SIGKILL), with at least 1.0 GB in memory; the system"
         " ended a process for it; MEND"),
        (None, 0, False, "{}; if memory was short, MEND"),
    ],
)  # fmt: skip
def test_the_end_of_a_process_says_what_is_known(code, peak, killed, reason):
    twice = "its worker process ended twice without a result"
    assert reason_of_end(code, peak, killed) == reason.format(twice).replace("MEND", MEND)


def test_what_ray_says_of_a_worker(monkeypatch, tmp_path):
    said = "Memory on the node (IP: 1.2.3.4) was 7.11GB used / 23.54GB limit (0.302086)"
    used = "Ray ended its worker process twice (7.11GB of 23.54GB were in use on its machine)"
    assert reason_of_ray(said, 0, False) == f"out of memory: {used}; {MEND}"
    watch = Watch(tmp_path)
    watch.peaks[77] = 3 * 10**9
    assert "with at least 3.0 GB in memory; if" in watch.why("ActorDiedError\n\tpid: 77\n")
    monkeypatch.setattr("zoo.runs.watch.kernel_kills", lambda: watch.kills + 1)
    assert watch.why("ActorDiedError\n\tpid: 77\n").startswith("out of memory: ")


@linux
def test_the_kernel_tells_peaks_kills_and_children(tmp_path):
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert shortage.peak_of(os.getpid()) == pytest.approx(peak, rel=0.5)
    assert shortage.peak_of(2**30) == 0
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 3\n")
    assert shortage._number(tmp_path / "vmstat", "oom_kill") == 3
    with subprocess.Popen(["sleep", "60"]) as process:
        assert process.pid in children(os.getpid())
        assert {process.pid} == set(guard.descendants(os.getpid())) & {process.pid}
        process.kill()


LATE = """
import re
from pathlib import Path
from tests.helpers import a_trial
from zoo.records.result import Failure
from zoo.runs.guard import time_limit

with time_limit(0.5 / 60, Failure(a_trial(), "too late"), Path("suite")):
    pass
print("in time", flush=True)
with time_limit(0.5 / 60, Failure(a_trial(), "too late"), Path("suite")):
    re.match("(a+)+b", "a" * 60)  # holds the lock of the interpreter
"""


def test_a_trial_that_takes_too_long_is_ended_whatever_it_does(tmp_path):
    paths = {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", LATE]
    done = subprocess.run(
        words, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL and done.stdout == "in time\n", done.stderr
    (path,) = (tmp_path / "suite").glob("*.failed.json")
    assert load(path) == Failure(a_trial(), "too late")


def test_what_a_trial_prints_is_bounded(capsys):
    stream = Bounded(sys.stdout, most=10)
    for text in ("12345", "67890abc", "more"):
        assert stream.write(text) == len(text)
    stream.writelines(["still ", "more"])
    stream.flush()
    said = capsys.readouterr().out
    assert said == "1234567890\n(this trial prints too much: the rest is not shown)\n"


# ------------------------------------------------------------------------------------- Ray


@pytest.mark.parametrize(
    ("found", "message"),
    [("2.59.1", "Ray 2.59.1 lets others on the network in, 2.60 does not; pip install"),
     (None, "Ray is not installed; pip install 'ray[tune]>=2.60', or give --executor inline")],
)  # fmt: skip
def test_a_ray_that_lets_others_in_is_refused(monkeypatch, found, message):
    def version(name):
        if found is None:
            raise cluster.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(cluster, "version", version)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        cluster.check_version()
    monkeypatch.setattr(cluster, "version", lambda name: "2.60.0")
    cluster.check_version()


def test_the_least_ray_is_that_of_the_dependencies():
    least = ".".join(map(str, cluster.OLDEST))
    assert f'"ray[tune]>={least}"' in (ROOT / "pyproject.toml").read_text()


def listening(numbers: set[int]) -> set[str]:
    """The addresses, in hexadecimal digits, on which these processes listen."""
    places = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                places[f"socket:[{words[9]}]"] = words[1].split(":")[0]
    found = set()
    for number in numbers:
        with suppress(OSError):
            for handle in Path(f"/proc/{number}/fd").iterdir():
                found.add(places.get(str(handle.readlink())))
    return found - {None}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, as itself and in IPv6, and ::1."""


@linux
def test_a_ray_of_its_own_listens_on_loopback_and_a_signal_leaves_nothing_of_it():
    heard: set[str] = set()

    def act(running: Running) -> None:
        running.wait_for("begun")
        heard.update(listening({running.process.pid, *running.known}))
        send(signal.SIGTERM, 0, running)

    words = ("--plugin", "mine.py", "--methods", "slow", "--seeds", "0")
    line = "^stopped; finished trials are kept. To continue: python run_benchmark.py --suite smoke"
    assert injected("Ray", [Fault("SIGTERM", words, 143, line, act=act)]).lost == []
    assert heard and heard <= LOOPBACK


LEAVES = """
import os, signal, subprocess, time
from pathlib import Path
from zoo.runs.guard import clearing

Path("scratch").mkdir()
with clearing(Path("scratch")):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@linux
def test_what_a_driver_that_is_killed_has_started_is_ended(tmp_path):
    """As Ray's agents, which else live on for a minute."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", LEAVES]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
    end = time.monotonic() + 30
    while child in guard.processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert process.returncode == -signal.SIGKILL and child not in guard.processes()
    while (tmp_path / "scratch").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (tmp_path / "scratch").exists()


# ------------------------------------------------------------ what files tell of a machine

OPENS = """
from dataclasses import replace
from methods.movement import movement
from zoo import register_method

@register_method("opens", recipe="movement")
def opens(density, *, start, stop):
    return replace(movement(density, start=start, stop=stop), mask=lambda s, l: open(__file__ + ".no"))
"""


def test_files_do_not_tell_where_they_were_made_and_by_whom(here, tmp_path):
    """Results, failures, plans, pages, models, the cache, and claims, snapshots and status lines
    while they are there; given by absolute paths, in a home and with a token that must not show."""
    folder = tmp_path / "homeofzaphod"
    folder.mkdir()
    (folder / "opens.py").write_text(OPENS)
    words = [
        *("--model", str(here / "small"), "--data-dir", str(here / "data")),
        *("--plugin", str(folder / "opens.py"), "--methods", "smp_s,opens"),
        *("--seeds", "0", "--save", "best", "--checkpoint-minutes", "0.0001"),
        *("--executor", "inline"),
    ]
    secrets = {"HF_TOKEN": "hf_secretofzaphod", "HOME": str(folder), "USER": "zaphodbeeblebrox"}
    secrets |= {"LOGNAME": secrets["USER"], "HEART": "goldengoldengold"}
    process = subprocess.Popen(
        command("told", *words),
        cwd=here,
        env=os.environ | secrets,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen: dict[str, bytes] = {}
    while process.poll() is None:
        for parent, _, names in os.walk(here / "told"):  # passes over what is removed meanwhile
            for path in (Path(parent) / name for name in names if "/." in parent):
                with suppress(OSError):
                    seen[f"{path} {path.stat().st_mtime_ns}"] = path.read_bytes()
        time.sleep(0.05)
    assert process.wait() == 3, process.communicate()
    assert all(any(word in name for name in seen) for word in (".claims", ".training", "running"))
    for path in (here / "told").rglob("*"):
        if path.is_file():
            seen[str(path)] = path.read_bytes()
    unwanted = [*secrets.values(), "zaphod", str(here), str(ROOT), sys.prefix]
    for name, content in seen.items():
        for word in unwanted:
            assert word.encode() not in content, f"{name} has {word}"
    assert any(b"No such file or directory: 'opens.py.no'" in content for content in seen.values())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("No such file: '/home/me/a b.py'", "No such file: 'a b.py'"),
        ("/home/me/a.py:12: KeyError", "a.py:12: KeyError"),
        ("see https://huggingface.co/a/b, and c/d", "see https://huggingface.co/a/b, and c/d"),
        ("3 / 4 of hf_abcdefghijk", "3 / 4 of hf_..."),
    ],
)
def test_texts_without_folders(text, kept):
    assert without_folders(text) == kept
