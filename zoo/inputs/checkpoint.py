"""Find, fingerprint and load a pre-trained model: a folder, or a name on the Hugging Face hub."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, cause_of
from zoo.inputs.architecture import ARCHITECTURES, Architecture, prunable_weights, whole_number
from zoo.inputs.hub import from_hub

TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
)
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
"""Sets of files that are enough to build a tokeniser."""

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""'bert-base-uncased' or 'owner/name'."""


@dataclass(frozen=True)
class Checkpoint:
    """A pre-trained model on this machine's disk.

    `name` is shown in tables; `folder` is where the files are; `sha` is the sha256 of weights,
    configuration and tokeniser, `tokenizer_sha` that of the tokeniser's files alone.
    `prunable_weights` counts the entries of the matrices that can be pruned; `hidden` and
    `embedding` are the widths of hidden states and of token embeddings; `positions` is the number
    of tokens that the longest input may have; `labels` are the class names in the configuration,
    in order, empty if it names none.
    """

    name: str
    folder: str
    sha: str
    tokenizer_sha: str
    model_type: str
    has_mlm_head: bool
    prunable_weights: int
    hidden: int
    embedding: int
    positions: int
    labels: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """How its encoder is built."""
        return ARCHITECTURES[self.model_type]


def find_checkpoint(given: str) -> Checkpoint:
    """The checkpoint in a folder or under a name on the hub, downloaded if necessary.

    Raises ConfigError for a folder without a supported checkpoint in safetensors, and
    ResourceError if the hub cannot be reached.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if folder.is_file():
            raise ConfigError(f"model {given}: is a file; give the folder of it, or a hub name")
        if os.path.lexists(folder) or not HUB_NAME.fullmatch(given):
            raise ConfigError(f"model {given}: no such folder; give a folder or a hub name")
        folder = Path(from_hub(given))
    states = ((file.name, file.stat()) for file in sorted(folder.iterdir()))
    state = tuple((name, found.st_mtime_ns, found.st_size) for name, found in states)
    return _inspect(given, str(folder.resolve()), state)


@lru_cache
def _inspect(given: str, folder: str, state: tuple[object, ...]) -> Checkpoint:
    """`state` of the files: a changed file is read again."""
    try:
        return _checkpoint(given, Path(folder))
    except ConfigError as error:
        raise ConfigError(f"model {given}: {error}") from None


def _checkpoint(given: str, folder: Path) -> Checkpoint:
    config, weights = _config(folder), sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ConfigError("no .safetensors file in it; convert the checkpoint first")
    if not any(all((folder / file).exists() for file in files) for files in TOKENIZERS):
        raise ConfigError(
            "no tokeniser in it; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt"
        )
    architecture = ARCHITECTURES[config["model_type"]]
    sizes = architecture.read_sizes(config)
    pad = whole_number(config, "pad_token_id", 1, 0) if architecture.offset_positions else 0
    names = {name for file in weights for name in _tensor_names(file)}
    tokenizer = _sha([folder / file for file in TOKENIZER_FILES])
    whole = _sha([folder / "config.json", *weights])
    return Checkpoint(
        name=folder.name if Path(given).expanduser().is_dir() else given,
        folder=str(folder),
        sha=hashlib.sha256((tokenizer + whole).encode()).hexdigest(),
        tokenizer_sha=tokenizer,
        model_type=config["model_type"],
        has_mlm_head=any(name.endswith(architecture.mlm_tensor) for name in names),
        prunable_weights=prunable_weights(sizes),
        hidden=sizes.hidden,
        embedding=whole_number(config, "embedding_size", sizes.hidden),
        positions=sizes.positions - architecture.first_position(pad),
        labels=_labels(config.get("id2label")),
    )


def _config(folder: Path) -> dict[str, Any]:
    """The content of config.json, if it is that of a supported model."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read config.json: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError("config.json is not a JSON object")
    if not isinstance(config.get("model_type"), str) or config["model_type"] not in ARCHITECTURES:
        raise ConfigError(
            f"config.json says model_type {config.get('model_type')!r:.80};"
            f" supported: {', '.join(ARCHITECTURES)}"
        )
    if "auto_map" in config:
        raise ConfigError("config.json asks for code of its own (auto_map); refused")
    return config


def _labels(names: Any) -> tuple[str, ...]:
    """Class names in the order of their numbers; empty for Hugging Face's LABEL_0, LABEL_1, ..."""
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


def _tensor_names(file: Path) -> list[str]:
    """The names in a safetensors file, from its JSON header."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 100_000_000:
                raise ValueError("header too large")
            return [name for name in json.loads(stream.read(size)) if name != "__metadata__"]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file.name}: {error}") from None


@lru_cache
def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own tokeniser."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # transformers raises anything for a broken file
        raise ConfigError(
            f"model {checkpoint.name}: its tokeniser cannot be loaded: {cause_of(error)}"
        ) from error


def load_encoder(checkpoint: Checkpoint, *, pooler: bool) -> tuple[Any, frozenset[str]]:
    """The stock encoder in float32 and the names of parameters that the checkpoint lacks.

    `pooler` asks for the pooler, where the architecture has one. Raises ConfigError if anything
    else is lacking.
    """
    from transformers import AutoModel

    if checkpoint.architecture.add_pooling_layer:
        return _load(AutoModel, checkpoint, ("pooler.",), add_pooling_layer=pooler)
    return _load(AutoModel, checkpoint, ())


def load_masked_lm(checkpoint: Checkpoint) -> Any:
    """The stock masked language model in float32; raises ConfigError if a tensor is lacking."""
    from transformers import AutoModelForMaskedLM

    return _load(AutoModelForMaskedLM, checkpoint, ())[0]


def _load(
    auto: Any, checkpoint: Checkpoint, may_lack: tuple[str, ...], **options: Any
) -> tuple[Any, frozenset[str]]:
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = auto.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **options,
        )
    except Exception as error:  # transformers raises anything for an odd configuration
        raise ConfigError(f"model {checkpoint.name} cannot be loaded: {cause_of(error)}") from error
    missing = frozenset(info["missing_keys"])
    lacking = sorted(name for name in missing if not (may_lack and name.startswith(may_lack)))
    if lacking or info["mismatched_keys"]:
        what = lacking or sorted(str(key) for key in info["mismatched_keys"])
        raise ConfigError(
            f"model {checkpoint.name}: {len(what)} tensors are missing or of another shape, e.g."
            f" {what[0]}"
        )
    return model, missing


@lru_cache
def word_ids(checkpoint: Checkpoint, task: str, words: tuple[str, ...]) -> list[int]:
    """The token id of each label word, written with a leading space; raises ConfigError unless
    each is one token."""
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
