"""What config.json may say: entries that would change what is computed are refused or named."""

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, one_line
from zoo.inputs.model_files import TensorHeader

REFUSED = {
    "auto_map": "asks for code of its own, which is never run",
    "quantization_config": "says that its weights are quantised, which cannot be trained: give the"
    " checkpoint before it was quantised",
    "is_decoder": "makes it a decoder, in which a token sees none that follow: the first token"
    " could not read the text",
    "add_cross_attention": "adds attention to another model",
    "pruned_heads": "drops attention heads while it is loaded; save the smaller model instead",
}
"""Entries that are refused wherever they say something."""
ABSOLUTE = "absolute"
"""The one `position_embedding_type` that there is."""
UNIMPORTANT = (
    *("adapters", "directionality", "finetuning_task", "gradient_checkpointing", "license"),
    *("model_name", "name_or_path", "num_labels", "output_past", "pooler_", "summary_", "torch"),
    *("tokenizer_class", "transformers_version", "language", "task_specific_params", "vocab_file"),
    *("position_embedding_type", "use_cache", "architectures", "id2label", "label2id", "_"),
)
"""How entries begin that change no hidden state, though no code of the model reads them."""


def check_config(
    config: Mapping[str, Any], layers: int, path: str, headers: Mapping[str, TensorHeader]
) -> None:
    """Raise ConfigError for an entry that would change what is computed, or for fewer `layers` than
    there are tensors of (in the list `path`)."""
    for name, reason in REFUSED.items():
        if config.get(name):
            value = one_line(config[name], 40)
            raise ConfigError(f"config.json says {name} {value}: it {reason}")
    positions = config.get("position_embedding_type", ABSOLUTE)
    if positions not in (ABSOLUTE, None):
        raise ConfigError(
            f"config.json says position_embedding_type {positions!r:.40}; only absolute positions"
            " are computed here"
        )
    numbers = [re.search(rf"(?:^|\.){re.escape(path)}\.(\d+)\.", name) for name in headers]
    found = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    if found > layers:
        raise ConfigError(
            f"config.json says {layers} layers, the weights have {found}; correct config.json, or"
            " save the smaller model"
        )


def unread_fields(config: Mapping[str, Any]) -> list[str]:
    """A note that names entries which the code of the model does not know: they were written for
    other code, which may compute something else."""
    known = _source(config["model_type"])
    unread = [
        name
        for name, value in config.items()
        if value not in (None, False, "", [], {})
        and not name.startswith(UNIMPORTANT)
        and not re.search(rf"\b{re.escape(name)}\b", known)
    ]
    if not unread:
        return []
    return [f"config.json has {', '.join(one_line(n, 40) for n in unread[:5])}: nothing reads it"]


@lru_cache
def _source(kind: str) -> str:
    """The code of configurations and models of a kind, in transformers."""
    from transformers import CONFIG_MAPPING, PretrainedConfig

    own, shared = (Path(inspect.getfile(one)) for one in (CONFIG_MAPPING[kind], PretrainedConfig))
    files = [*own.parent.glob("*.py"), shared]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
