"""The Hugging Face hub: downloads, and one clear error where it cannot be reached."""

import os
from typing import Any

from zoo.errors import ResourceError

TIMEOUT = 3.0
"""Seconds to wait for the hub's first answer."""


def from_hub(name: str) -> str:
    """The local folder of a model (safetensors, configuration, tokeniser), downloaded if the hub's
    cache does not have it. Raises ResourceError if that fails."""
    from huggingface_hub import HfApi, snapshot_download

    patterns = ["config.json", "*.safetensors", "vocab*", "merges.txt", "tokenizer*"]
    try:
        return snapshot_download(name, allow_patterns=patterns, local_files_only=True)
    except (OSError, ValueError):
        pass  # not in the cache
    with reaching_hub(f"model {name}"):
        revision = HfApi().model_info(name, timeout=TIMEOUT).sha
        return snapshot_download(name, revision=revision, allow_patterns=patterns)


class reaching_hub:
    """Turn any exception of the hub's client inside the block into one ResourceError."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        message = str(error).splitlines()[0][:120] if str(error) else ""
        reason = f"{type(error).__name__}: {message}".strip(": ")
        raise ResourceError(
            f"cannot download {self.what} from the Hugging Face hub ({reason});"
            " --model DIR and --data-dir DIR, or --scale tiny, work offline"
        ) from error
