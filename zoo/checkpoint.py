"""Find, fingerprint and load a pre-trained model: a folder, or a name on the Hugging Face hub."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ResourceError

SUPPORTED = ("bert", "roberta")
TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
)
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
"""Files that a tokeniser can be made from."""
HUB_TIMEOUT = 3.0
"""Seconds that the first word from the hub may take."""


@dataclass(frozen=True)
class Checkpoint:
    """A model on this machine's disk.

    `name` is what tables show, `folder` where it lies, `sha` the sha256 over its weights,
    configuration and tokeniser, `tokenizer_sha` that over the tokeniser's files alone;
    `prunable_weights` counts the entries of the encoder's matrices; `positions` is how many
    tokens the longest input may have; `labels` are the class names of its configuration, in order,
    empty if it has none but numbers.
    """

    name: str
    folder: str
    sha: str
    tokenizer_sha: str
    model_type: str
    has_mlm_head: bool
    prunable_weights: int
    positions: int
    labels: tuple[str, ...] = ()


def find_checkpoint(given: str) -> Checkpoint:
    """Resolve a folder or a hub name, downloading if need be.

    Raises ConfigError for a folder that is not a BERT or RoBERTa checkpoint in safetensors, and
    ResourceError if the hub cannot be reached.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if folder.exists() or given.startswith((".", "/", "~")):
            raise ConfigError(f"model {given}: no such folder; give a folder or a hub name")
        folder = Path(from_hub(given, "model"))
    return _inspect(given, str(folder.resolve()))


@lru_cache
def _inspect(given: str, folder: str) -> Checkpoint:
    config = _read_json(Path(folder, "config.json"), given)
    if not isinstance(config, dict):
        raise ConfigError(f"model {given}: config.json is no object")
    if config.get("model_type") not in SUPPORTED:
        raise ConfigError(
            f"model {given}: config.json says model_type {config.get('model_type')!r};"
            f" supported: {', '.join(SUPPORTED)}"
        )
    if "auto_map" in config:
        raise ConfigError(
            f"model {given}: config.json asks for code of its own (auto_map); refused"
        )
    weights = sorted(Path(folder).glob("*.safetensors"))
    if not weights:
        raise ConfigError(
            f"model {given}: no .safetensors file in it; convert the checkpoint first"
        )
    names = {name for file in weights for name in _tensor_names(file, given)}
    if not any(all(Path(folder, file).exists() for file in files) for files in TOKENIZERS):
        raise ConfigError(
            f"model {given}: no tokeniser in it; expected tokenizer.json, vocab.txt, or vocab.json"
            " with merges.txt"
        )
    mlm = any(
        n.endswith(("cls.predictions.transform.dense.weight", "lm_head.dense.weight"))
        for n in names
    )
    tokenizer = _sha([Path(folder, file) for file in TOKENIZER_FILES])
    whole = _sha([Path(folder, "config.json"), *weights])
    name = Path(folder).name if Path(given).expanduser().is_dir() else given
    sha = hashlib.sha256((tokenizer + whole).encode()).hexdigest()
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "max_position_embeddings")
    for size in sizes:
        if not isinstance(config.get(size), int) or config[size] < 1:
            raise ConfigError(
                f"model {given}: config.json says {size} {config.get(size)!r}; expected a whole"
                " number"
            )
    layers, hidden, inner, positions = (config[size] for size in sizes)
    kind = config["model_type"]
    return Checkpoint(
        name=name,
        folder=folder,
        sha=sha,
        tokenizer_sha=tokenizer,
        model_type=kind,
        has_mlm_head=mlm,
        prunable_weights=layers * (4 * hidden**2 + 2 * hidden * inner),
        positions=positions - (config.get("pad_token_id", 1) + 1 if kind == "roberta" else 0),
        labels=_labels(config.get("id2label")),
    )


