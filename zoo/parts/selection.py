"""The k largest of many numbers, exactly and without sorting them.

A sample gives two values between which the k-th largest almost certainly lies. Counting proves it,
and only the numbers between them are partitioned (Floyd and Rivest 1975). If the count disproves
it, a full selection gives the same result. On a GPU kernels select in all matrices at once
(zoo/kernels/ranking.py); torch.topk does it where there are none.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.kernels import selection as at_once
from zoo.parts.threads import in_threads

SAMPLE = 16384
"""Approximate size of the sample that brackets the k-th largest; it varies from a fifth to
twice."""
DEVIATIONS = 4.0
"""Half the width of the bracket, in standard deviations of the rank in the sample."""


def keep(score: Tensor, k: int) -> Tensor:
    """The mask of the k largest scores; ties go to the lowest flat index, NaN is the smallest.

    >>> import torch
    >>> from zoo import keep
    >>> keep(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 2)
    tensor([[False,  True,  True, False]])
    """
    return keep_among([score], k)[0]


def keep_each(scores: Sequence[Tensor], counts: Sequence[int] | Tensor) -> list[Tensor]:
    """The masks of the counts[i] largest of scores[i]; ties go to the lowest flat index. `counts`
    may be a tensor where kernels select (`at_once.fits`).

    >>> import torch
    >>> from zoo import keep_each
    >>> keep_each([torch.arange(3), torch.arange(3)], [1, 2])
    [tensor([False, False,  True]), tensor([False,  True,  True])]
    """
    if at_once.fits(scores):
        return at_once.keep_each(scores, counts)
    assert not isinstance(counts, Tensor)
    if any(score.device.type != "cpu" for score in scores):
        return list(map(keep, scores, counts))
    return in_threads(keep, scores, counts)


def keep_among(
    scores: Sequence[Tensor], k: int, least: Sequence[int] | None = None
) -> list[Tensor]:
    """The masks of the k largest of all scores together; ties go to the first tensor, then to the
    lowest flat index. NaN counts as minus infinity. Of scores[i], least[i] are kept at least.

    >>> import torch
    >>> from zoo import keep_among
    >>> keep_among([torch.tensor([1.0, 4.0]), torch.tensor([3.0, 2.0])], 2)
    [tensor([False,  True]), tensor([ True, False])]
    """
    if at_once.fits(scores):
        return at_once.keep_among(scores, k, least)
    masks = _among(scores, k)
    return masks if least is None else _at_least(masks, scores, least)


def keep_above(scores: Sequence[Tensor], level: float, least: Sequence[int]) -> list[Tensor]:
    """The masks of sigmoid(scores[i]) > level; of scores[i], least[i] are kept at least.

    >>> import torch
    >>> from zoo.parts.selection import keep_above
    >>> keep_above([torch.tensor([-3.0, 0.0, 3.0])], 0.1, [1])
    [tensor([False,  True,  True])]
    """
    if at_once.fits(scores):
        return at_once.keep_above(scores, level, least)
    return _at_least([torch.sigmoid(s.detach()) > level for s in scores], scores, least)


def _at_least(
    masks: Sequence[Tensor], scores: Sequence[Tensor], least: Sequence[int]
) -> list[Tensor]:
    """The masks; where one keeps too few, that many highest scores."""
    counts = torch.stack([mask.count_nonzero() for mask in masks]).tolist()
    kept = zip(masks, scores, counts, least, strict=True)
    return [mask if n >= fewest else keep(score, fewest) for mask, score, n, fewest in kept]


def _among(scores: Sequence[Tensor], k: int) -> list[Tensor]:
    if k >= sum(score.numel() for score in scores):
        return [torch.ones_like(score, dtype=torch.bool) for score in scores]
    if k <= 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    flat = [score.detach().flatten() for score in scores]
    if all(x.device.type == "cpu" and x.dtype.itemsize >= 4 for x in flat):
        found = [torch.from_numpy(mask) for mask in _on_cpu([x.numpy() for x in flat], k)]
    else:
        found = _by_topk(flat, k)
    return [mask.view_as(score) for mask, score in zip(found, scores, strict=True)]


def _by_topk(parts: Sequence[Tensor], k: int) -> list[Tensor]:
    """Selection by torch.topk, without a synchronisation of host and device."""
    flat = torch.cat(list(parts))
    if flat.is_floating_point():
        flat = flat.masked_fill(flat.isnan(), -math.inf)
    lowest = torch.topk(flat, k, sorted=False).values.min()
    mask = flat > lowest
    ties = flat == lowest
    mask |= ties & (ties.cumsum(0) <= k - mask.sum())
    return list(mask.split([len(part) for part in parts]))


def _on_cpu(parts: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
    lowest = kth_largest(parts, k)
    masks = in_threads(lambda part: part >= lowest, parts)
    if sum(map(np.count_nonzero, masks)) == k and lowest > -np.inf:
        return masks
    masks = in_threads(lambda part: part > lowest, parts)
    left = k - sum(map(np.count_nonzero, masks))
    for mask, part in zip(masks, parts, strict=True):
        ties = np.flatnonzero(part == lowest)[:left]
        mask[ties] = True
        left -= len(ties)
    if (left or lowest == -np.inf) and any(np.isnan(part).any() for part in parts):
        return _on_cpu([np.where(np.isnan(part), -np.inf, part) for part in parts], k)
    return masks


def kth_largest(parts: Sequence[np.ndarray], k: int) -> np.floating:
    """The k-th largest number in all parts together; k counts from 1."""
    low, high = bracket(parts, k)
    above = in_threads(lambda part: part > high, parts)
    left = k - sum(map(np.count_nonzero, above))  # how many are to be found at or below high
    if left <= 0:
        return _by_partition(parts, k)
    if low == high:
        enough = sum(np.count_nonzero(part == high) for part in parts) >= left
        return high if enough else _by_partition(parts, k)
    between = in_threads(lambda part, more: part.compress((part >= low) ^ more), parts, above)
    if sum(map(len, between)) < left:
        return _by_partition(parts, k)
    return _by_partition(between, left)


def bracket(parts: Sequence[np.ndarray], k: int) -> tuple[np.floating, np.floating]:
    """Two numbers of the parts between which the k-th largest almost certainly lies."""
    total = sum(map(len, parts))
    step = _stride(total)
    sample = np.concatenate([part[::step] for part in parts])
    share = 1 - k / total
    rank = share * len(sample)
    width = DEVIATIONS * math.sqrt(len(sample) * share * (1 - share)) + 2
    first = max(math.floor(rank - width), 0)
    last = min(math.ceil(rank + width), len(sample) - 1)
    ordered = np.partition(sample, [first, last])
    return ordered[first], ordered[last]


def _stride(total: int) -> int:
    """A stride through `total` numbers that is coprime to usual matrix sizes, so that the sample
    visits every column."""
    step = max(total // SAMPLE, 1)
    while math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    return step


def _by_partition(parts: Sequence[np.ndarray], k: int) -> np.floating:
    every = np.concatenate(parts)
    return np.partition(every, len(every) - k)[len(every) - k]
