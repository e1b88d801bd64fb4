"""Some training examples, read before the first step, and which of their positions hold tokens."""

import numpy as np
import torch
from torch import Tensor

from zoo.engine.streams import stream
from zoo.errors import TrialError
from zoo.inputs.batches import Batch, Encoded, collate


def some_rows(of: int, many: int | None, *names: object) -> np.ndarray:
    """The rows of `many` of so many examples, drawn without replacement by the stream of these
    names, in the order of the draw; for None all of them, in their own order."""
    if many is None:
        return np.arange(of)
    return np.random.default_rng(stream(*names)).permutation(of)[:many]


def in_batches(
    data: Encoded, rows: np.ndarray, size: int, pad: int, device: torch.device
) -> list[Batch]:
    """These rows in batches of `size`, one example in each row of tokens."""
    parts = np.split(rows, range(size, len(rows), size))
    return [collate(data, part, pad, device, packs=False) for part in parts]


def at_tokens(states: Tensor, read: Tensor, attention: Tensor, what: str) -> Tensor:
    """The states (tokens, size) at the positions `read`, some of those of `attention`; encoders may
    leave padding out by themselves. Raises TrialError for states of other positions."""
    flat = states.flatten(0, -2)
    if states.shape[:-1] == attention.shape:
        return flat[read.flatten()]
    if len(flat) == int(attention.sum()):
        return flat[read[attention]]
    raise TrialError(
        f"{what} are of shape {tuple(states.shape)}, which is not that of"
        f" {tuple(attention.shape)} tokens: this encoder cannot be calibrated"
    )
