"""Several short examples in one row: nothing is computed for padding.

Each token sees the tokens of its own example alone, at the positions that it has there, so that
outputs are those of the padded batch up to rounding (Krell et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SAVES = 0.2
"""Least share of a batch's places that packing must save; below it a batch stays padded."""


@dataclass(frozen=True)
class Packing:
    """Where the examples of a batch lie in rows that hold several.

    `places` (B, longest) are the flat place of each token in rows (R, width), 0 for padding;
    `owner` (R, width) numbers the examples from 1, 0 where a row is not full; `positions` (R,
    width) count from 0 in each example.
    """

    places: Tensor
    owner: Tensor
    positions: Tensor

    def rows(self, padded: Tensor, fill: int) -> Tensor:
        """A padded tensor (B, longest) in rows, `fill` where they are not full."""
        source = (self.owner - 1).clamp(min=0) * padded.shape[1] + self.positions
        return torch.where(self.owner > 0, padded.flatten()[source], fill)

    def attention(self, dtype: torch.dtype) -> Tensor:
        """What is added to attention scores (R, 1, width, width): 0 within an example, else the
        least number."""
        same = self.owner[:, None, :, None] == self.owner[:, None, None, :]
        zeros = torch.zeros(same.shape, dtype=dtype, device=same.device)
        return zeros.masked_fill_(~same, torch.finfo(dtype).min)

    def padded(self, hidden: Tensor) -> Tensor:
        """Hidden states (R, width, H) of rows as those of a padded batch, (B, longest, H); what
        stands at padding means nothing."""
        return hidden.flatten(0, 1)[self.places]


def pack(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Places, owner and positions of a `Packing` for examples of these lengths, in rows as wide as
    the longest; None if that saves too little. First fit, the longest first."""
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
    places = np.where(inside, starts[:, None] + within, 0)
    owner, positions = (np.zeros(len(left) * width, dtype=np.int64) for _ in range(2))
    owner[places[inside]] = np.broadcast_to(np.arange(1, many + 1)[:, None], inside.shape)[inside]
    positions[places[inside]] = np.broadcast_to(within, inside.shape)[inside]
    return places, owner.reshape(-1, width), positions.reshape(-1, width)
