"""Compact models as files: `compact.json` and `model.safetensors`, read without running code.

There is no config.json: stock transformers refuses the folder, instead of loading a model with
layers drawn at random.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.engine.compact import PARTS, CompactLayer, Linear, compact_layers
from zoo.engine.sparse import sparse as make_sparse
from zoo.engine.stock import LOADERS
from zoo.errors import ConfigError, one_line
from zoo.inputs.checkpoint import quiet
from zoo.inputs.kinds import ARCHITECTURES, architecture_of

VERSION = 1
ABOUT, WEIGHTS = "compact.json", "model.safetensors"
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What reading damaged files may raise."""


def save_compact(model: Any, loader: str, folder: Path, **about: Any) -> None:
    """Write a compact model into a folder; `loader` is the stock class that it was made of, `about`
    goes into compact.json."""
    state: dict[str, Tensor] = {}
    tied: list[str] = []
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            tied.append(name)
            continue
        seen.add(tensor.data_ptr())
        state[name] = tensor.contiguous()
    content = {
        "version": VERSION,
        "loader": loader,
        "layers": [{"attention_heads": x.heads, "scale": x.scale} for x in compact_layers(model)],
        "tied": tied,
        "config": model.config.to_dict(),
        **about,
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / ABOUT).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_compact(folder: str | Path, *, sparse: bool = False) -> Any:
    """The compact model in a folder, in evaluation mode, called like the stock model that it was
    made of; with `sparse=True` for inference on a CPU, as zoo.sparse makes it.

    Raises ConfigError for a folder without a compact model, and for damaged files.
    """
    folder = Path(folder)
    try:
        for name in (ABOUT, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        model = _load(about, load_file(folder / WEIGHTS))
    except DAMAGED as error:
        raise ConfigError(f"{folder}: not a compact model: {one_line(error, 200)}") from None
    return make_sparse(model)[0] if sparse else model


def _load(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    import transformers

    quiet()
    if about["version"] != VERSION:
        raise ValueError(f"its version is {about['version']!r:.40}, this program reads {VERSION}")
    if about["loader"] not in LOADERS or about["config"]["model_type"] not in ARCHITECTURES:
        raise ValueError("it is of a class that this program does not know")
    config = transformers.AutoConfig.for_model(**about["config"])
    sizes = ARCHITECTURES[config.model_type].sizes
    setattr(config, sizes.layers, 1)  # the pattern of the others
    model = getattr(transformers, about["loader"]).from_config(config, dtype=torch.float32).eval()
    inner = model.base_model
    prefix = "" if inner is model else f"{model.base_model_prefix}."
    architecture = architecture_of(inner)
    layers = architecture.layers_of(inner)
    pattern = layers[0]
    del layers[:]
    for number, facts in enumerate(about["layers"]):
        own = f"{prefix}{architecture.layers}.{number}."
        maps = {p: Linear(state[f"{own}{p}.weight"], state[f"{own}{p}.bias"]) for p in PARTS}
        _check(maps, facts["attention_heads"], own)
        norms = [copy.deepcopy(pattern.get_submodule(path)) for path in architecture.norms]
        activation = pattern.get_submodule(architecture.activation)
        layers.append(
            CompactLayer(maps, norms, activation, facts["attention_heads"], float(facts["scale"]))
        )
    setattr(config, sizes.layers, len(layers))
    missing, extra = model.load_state_dict(state, strict=False)
    if odd := [*extra, *(name for name in missing if name not in about["tied"])]:
        raise ValueError(f"{odd[0]} is in one of the files alone")
    model.set_attn_implementation("sdpa")
    return model


def _check(maps: Mapping[str, Linear], heads: Any, where: str) -> None:
    """Raise ValueError unless the matrices of a layer fit each other."""
    wide = {name: linear.weight.shape[1] for name, linear in maps.items()}
    high = {name: linear.weight.shape[0] for name, linear in maps.items()}
    whole = type(heads) is int and heads >= 0
    divided = whole and all(high[n] % max(1, heads) == 0 for n in ("query", "key", "value"))
    chained = high["query"] == high["key"] and high["value"] == wide["output"]
    biases = all(linear.bias.shape == linear.weight.shape[:1] for linear in maps.values())
    if not (divided and chained and biases and high["inner"] == wide["outer"]):
        raise ValueError(f"the matrices of {where} do not fit each other")
