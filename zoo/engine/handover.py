"""What a trained trial hands over to be judged: the encoder's weights under stock names with pruned
entries zero, the head's, the masks as packed bits, and the numbers of the layers that stay where
data chose them. Safetensors files in one folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.engine.build import Run
from zoo.engine.export import export
from zoo.parts.depth import TheseLayers
from zoo.records.storage import whole_folder

ENCODER, HEAD, MASKS = "encoder.safetensors", "head.safetensors", "masks.safetensors"
LAYERS = "layers.safetensors"


@dataclass(frozen=True)
class Handover:
    """The encoder's and the head's tensors by name, and masks (out, in) by name of matrix; a trial
    that prunes nothing has none. `layers` are the numbers of those that stay, None where data chose
    none."""

    encoder: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    layers: tuple[int, ...] | None = None


def hand_over(run: Run, folder: Path) -> None:
    """Write the files of a trial that has ended, whole or not at all. Raises StorageError."""
    bits = {
        name: torch.from_numpy(np.packbits((gate != 0).cpu().numpy()))
        for name, gate in run.masked.test_gates().items()
    }
    with whole_folder(folder) as half:
        save_file(_on_cpu(export(run.network.encoder, run.masked)), half / ENCODER)
        save_file(_on_cpu(run.network.head.state_dict()), half / HEAD)
        save_file(bits, half / MASKS)
        if isinstance(run.method.layers, TheseLayers):
            save_file({"kept": torch.tensor(run.method.layers.kept)}, half / LAYERS)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory, which safetensors asks for."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def read_handover(folder: Path) -> Handover:
    """What `hand_over` wrote. Raises OSError, SafetensorError and ValueError."""
    encoder = load_file(folder / ENCODER)
    masks = {}
    for name, bits in load_file(folder / MASKS).items():
        shape = encoder[f"{name}.weight"].shape
        if bits.numel() != (shape.numel() + 7) // 8:
            raise ValueError(f"the mask of {name} has {bits.numel()} bytes")
        flat = np.unpackbits(bits.numpy(), count=shape.numel()).astype(bool)
        masks[name] = torch.from_numpy(flat).view(shape)
    layers = None
    if (folder / LAYERS).exists():
        kept = load_file(folder / LAYERS)["kept"]
        if kept.ndim != 1 or kept.dtype != torch.int64:
            raise ValueError(f"layers that stay are {kept.dtype} of shape {tuple(kept.shape)}")
        layers = tuple(kept.tolist())
    return Handover(encoder, load_file(folder / HEAD), masks, layers)
