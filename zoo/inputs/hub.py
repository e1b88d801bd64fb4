"""The Hugging Face hub: names and revisions, downloads, and one clear line where they fail."""

import contextlib
import errno
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import BenchmarkError, ConfigError, ResourceError, StorageError, one_line
from zoo.inputs.model_files import INDEX, TOKENIZER_FILES

TIMEOUT = 3.0
"""Seconds to wait for the hub's first answer."""

MODEL_PATTERNS = ("config.json", "*.safetensors", INDEX, *TOKENIZER_FILES, "tokenizer.*.json")
"""The files of a repository that models and tokenisers read; folders inside it are left out."""

COMMIT = re.compile("[0-9a-f]{40}")
REVISION = re.compile(r"(?!.*\.\.)\w[\w.+@/=-]*")
DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR),
}
"""What a disk says that is full, or a cache folder that cannot be made or written."""

TOKEN = "a token (set HF_TOKEN, or run `hf auth login`)"
ELSEWHERE = "--model DIR and --data-dir DIR, or --scale tiny, work offline"


class UnreachableError(ResourceError):
    """The hub does not answer, or HF_HUB_OFFLINE forbids to ask it."""


def split_name(given: str) -> tuple[str, str | None]:
    """The repository and the revision in 'name' or 'name@revision'; raises ConfigError if it cannot
    be a name on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name, at, revision = given.partition("@")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ConfigError(
            f"model {given}: neither a folder nor a hub name; a hub name is NAME or OWNER/NAME,"
            " and may end in @REVISION"
        ) from None
    if at and not REVISION.fullmatch(revision):
        raise ConfigError(
            f"model {given}: {revision!r} cannot be a revision; give a branch, a tag or a commit"
            " after the @"
        )
    return name, revision or None


def pinned(given: str, folder: str) -> str:
    """The hub name of a model at the commit that was found in `folder`, its snapshot in the cache,
    so that a trial reads what was planned even if a branch moves."""
    return f"{split_name(given)[0]}@{Path(folder).name}"


def from_hub(given: str) -> str:
    """The local folder of a model (safetensors, configuration, tokeniser) under a hub name with or
    without @revision, downloaded if the hub's cache does not have all of it.

    The hub is asked where a branch or a tag is now; if it does not answer, and for names without
    a revision and for commits in any case, a complete snapshot in the cache is used. Raises
    ConfigError for a name that cannot be one and for a repository without safetensors, and
    ResourceError or StorageError if the download fails.
    """
    name, revision = split_name(given)
    what = f"model {given}"
    cached = _cached(name, revision)
    if cached and (revision is None or COMMIT.fullmatch(revision)):
        return cached
    from huggingface_hub import HfApi, snapshot_download

    try:
        with reaching_hub(what):
            info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT)
    except UnreachableError:
        if cached:
            return cached
        raise
    _check_files(what, {file.rfilename for file in info.siblings or ()})
    with reaching_hub(what, begun=True):
        return snapshot_download(
            name, revision=revision, allow_patterns=list(MODEL_PATTERNS), ignore_patterns=["*/*"]
        )


def _cached(name: str, revision: str | None) -> str | None:
    """The folder of a complete snapshot in the hub's cache, if there is one. The client knows what
    is missing where it listed the files; single files that others fetched have no list."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(MODEL_PATTERNS),
            ignore_patterns=["*/*"],
            local_files_only=True,
        )
    except (OSError, ValueError):
        return None
    folder = Path(found)
    weights = [*folder.glob("*.safetensors")]
    tokenizers = [name for name in TOKENIZER_FILES if (folder / name).exists()]
    whole = (folder / "config.json").exists() and weights and tokenizers
    return found if whole and all(file.exists() for file in folder.iterdir()) else None


def _check_files(what: str, files: set[str]) -> None:
    """Raise ConfigError if a repository has weights in another format alone."""
    top = {file for file in files if "/" not in file}
    others = sorted(file for file in top if file.endswith((".bin", ".h5", ".msgpack")))
    if others and not any(file.endswith(".safetensors") for file in top):
        raise ConfigError(
            f"{what}: its repository has {others[0]} and no .safetensors file; convert the"
            " checkpoint and give its folder, or give a revision that has them (NAME@refs/pr/1)"
        )


@lru_cache
def dataset_commit(repo: str, what: str) -> str | None:
    """The newest commit of a data set on the hub, asked once per process. Raises ResourceError."""
    from huggingface_hub import HfApi

    with reaching_hub(what):
        return HfApi().dataset_info(repo, timeout=TIMEOUT).sha


@contextlib.contextmanager
def reaching_hub(what: str, *, begun: bool = False) -> Iterator[None]:
    """Turn any exception of the hub's client inside the block into one BenchmarkError; `begun` says
    that the hub has answered before."""
    try:
        yield
    except BenchmarkError:
        raise
    except Exception as error:
        raise _explained(what, error, begun) from error


def _explained(what: str, error: Exception, begun: bool) -> BenchmarkError:
    """What went wrong, by the first exception in the chain that tells."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    head = f"cannot download {what} from the Hugging Face hub"
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {one_line(lines[0], 120)}".strip(": ")
    if HF_HUB_OFFLINE:
        return UnreachableError(
            f"{head}: HF_HUB_OFFLINE is set, and the cache does not have all of it; {ELSEWHERE}"
        )
    for cause in _chain(error):
        if told := _told(cause):
            return ResourceError(f"{head}: {told}")
        if isinstance(cause, OSError) and (cause.errno in DISK or "disk space" in str(cause)):
            said = cause.strerror or one_line(cause, 120)
            return StorageError(f"cannot store {what} in the hub's cache (HF_HOME): {said}")
        if begun and _is_transport(cause):
            return ResourceError(
                f"{head}: the download broke off ({reason}); the same command continues it"
            )
        if _is_transport(cause):
            break
    return UnreachableError(f"{head} ({reason}); {ELSEWHERE}")


def _told(error: BaseException) -> str:
    """What the hub itself said of a repository, or nothing."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or " is a gated dataset" in str(error):
        return f"it is gated; ask for access on its page there, then give {TOKEN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository, or a private one, which needs {TOKEN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision; give a branch, a tag or a whole commit hash after the @"
    if status in (401, 403):
        return f"the hub refuses access (status {status}); give {TOKEN} that it accepts"
    return ""


def _is_transport(error: BaseException) -> bool:
    """Whether the connection failed, whichever HTTP library the client uses."""
    library = type(error).__module__.partition(".")[0]
    broken = isinstance(error, ConnectionError | TimeoutError) or library.startswith("http")
    return broken or "Consistency check failed" in str(error)


def _chain(error: BaseException | None) -> Iterator[Any]:
    """An exception and what it came from, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
