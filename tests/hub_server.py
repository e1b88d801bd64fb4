"""A stand-in for the Hugging Face hub on loopback: model and data set repositories from folders."""

import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """The folder of each commit, and the commit of each branch or tag. The pages of a gated one can
    be read; its files cannot."""

    gated: bool = False
    commits: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, folder: Path, *refs: str) -> str:
        """Add a commit with the files of a folder, and point these refs to it; returns its hash."""
        sha = hashlib.sha1(f"{folder.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = folder
        self.refs |= dict.fromkeys(refs, sha)
        return sha


@dataclass
class Hub:
    """Repositories by 'models/ID' and 'datasets/ID'. `breaks` says how many downloads of a file are
    reset halfway; `asked` counts requests by method and path; a `silent` hub resets all."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    breaks: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    silent: bool = False

    def add(self, name: str, folder: Path, *refs: str) -> str:
        """Add a commit of a repository; returns its hash."""
        return self.repositories.setdefault(name, Repository()).commit(folder, *refs)


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve a hub while the block runs; gives the address for HF_ENDPOINT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def entry(file: Path, folder: Path) -> dict[str, object]:
    """A line of a listing of files."""
    content = file.read_bytes() if file.is_file() else b""
    kind = "file" if file.is_file() else "directory"
    oid = hashlib.sha1(content).hexdigest()
    return {"type": kind, "path": str(file.relative_to(folder)), "size": len(content), "oid": oid}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests that huggingface_hub and datasets make to read a repository."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args):
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self):
        if self.hub.silent:
            return self.reset()
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked[f"{self.command} {path}"] += 1
        api, path = path.startswith("api/"), path.removeprefix("api/")
        if not path.startswith(("models/", "datasets/")):
            path = f"models/{path}"
        known = [name for name in self.hub.repositories if f"{path}/".startswith(f"{name}/")]
        if not known:
            return self.refuse(401, "RepoNotFound")
        repository = self.hub.repositories[known[0]]
        what, _, rest = path.removeprefix(known[0]).strip("/").partition("/")
        names = [*repository.refs, *repository.commits]
        chosen = [name for name in names if f"{rest}/".startswith(f"{name}/")]
        if what and not chosen:
            return self.refuse(404, "RevisionNotFound")
        revision = chosen[0] if what else "main"
        sha = repository.refs.get(revision, revision)
        rest = rest.removeprefix(revision).strip("/")
        if not api:
            return self.file(repository, sha, rest)
        return self.api(known[0].partition("/")[2], what, sha, repository.commits[sha], rest)

    def api(self, name: str, what: str, sha: str, folder: Path, below: str):
        if what in ("", "revision"):
            files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
            siblings = [{"rfilename": file} for file in files]
            return self.json({"id": name, "sha": sha, "siblings": siblings})
        if what != "tree" or not (folder / below).is_dir():
            return self.refuse(404, "EntryNotFound")
        deep = "recursive=true" in self.path.lower()
        found = sorted((folder / below).rglob("*") if deep else (folder / below).iterdir())
        return self.json([entry(file, folder) for file in found])

    def file(self, repository: Repository, sha: str, name: str):
        file = repository.commits[sha] / name
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        if repository.gated:
            return self.refuse(401, "GatedRepo")
        content = file.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", sha)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command != "HEAD":
            self.send(name, content[start:])

    def send(self, name: str, content: bytes):
        """The content, or half of it and then a reset of the connection."""
        if self.hub.breaks[name]:
            self.hub.breaks[name] -= 1
            self.wfile.write(content[: len(content) // 2])
            self.reset()
        else:
            self.wfile.write(content)

    def reset(self):
        """End the connection as if a machine on the way had lost it."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def json(self, value: object):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
