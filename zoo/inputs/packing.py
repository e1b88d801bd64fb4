"""Packing: several short examples share a row, so that little is computed for padding.

Each token attends only to the tokens of its example and keeps its position in that example. The
outputs equal those of the padded batch up to rounding (Krell et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SAVES = 0.2
"""Smallest fraction of a batch's tokens that packing must save; below it the batch stays padded."""


@dataclass(frozen=True)
class Packing:
    """Where the examples of a batch are in rows that hold several of them.

    `indices` (B, longest): the flat index of each token in the rows (R, width), 0 for padding.
    `owner` (R, width): the example of each token, counted from 1, 0 where a row is not full.
    `positions` (R, width): positions, counted from 0 in each example.
    """

    indices: Tensor
    owner: Tensor
    positions: Tensor

    def rows(self, padded: Tensor, fill: int) -> Tensor:
        """A padded tensor (B, longest) as rows (R, width), `fill` where they are not full."""
        source = (self.owner - 1).clamp(min=0) * padded.shape[1] + self.positions
        return torch.where(self.owner > 0, padded.flatten()[source], fill)

    def attention(self, dtype: torch.dtype) -> Tensor:
        """The term added to attention logits (R, 1, width, width): 0 within an example, the
        smallest number of the dtype elsewhere."""
        same = self.owner[:, None, :, None] == self.owner[:, None, None, :]
        zeros = torch.zeros(same.shape, dtype=dtype, device=same.device)
        return zeros.masked_fill_(~same, torch.finfo(dtype).min)

    def padded(self, hidden: Tensor) -> Tensor:
        """Hidden states (R, width, H) in the layout of the padded batch (B, longest, H); values at
        padding are arbitrary."""
        return hidden.flatten(0, 1)[self.indices]


def pack(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Indices, owner and positions of a `Packing` for examples of these lengths, in rows as wide as
    the longest; None if that saves too little. First fit, longest first."""
    width, many = int(lengths.max()), len(lengths)
    left: list[int] = []
    starts = np.zeros(many, dtype=np.int64)
    for example in np.argsort(-lengths, kind="stable"):
        length = int(lengths[example])
        row = next((row for row, room in enumerate(left) if room >= length), len(left))
        if row == len(left):
            left.append(width)
        starts[example] = (row + 1) * width - left[row]
        left[row] -= length
    if len(left) > (1 - SAVES) * many:
        return None
    within = np.arange(width)[None, :]
    inside = within < lengths[:, None]
    indices = np.where(inside, starts[:, None] + within, 0)
    owner, positions = (np.zeros(len(left) * width, dtype=np.int64) for _ in range(2))
    owner[indices[inside]] = np.broadcast_to(np.arange(1, many + 1)[:, None], inside.shape)[inside]
    positions[indices[inside]] = np.broadcast_to(within, inside.shape)[inside]
    return indices, owner.reshape(-1, width), positions.reshape(-1, width)
