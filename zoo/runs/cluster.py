"""What would stop Ray, checked before it starts: its version, RAY_ADDRESS, and the folder of its
sockets."""

import os
import re
import socket
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread

from zoo.errors import ConfigError, ResourceError, cause_of, one_line

TIMEOUT = 8.0
"""Seconds to wait for the host of RAY_ADDRESS."""
MEND = "unset it to use this machine alone, or give --executor inline"
SOCKET = "ray/session_2026-01-01_00-00-00_000000_{}/sockets/plasma_store"
"""Path of Ray's longest socket below its temporary folder; {} is the number of the process."""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2, which gRPC uses, says first; the other side answers with SETTINGS."""
SETTINGS = b"\x04"
NOT_RAY = "it answers, but not as Ray does"
LONGEST = 103 if sys.platform == "darwin" else 107
"""Bytes that the path of a socket may have."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Temporary folders that take the place of one that Ray cannot use."""


OLDEST = (2, 60)
"""The first version of Ray whose local clusters let nobody in without a token."""


def check_version() -> None:
    """Raise ConfigError unless Ray is installed, in a version that asks for a token."""
    least = ".".join(map(str, OLDEST))
    mend = f"pip install 'ray[tune]>={least}', or give --executor inline"
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise ConfigError(f"Ray is not installed; {mend}") from None
    if tuple(map(int, found.split(".")[:2])) < OLDEST:
        raise ConfigError(f"Ray {found} lets others on the network in, {least} does not; {mend}")


def address() -> str:
    """RAY_ADDRESS; "" to start a Ray on this machine."""
    return os.environ.get("RAY_ADDRESS", "")


def joins() -> bool:
    """Whether RAY_ADDRESS asks for a cluster that runs already."""
    return address() not in ("", "local")


def check_address(given: str) -> None:
    """Raise ResourceError, within TIMEOUT, unless `given` is "", "local", "auto", or the host and
    port of a server that may be a cluster's head."""
    if given in ("", "local", "auto"):
        return
    shown = f"RAY_ADDRESS={one_line(given, 80)}"
    if given.startswith("ray://"):
        raise ResourceError(
            f"{shown} is an address of Ray Client, which cannot report trials as they end; give"
            f" the host:port that `ray start` shows, on a machine of the cluster, or {MEND}"
        )
    host, port = _parsed(given)
    if not host:
        raise ResourceError(f"{shown} is not an address, expected auto or host:port; {MEND}")
    trouble = _trouble(host, port)
    if trouble:
        raise ResourceError(f"no Ray cluster at {shown} ({trouble}); {MEND}")


def _parsed(given: str) -> tuple[str, int]:
    """Host and port of 'host:port' or '[IPv6]:port'; an empty host for anything else."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([\w.-]+)):(\d{1,5})", given, re.ASCII)
    if not found or not 0 < int(found[3]) < 2**16:
        return "", 0
    return found[1] or found[2], int(found[3])


def _trouble(host: str, port: int) -> str:
    """Why no head of a cluster answers, "" if one does. Names may take longer to look up than
    TIMEOUT, therefore a thread does it."""
    found: list[str] = []

    def connect() -> None:
        try:
            with socket.create_connection((host, port), TIMEOUT) as link:
                link.sendall(GREETING)
                found.append("" if _encrypted() or link.recv(9)[3:4] == SETTINGS else NOT_RAY)
        except (OSError, ValueError) as error:
            found.append(cause_of(error))

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return found[0] if found else f"no answer in {TIMEOUT:g} s"


def _encrypted() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def choose_folder() -> None:
    """Set RAY_TMPDIR to a folder that Ray can use, if it cannot use the one that it would take; a
    note says so. Raises ResourceError if there is none."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    asked = os.environ.get(name, SHORT[0])
    trouble = unusable(asked)
    if not trouble:
        return
    shown = f"{name}={one_line(asked)}: {trouble}"
    folder = next((folder for folder in SHORT if not unusable(folder)), None)
    if folder is None:
        raise ResourceError(
            f"Ray cannot use {shown}; set RAY_TMPDIR to a short path that can be written,"
            " or give --executor inline"
        )
    print(f"note: Ray cannot use {shown}; it uses {folder} instead", file=sys.stderr)
    os.environ["RAY_TMPDIR"] = folder


def unusable(folder: str) -> str:
    """Why Ray cannot keep its sockets in a folder; "" if it can."""
    longest = Path(folder) / SOCKET.format(os.getpid())
    if not longest.is_absolute():
        return "not an absolute path"
    if len(os.fsencode(longest)) > LONGEST:
        return f"too long, a socket's path may have {LONGEST} bytes"
    try:
        inside = Path(folder) / "ray"
        inside.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=inside).close()
    except OSError as error:
        return str(error.strerror or error)
    return ""
