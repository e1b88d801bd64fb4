"""Find, check and load a pre-trained model: a folder, or a name on the Hugging Face hub."""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, cause_of, one_line
from zoo.inputs.architecture import Architecture, whole_number
from zoo.inputs.config_fields import check_config, unread_fields
from zoo.inputs.hub import from_hub
from zoo.inputs.kinds import ARCHITECTURES, unsupported
from zoo.inputs.model_files import (
    FLOATS,
    TensorHeader,
    check_tokenizer_files,
    fingerprint,
    read_json,
    tensor_headers,
    tokenizer_files,
    weight_files,
)

PARTS = (
    *("bert", "roberta", "distilbert", "electra", "mpnet", "deberta", "model", "embeddings"),
    *("embeddings_project", "encoder", "transformer", "layers", "final_norm", "pooler"),
)
"""How names of tensors of encoders begin."""
HEADS = (
    *("cls", "lm_head", "generator_predictions", "generator_lm_head", "vocab_transform", "head"),
    *("discriminator_predictions", "lm_predictions", "mask_predictions", "vocab_layer_norm"),
    *("vocab_projector", "decoder"),
)
"""The same for the heads of pre-training, which label words read or nothing does."""
BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
"""How names of tensors end that older versions of transformers saved, and that are computed."""
PREFIXES = ("module.", "_orig_mod.", "model.module.")
"""What other programs put before all names."""


@dataclass(frozen=True)
class Checkpoint:
    """A pre-trained model on this machine's disk.

    `name` is shown in tables; `folder` is where the files are; `sha` is the sha256 of weights,
    configuration and tokeniser, `tokenizer_sha` that of the tokeniser's files alone.
    `layers` counts its layers, `weights` all its numbers, `prunable_weights` the entries of the
    matrices that can be pruned; `hidden` is the width of hidden states; `positions` is the number
    of tokens that the longest input may have, `vocabulary` that of the tokens that have an
    embedding, `segments` that of the segment ids that are told apart, `pad` the padding token's.
    `labels` are the class names in the configuration, in order, empty if it names none; `notes`
    say what of the files is not used.
    """

    name: str
    folder: str
    sha: str
    tokenizer_sha: str
    model_type: str
    has_mlm_head: bool
    layers: int
    weights: int
    prunable_weights: int
    hidden: int
    positions: int
    vocabulary: int
    segments: int
    pad: int
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
    try:
        if not folder.is_dir():
            if folder.is_file():
                raise ConfigError(f"model {given}: is a file; give the folder of it, or a hub name")
            if os.path.lexists(folder) or given.startswith((".", "/", "~")):
                raise ConfigError(f"model {given}: no such folder; give a folder or a hub name")
            folder = Path(from_hub(given))
        files = (file for file in sorted(folder.iterdir()) if file.exists())  # no dangling links
        states = ((file.name, file.stat()) for file in files)
        state = tuple((name, found.st_mtime_ns, found.st_size) for name, found in states)
    except OSError as error:  # what the system refuses: a name too long, a folder of others
        raise ConfigError(f"model {one_line(given, 200)}: {error.strerror or error}") from None
    return _inspect(given, str(folder.resolve()), state)


@lru_cache
def _inspect(given: str, folder: str, state: tuple[object, ...]) -> Checkpoint:
    """`state` of the files: a changed file is read again."""
    try:
        return _checkpoint(given, Path(folder))
    except ConfigError as error:
        raise ConfigError(f"model {given}: {error}") from None


def _checkpoint(given: str, folder: Path) -> Checkpoint:
    config = _config(folder)
    weights = weight_files(folder)
    check_tokenizer_files(folder)
    architecture = ARCHITECTURES[config["model_type"]]
    sizes = architecture.read_sizes(config)
    pad = _padding(config, architecture)
    headers = tensor_headers(weights)
    _check_stock(folder)
    check_config(config, sizes.layers, architecture.layers, headers)
    _check_tensors(headers)
    tokenizer = fingerprint(tokenizer_files(folder))
    whole = fingerprint([folder / "config.json", *weights])
    return Checkpoint(
        name=folder.name if Path(given).expanduser().is_dir() else given,
        folder=str(folder),
        sha=hashlib.sha256((tokenizer + whole).encode()).hexdigest(),
        tokenizer_sha=tokenizer,
        model_type=config["model_type"],
        has_mlm_head=any(name.endswith(architecture.mlm_tensor) for name in headers),
        layers=sizes.layers,
        weights=sum(math.prod(header.shape) for header in headers.values()),
        prunable_weights=architecture.prunable_weights(sizes),
        hidden=sizes.hidden,
        positions=sizes.positions - architecture.first_position(pad),
        vocabulary=whole_number(config, "vocab_size"),
        segments=architecture.segments(config),
        pad=pad,
        labels=_labels(config.get("id2label")),
        notes=(*unread_fields(config), *_own_heads(headers)),
    )


def _config(folder: Path) -> dict[str, Any]:
    """The content of config.json, if it is that of a supported model."""
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str) or config["model_type"] not in ARCHITECTURES:
        raise ConfigError(f"config.json says model_type {unsupported(config.get('model_type'))}")
    if (folder / "adapter_config.json").exists():
        raise ConfigError("it holds an adapter (adapter_config.json); merge it into the weights")
    return config


