"""Claims: several drivers on one folder share its trials, and none is run twice.

A claim is a file that one process can make and no second one. Its owner touches it while the trial
runs; a claim that was not touched for LEASE seconds belonged to a process that died, and counts no
more; on one machine a dead process is noticed at once. Ages are told by the clock of the file
system that all drivers see, not by their own.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

CLAIMS = ".claims"
"""The folder of claims in a suite's folder."""
LEASE, TOUCH = 120.0, 20.0
"""Seconds that a claim lasts untouched, and between two touches."""
WAIT = 2.0
"""Seconds before trials that others have claimed are looked at again."""


@contextlib.contextmanager
def claimed(folder: Path, trial: str) -> Iterator[bool]:
    """Claim a trial in a suite's folder for the time inside: True if this process has it, False if
    another one has. Where claims cannot be written it is always True."""
    path = folder / CLAIMS / trial
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = _make(path) or _take_over(path)
    except OSError:
        yield True
        return
    if not owner:
        yield False
        return
    done = Event()
    Thread(target=_touch, args=(path, owner, done), daemon=True).start()
    try:
        yield True
    finally:
        done.set()
        _drop(path, owner)


def _make(path: Path) -> str:
    """Make the file of a claim; returns its owner, "" if there is one already."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return ""
    try:
        return _write(handle)
    except OSError:  # a full disk: nobody would touch it
        path.unlink(missing_ok=True)
        raise


def _write(handle: int) -> str:
    owner = secrets.token_hex(8)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump({"owner": owner, "place": _place(), "process": os.getpid()}, stream)
    return owner


def _take_over(path: Path) -> str:
    """Claim what a dead process had; "" if its claim still counts, or another was faster. Only who
    makes the file `heir`, which is named by the dead owner, may replace its claim."""
    try:
        dead = _owner(path)
        if not _is_over(path):
            return ""
        heir = path.with_name(f".{path.name}.{dead}")
        try:
            handle = os.open(heir, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if _age(heir) >= LEASE:  # its maker died before it came to the claim
                heir.unlink(missing_ok=True)
            return ""
        owner = _write(handle)
        if _owner(path) != dead:
            heir.unlink(missing_ok=True)
            return ""
        heir.replace(path)
    except FileNotFoundError:  # it was dropped meanwhile
        return _make(path)
    return owner


def _is_over(path: Path) -> bool:
    return _age(path) >= LEASE or _has_died(path)


def _age(path: Path) -> float:
    """Seconds since a file was touched."""
    return now_in(path.parent) - path.stat().st_mtime


def now_in(folder: Path) -> float:
    """The time by the clock that dates the files of a folder; endless where none can be made."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"now")
            probe.flush()
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return math.inf


def _owner(path: Path) -> str:
    return re.sub(r"\W", "", str(_content(path).get("owner", "")))[:32]


@cache
def _place() -> str:
    """Names what has its own numbers of processes: this start of the machine, or a container on
    it; "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8")
        inode = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {inode}".encode()).hexdigest()[:16]


def _has_died(path: Path) -> bool:
    """Whether the owner was a process of this machine that is no more."""
    content = _content(path)
    if not _place() or content.get("place") != _place():
        return False
    try:
        os.kill(int(content["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False


def _content(path: Path) -> dict[str, Any]:
    """What a claim says; {} while it is being written."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _touch(path: Path, owner: str, done: Event) -> None:
    """Keep a claim alive until the trial is done."""
    while not done.wait(TOUCH):
        with contextlib.suppress(OSError):
            if _owner(path) == owner:
                os.utime(path)


def _drop(path: Path, owner: str) -> None:
    with contextlib.suppress(OSError):
        if _owner(path) == owner:
            path.unlink()


def pause() -> None:
    """Wait until it is worth looking again."""
    time.sleep(WAIT)
