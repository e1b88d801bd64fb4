"""Compact models as files: `compact.json` and `model.safetensors`, read without running code.

There is no config.json: stock transformers refuses the folder, instead of loading a model with
layers drawn at random.
"""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.engine.compact import PARTS, CompactLayer, Linear, compact_layers
from zoo.engine.export import distinct
from zoo.engine.sparse import sparse as make_sparse
from zoo.engine.stock import LOADERS
from zoo.errors import ConfigError, one_line
from zoo.inputs.architecture import SizeNames
from zoo.inputs.checkpoint import quiet
from zoo.inputs.kinds import ARCHITECTURES, architecture_of, encoder_prefix

VERSION = 1
ABOUT, WEIGHTS = "compact.json", "model.safetensors"
"""The files of a compact model."""
FOREIGN = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation")
"""Entries of a configuration that could make transformers look for other code."""
CLASSES = 10_000
"""Most classes of a model."""


def save_compact(model: Any, loader: str, folder: Path, **about: Any) -> None:
    """Write a compact model into a folder; `loader` is the stock class that it was made of, `about`
    goes into compact.json."""
    state = {name: tensor.contiguous() for name, tensor in distinct(model.state_dict()).items()}
    content = {
        "version": VERSION,
        "loader": loader,
        "layers": [{"attention_heads": x.heads, "scale": x.scale} for x in compact_layers(model)],
        "config": config_to_write(model),
        **about,
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / ABOUT).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_compact(folder: str | Path, *, sparse: bool = False) -> Any:
    """The compact model in a folder, in evaluation mode, called like the stock model that it was
    made of; with `sparse=True` for inference on a CPU, as zoo.sparse makes it.

    Raises ConfigError for a folder without a compact model, and for damaged files.

    >>> from zoo import ConfigError, load_compact
    >>> try:
    ...     load_compact("nowhere")
    ... except ConfigError as error:
    ...     print(error)
    nowhere: not a compact model: compact.json is missing
    """
    folder = Path(folder)
    try:
        for name in (ABOUT, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        model = _load(about, load_file(folder / WEIGHTS))
    except Exception as error:  # transformers raises anything for an odd configuration
        raise ConfigError(f"{folder}: not a compact model: {one_line(error, 200)}") from None
    return make_sparse(model) if sparse else model


def config_to_write(model: Any) -> dict[str, Any]:
    """A model's configuration without the path that it came from."""
    content = model.config.to_dict()
    return {name: value for name, value in content.items() if name != "_name_or_path"}


def config_of(content: Mapping[str, Any]) -> Any:
    """The configuration that a file holds. Raises ValueError for an encoder that this program does
    not know; entries that could lead to other code are left out."""
    import transformers

    if content["model_type"] not in ARCHITECTURES:
        raise ValueError(f"{content['model_type']!r:.40} is no encoder that this program knows")
    if max(len(content.get("id2label") or ()), content.get("num_labels", 0)) > CLASSES:
        raise ValueError(f"it has more than {CLASSES:,} classes")
    known = {name: value for name, value in content.items() if name not in FOREIGN}
    return transformers.AutoConfig.for_model(**known)


def _load(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    import transformers

    quiet()
    if about["version"] != VERSION:
        raise ValueError(f"its version is {about['version']!r:.40}, this program reads {VERSION}")
    if about["loader"] not in LOADERS:
        raise ValueError("it is of a class that this program does not know")
    config = config_of(about["config"])
    sizes = ARCHITECTURES[config.model_type].sizes
    hidden, wide = getattr(config, sizes.hidden), getattr(config, sizes.intermediate)
    _check_tables(state, config, sizes)
    setattr(config, sizes.layers, 1)  # a pattern: its norms and its activation are used
    setattr(config, sizes.intermediate, 1)
    model = getattr(transformers, about["loader"]).from_config(config, dtype=torch.float32).eval()
    architecture = architecture_of(model.base_model)
    layers = architecture.layers_of(model.base_model)
    pattern = layers[0]
    del layers[:]
    for number, facts in enumerate(about["layers"]):
        own = f"{encoder_prefix(model)}{architecture.layers}.{number}."
        maps = {p: Linear(state[f"{own}{p}.weight"], state[f"{own}{p}.bias"]) for p in PARTS}
        _check(maps, facts, hidden, own)
        norms = [copy.deepcopy(pattern.get_submodule(path)) for path in architecture.norms]
        activation = pattern.get_submodule(architecture.activation)
        layers.append(
            CompactLayer(maps, norms, activation, facts["attention_heads"], float(facts["scale"]))
        )
    setattr(config, sizes.layers, len(layers))
    setattr(config, sizes.intermediate, wide)
    if odd := distinct(model.state_dict()).keys() ^ state.keys():
        raise ValueError(f"{min(odd)} is in one of the files alone")
    model.load_state_dict(state, strict=False)  # without the second names of tied tensors
    model.set_attn_implementation("sdpa")
    return model


def _check_tables(state: Mapping[str, Tensor], config: Any, sizes: SizeNames) -> None:
    """Raise ValueError unless the tables that a model will have are those of the file: a damaged
    configuration could ask for gigabytes."""
    rows = {tensor.shape[0] for tensor in state.values() if tensor.dim() == 2}
    widths = {tensor.shape[-1] for tensor in state.values() if tensor.dim()}
    for name in ("vocab_size", sizes.positions, "type_vocab_size"):
        if getattr(config, name, 0) and getattr(config, name) not in rows:
            raise ValueError(f"no tensor has the {getattr(config, name)!r:.40} rows of {name}")
    for name in (sizes.hidden, "embedding_size"):
        if getattr(config, name, 0) and getattr(config, name) not in widths:
            raise ValueError(f"no tensor has the {getattr(config, name)!r:.40} columns of {name}")


def _check(maps: Mapping[str, Linear], facts: Mapping[str, Any], hidden: int, where: str) -> None:
    """Raise ValueError unless the matrices of a layer fit each other and the hidden size."""
    wide = {name: linear.weight.shape[1] for name, linear in maps.items()}
    high = {name: linear.weight.shape[0] for name, linear in maps.items()}
    heads, scale = facts["attention_heads"], float(facts["scale"])
    whole = type(heads) is int and heads >= 0 and math.isfinite(scale)
    sides = {wide[n] for n in ("query", "key", "value", "inner")} | {high["output"], high["outer"]}
    matrices = all(linear.weight.dim() == 2 for linear in maps.values())
    divided = whole and all(high[n] % max(1, heads) == 0 for n in ("query", "key", "value"))
    chained = high["query"] == high["key"] and high["value"] == wide["output"]
    biases = all(linear.bias.shape == linear.weight.shape[:1] for linear in maps.values())
    chained = chained and sides == {hidden} and high["inner"] == wide["outer"]
    if not (matrices and divided and chained and biases):
        raise ValueError(f"the matrices of {where} do not fit each other")