def _padding(config: Mapping[str, Any], architecture: Architecture) -> int:
    """The number of the padding token; it may be unknown where no position depends on it."""
    if architecture.offset_positions:
        pad = whole_number(config, "pad_token_id", 1, 0)
        if architecture.padding not in (None, pad):
            raise ConfigError(
                f"config.json says pad_token_id {pad}; models of this kind count positions from"
                f" {architecture.padding} whatever it says"
            )
        return pad
    return 0 if config.get("pad_token_id") is None else whole_number(config, "pad_token_id", 0, 0)


def _check_tensors(headers: Mapping[str, TensorHeader]) -> None:
    """Raise ConfigError for names that another program prefixed, and weights that are no floating-
    point numbers."""
    for prefix in PREFIXES:
        if headers and all(name.startswith(prefix) for name in headers):
            raise ConfigError(f"all its tensors' names begin with {prefix}; save them without it")
    for name, header in headers.items():
        if header.dtype not in FLOATS and not name.endswith(BUFFERS):
            raise ConfigError(
                f"its tensor {name:.80} is of type {header.dtype}; quantised weights cannot be"
                " trained: give the checkpoint before it was quantised"
            )


def _own_heads(headers: Mapping[str, TensorHeader]) -> list[str]:
    """A note that names tensors which no head here uses, such as a head of another task."""
    others = sorted({name.split(".")[0] for name in headers} - {*PARTS, *HEADS})
    return [f"the checkpoint's own {', '.join(others)} is not used"] if others else []


def quiet() -> None:
    """Keep transformers from writing lines and bars of its own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _check_stock(folder: Path) -> None:
    """Raise ConfigError if transformers does not accept config.json."""
    from transformers import AutoConfig

    quiet()
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises anything
        raise ConfigError(f"config.json is not accepted: {cause_of(error)}") from None


def _labels(names: Any) -> tuple[str, ...]:
    """Class names in the order of their numbers; empty for Hugging Face's LABEL_0, LABEL_1, ..."""
    numbers = names if isinstance(names, dict) else ("",)
    if not all(str(number).isascii() and str(number).isdigit() for number in numbers):
        return ()
    found = tuple(str(names[number]) for number in sorted(names, key=int))
    return () if all(name.startswith("LABEL_") for name in found) else found


def load_encoder(checkpoint: Checkpoint, *, pooler: bool) -> tuple[Any, frozenset[str]]:
    """The stock encoder in float32 and the names of parameters that the checkpoint lacks.

    `pooler` asks for the pooler, where the architecture has one. Raises ConfigError if anything
    else is lacking.
    """
    from transformers import AutoModel

    if checkpoint.architecture.add_pooling_layer:
        return _load(AutoModel, checkpoint, ("pooler.",), add_pooling_layer=pooler)
    return _load(AutoModel, checkpoint, ())


def load_tensors(checkpoint: Checkpoint, begin: str) -> dict[str, Any]:
    """The tensors in the files of weights whose names begin like that, in float32, by the rest of
    their names."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for file in weight_files(Path(checkpoint.folder)):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                names = [name for name in tensors.keys() if name.startswith(begin)]  # noqa: SIM118
                found |= {n.removeprefix(begin): tensors.get_tensor(n).float() for n in names}
    return found


def load_masked_lm(checkpoint: Checkpoint) -> Any:
    """The stock masked language model in float32; raises ConfigError if a tensor is lacking."""
    from transformers import AutoModelForMaskedLM

    return _load(AutoModelForMaskedLM, checkpoint, ())[0]


def _load(
    auto: Any, checkpoint: Checkpoint, may_lack: tuple[str, ...], **options: Any
) -> tuple[Any, frozenset[str]]:
    import torch

    quiet()
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
    _check_loading(checkpoint, model, info, may_lack)
    return model, frozenset(info["missing_keys"])


def _check_loading(
    checkpoint: Checkpoint, model: Any, info: Mapping[str, Any], may_lack: tuple[str, ...]
) -> None:
    """Raise ConfigError for tensors that are missing, of another shape, or part of the encoder in
    the file but not in the model."""
    lacking = sorted(n for n in info["missing_keys"] if not (may_lack and n.startswith(may_lack)))
    shapes = sorted((str(n), *map(tuple, both)) for n, *both in info["mismatched_keys"])
    extra = sorted(n for n in info["unexpected_keys"] if _inside(model.base_model, n))
    if shapes:
        name, theirs, ours = shapes[0]
        reason = f"{name} is {theirs} in the file, {ours} by config.json"
    elif lacking:
        reason = f"{lacking[0]} is not in the file"
    elif extra:
        reason = f"{extra[0]} is in the file, but no such part is in the model by config.json"
    else:
        return
    many = len(shapes or lacking or extra)
    more = f" (and {many - 1} more)" if many > 1 else ""
    raise ConfigError(f"model {checkpoint.name}: {reason}{more}; weights and config.json disagree")


def _inside(encoder: Any, name: str) -> bool:
    """Whether the name of a tensor that was not taken is one of the encoder's: its pooler may be
    left out, and buffers are computed."""
    own = name.removeprefix(f"{encoder.base_model_prefix}.")
    parts = [part for part, _ in encoder.named_children() if part != "pooler"]
    return own.split(".")[0] in parts and not own.endswith(BUFFERS)