def _labels(names: Any) -> tuple[str, ...]:
    """Class names in the order of their numbers; none if they are Hugging Face's LABEL_0, ..."""
    if not isinstance(names, dict) or not all(str(number).isdigit() for number in names):
        return ()
    found = tuple(str(names[number]) for number in sorted(names, key=int))
    return () if all(name.startswith("LABEL_") for name in found) else found


def _sha(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _read_json(path: Path, given: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {given}: cannot read {path.name}: {error}") from None


def _tensor_names(file: Path, given: str) -> list[str]:
    """The names in a safetensors file: its JSON header alone."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 100_000_000:
                raise ValueError("header too large")
            return [name for name in json.loads(stream.read(size)) if name != "__metadata__"]
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {given}: cannot read {file.name}: {error}") from None


def from_hub(name: str, kind: str) -> str:
    """The local folder of a model (its safetensors, configuration, tokeniser) from the hub's cache,
    or downloaded; one line if neither can be had."""
    from huggingface_hub import HfApi, snapshot_download

    patterns = ["config.json", "*.safetensors", "vocab*", "merges.txt", "tokenizer*"]
    try:
        return snapshot_download(name, allow_patterns=patterns, local_files_only=True)
    except (OSError, ValueError):
        pass  # not in the cache; ask the hub
    with reaching_hub(f"{kind} {name}"):
        revision = HfApi().model_info(name, timeout=HUB_TIMEOUT).sha
        return snapshot_download(name, revision=revision, allow_patterns=patterns)


class reaching_hub:
    """Turn whatever the hub's client raises inside the block into one ResourceError."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            reason = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
            )
            raise ResourceError(
                f"cannot download {self.what} from the Hugging Face hub ({reason.strip(': ')});"
                " --model DIR and --data-dir DIR, or --scale tiny, work offline"
            ) from error


@lru_cache
def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own tokeniser."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)


def load_encoder(checkpoint: Checkpoint, *, pooler: bool) -> tuple[Any, frozenset[str]]:
    """The stock encoder in float32 and the names of parameters that the checkpoint lacks.

    Only a pooler may be lacking; anything else raises ConfigError.
    """
    from transformers import AutoModel

    return _load(AutoModel, checkpoint, ("pooler.",), add_pooling_layer=pooler)


def load_masked_lm(checkpoint: Checkpoint) -> Any:
    """The stock masked language model in float32, complete."""
    from transformers import AutoModelForMaskedLM

    return _load(AutoModelForMaskedLM, checkpoint, ())[0]


def _load(
    auto: Any, checkpoint: Checkpoint, may_lack: tuple[str, ...], **options: Any
) -> tuple[Any, frozenset[str]]:
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, info = auto.from_pretrained(
        checkpoint.folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    missing = frozenset(info["missing_keys"])
    lacking = sorted(name for name in missing if not (may_lack and name.startswith(may_lack)))
    if lacking or info["mismatched_keys"]:
        what = lacking or sorted(str(key) for key in info["mismatched_keys"])
        raise ConfigError(
            f"model {checkpoint.name}: {len(what)} tensors are missing or of another shape, e.g."
            f" {what[0]}"
        )
    return model, missing


def mlm_head(model: Any) -> Any:
    """The MLM head of a stock BERT (`cls.predictions`) or RoBERTa (`lm_head`)."""
    return model.lm_head if hasattr(model, "lm_head") else model.cls.predictions


@lru_cache
def word_ids(checkpoint: Checkpoint, task: str, words: tuple[str, ...]) -> list[int]:
    """The token of each label word, written with a leading space; raises unless it is one token."""
    tokenizer = load_tokenizer(checkpoint)
    ids = []
    for word in words:
        pieces = tokenizer.tokenize(" " + word)
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token:
            raise ConfigError(
                f"task {task}: label word {word!r} is {pieces or 'nothing'} for the tokeniser of"
                f" {checkpoint.name}; a label word must be one token: choose another word or head"
            )
        ids.append(tokenizer.convert_tokens_to_ids(pieces[0]))
    return ids
