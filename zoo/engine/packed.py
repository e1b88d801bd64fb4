"""A trained model as what differs from its base model: the mask, and the values that changed.

A folder holds `packed.json`, `mask.zmsk` (zoo/records/mask_file.py) where there is a mask, and
`values.safetensors`: of a prunable matrix the remaining entries row by row, any other tensor
whole; nothing for a tensor that is the base model's, times the mask. A method that trains no weight
needs the mask alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.engine.compact_files import config_of, config_to_write
from zoo.engine.export import distinct
from zoo.engine.save import MASK_FILE
from zoo.engine.stock import LANGUAGE, LOADERS
from zoo.errors import ConfigError, one_line
from zoo.inputs.checkpoint import Checkpoint, load_encoder, load_masked_lm, quiet
from zoo.inputs.kinds import encoder_prefix, prunable
from zoo.records.mask_file import decode, encode
from zoo.records.storage import sha256_of

VERSION = 1
ABOUT, VALUES = "packed.json", "values.safetensors"
"""The files of a packed model, beside its mask."""


def pack(
    model: Any, loader: str, checkpoint: Checkpoint, folder: Path, *, half: bool = False
) -> dict[str, np.ndarray]:
    """Write into a folder what makes a stock model from its base checkpoint; with `half` the values
    in float16, which is not exact. Entries that are 0 count as pruned. Returns the masks by name,
    {} where nothing is pruned."""
    base, matrices = base_state(checkpoint, loader, model), matrices_of(model)
    state = distinct(model.state_dict())
    masks = {name: state[name] != 0 for name in matrices}
    if all(bool(mask.all()) for mask in masks.values()):
        masks = {}
    values: dict[str, Tensor] = {}
    for name, tensor in state.items():
        before = base.get(name)
        if name in masks:
            tensor = tensor[masks[name]]
            before = None if before is None else before[masks[name]]
        if before is None or not torch.equal(tensor, before):
            values[name] = (tensor.half() if half else tensor).contiguous()
    grids = {name: mask.numpy() for name, mask in masks.items()}
    if masks:
        (folder / MASK_FILE).write_bytes(encode(grids, checkpoint.sha))
    if values:
        save_file(values, folder / VALUES)
    about = {
        "version": VERSION,
        "base_model": checkpoint.name,
        "base_sha256": checkpoint.sha,
        "loader": loader,
        "config": config_to_write(model),
        "exact": not half,
        "matrices": list(masks),
        "values_sha256": sha256_of(folder / VALUES) if values else "",
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    return grids


def unpack(folder: Path, checkpoint: Checkpoint) -> Any:
    """The stock model that was packed in a folder, made from its base checkpoint, in evaluation
    mode. Raises ConfigError for another base checkpoint and for damaged files."""
    import transformers

    quiet()
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["version"] != VERSION or about["loader"] not in LOADERS:
            raise ValueError("it is of a version or class that this program does not know")
        if about["base_sha256"] != checkpoint.sha:
            raise ValueError(
                f"it was packed for {about['base_model']!r:.80}, sha256 {about['base_sha256']:.12},"
                f" and {checkpoint.name} has {checkpoint.sha:.12}"
            )
        values = {}
        if about["values_sha256"]:
            if sha256_of(folder / VALUES) != about["values_sha256"]:
                raise ValueError(f"{VALUES} is damaged: its sha256 is wrong")
            values = load_file(folder / VALUES)
        config = config_of(about["config"])
        _check_sizes(config, checkpoint)
        model = getattr(transformers, about["loader"]).from_config(config, dtype=torch.float32)
        state = model.state_dict()
        shapes = {name: tuple(state[name].shape) for name in about["matrices"]}
        masks: dict[str, Any] = {}
        if shapes:
            masks, base = decode((folder / MASK_FILE).read_bytes(), shapes)
            if base != checkpoint.sha:
                raise ValueError(f"{MASK_FILE} is that of another base model")
        _fill(model, base_state(checkpoint, about["loader"], model), masks, values)
    except Exception as error:  # transformers raises anything for an odd configuration
        raise ConfigError(f"{folder}: cannot be unpacked: {one_line(error, 250)}") from None
    return model.eval()


def _check_sizes(config: Any, checkpoint: Checkpoint) -> None:
    """Raise ValueError unless a model has the sizes of its base, but perhaps fewer layers: a
    damaged configuration could ask for gigabytes."""
    import transformers

    base = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    layers = checkpoint.architecture.sizes.layers
    for name, value in base.to_dict().items():
        own = getattr(config, name, -1)
        same = own == value or (name == layers and 0 < own <= value)
        if type(value) is int and not same and name != "num_labels":
            raise ValueError(f"its {name} is {own!r:.40}, that of its base {value}")


@torch.no_grad()
def _fill(
    model: Any, base: Mapping[str, Tensor], masks: Mapping[str, Any], values: Mapping[str, Tensor]
) -> None:
    """Set every tensor of a model: the base's where nothing changed, the values elsewhere."""
    unread = set(values)
    for name, tensor in distinct(model.state_dict()).items():
        if name in masks:
            mask = torch.from_numpy(masks[name])
            kept = values[name] if name in values else base[name][mask]
            if kept.shape != (int(mask.sum()),):
                raise ValueError(f"{name} has {tuple(kept.shape)} values for {int(mask.sum())}")
            tensor.zero_()[mask] = kept.to(tensor.dtype)
        elif name in values:
            if values[name].shape != tensor.shape:
                raise ValueError(f"{name} has another shape than the model's")
            tensor.copy_(values[name])
        elif name in base:
            tensor.copy_(base[name])
        else:
            raise ValueError(f"{name} is neither in the base model nor among the values")
        unread.discard(name)
    if unread:
        raise ValueError(f"{min(unread)} is no tensor of the model")


def base_state(checkpoint: Checkpoint, loader: str, model: Any) -> dict[str, Tensor]:
    """The tensors of a base checkpoint under the names that they have in a stock model."""
    if loader == LANGUAGE:
        found = load_masked_lm(checkpoint).state_dict()
    else:
        prefix = encoder_prefix(model)
        encoder, lacking = load_encoder(checkpoint, pooler=True)
        own = encoder.state_dict()
        found = {f"{prefix}{name}": own[name] for name in own if name not in lacking}
    return {
        name: found[name]
        for name, tensor in model.state_dict().items()
        if name in found and found[name].shape == tensor.shape
    }


def matrices_of(model: Any) -> list[str]:
    """Names of the weights of a stock model's prunable matrices, in order."""
    return [f"{encoder_prefix(model)}{name}.weight" for name in prunable(model.base_model)]
