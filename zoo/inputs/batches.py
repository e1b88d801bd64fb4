"""Tokenised examples and the batches made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.inputs.packing import Packing, pack


@dataclass(frozen=True)
class Encoded:
    """A tokenised split of n examples; arrays may be memory-mapped.

    `tokens` and `types` (sum of lengths,) hold all examples one after another, `bounds` (n + 1,)
    says where each begins; `labels` (n,), or (n, 2) for spans. `arrays` and `texts` (a value that
    fits JSON) are whatever else the task's `evaluate` reads.

    >>> import numpy as np
    >>> from zoo import Encoded
    >>> tokens, labels = np.array([101, 7, 102, 101, 8, 9, 102]), np.array([0, 1])
    >>> data = Encoded(tokens, np.zeros(7), bounds=np.array([0, 3, 7]), labels=labels)
    >>> len(data), data.lengths.tolist()
    (2, [3, 4])
    """

    tokens: np.ndarray
    types: np.ndarray
    bounds: np.ndarray
    labels: np.ndarray
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Any = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, (n,)."""
        return np.diff(self.bounds)

    def flat_indices(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where the tokens of the examples `rows` are in the flat arrays, example by example."""
        starts, ends = self.bounds[rows], self.bounds[np.asarray(rows) + 1]
        return np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])


@dataclass(frozen=True)
class Batch:
    """Padded examples on the device: `rows` (B,), tokens, types and attention (B, longest), labels;
    and how they are packed, None where packing saves too little. `host_rows` and `inside` are rows
    and attention in the host's memory, which need not be fetched."""

    rows: Tensor
    tokens: Tensor
    types: Tensor
    attention: Tensor
    labels: Tensor
    packing: Packing | None = None
    host_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    inside: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), bool))

    def term(self, dtype: torch.dtype) -> Tensor | None:
        """The term added to attention logits (B, 1, longest, longest), None where nothing is
        hidden. Stock encoders given `attention` ask the device whether it hides anything, and the
        host waits for the answer; here the host knows."""
        if self.inside.all():
            return None
        hidden = ~self.attention[:, None, None, :].expand(-1, 1, self.tokens.shape[1], -1)
        zeros = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return zeros.masked_fill_(hidden, torch.finfo(dtype).min)


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device; the host does not wait for a copy to a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":  # only from pinned memory
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def collate(
    data: Encoded,
    rows: Sequence[int] | np.ndarray,
    pad: int,
    device: torch.device,
    *,
    packs: bool = True,
) -> Batch:
    """The examples `rows`, padded with the token `pad` to the longest of them, and packed if the
    model `packs`."""
    lengths = data.bounds[np.asarray(rows) + 1] - data.bounds[rows]
    longest = int(lengths.max())
    inside = np.arange(longest)[None, :] < lengths[:, None]
    indices = data.flat_indices(rows)
    tokens = np.full((len(rows), longest), pad, dtype=np.int64)
    types = np.zeros((len(rows), longest), dtype=np.int64)
    tokens[inside] = data.tokens[indices]
    types[inside] = data.types[indices]

    odd = (tokens[inside] == pad).any()  # a text that names it: where it is, positions do not count
    packed = pack(lengths) if packs and not odd else None
    host_rows = np.asarray(rows, dtype=np.int64)
    return Batch(
        sent(host_rows, device),
        sent(tokens, device),
        sent(types, device),
        sent(inside, device),
        sent(data.labels[rows], device),
        None if packed is None else Packing(*(sent(array, device) for array in packed)),
        host_rows,
        inside,
    )


def random_batches(examples: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, without end; every epoch is in a new random order, and its last
    batch may be smaller."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(examples)
        yield from (order[i : i + batch] for i in range(0, examples, batch))


def first_read(examples: int, many: int, seed: int) -> np.ndarray:
    """The rows of the first `many` examples that `random_batches` yields in its first epoch, for
    batches of any size."""
    return np.random.default_rng(seed).permutation(examples)[:many]


def by_length(data: Encoded, batch: int, only: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, all or `only` some, in the order of their lengths, which needs
    little padding."""
    rows = np.arange(len(data)) if only is None else only
    order = rows[np.argsort(data.lengths[rows], kind="stable")]
    yield from (order[i : i + batch] for i in range(0, len(order), batch))
