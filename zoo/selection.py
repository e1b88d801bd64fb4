"""The k largest of many numbers, exactly and without sorting them.

A sample gives two values that the k-th largest almost certainly lies between; counting proves it,
and only what lies between them is partitioned (Floyd and Rivest 1975). Where the count disproves
it, and on other devices than the CPU, a full selection finds the same.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")

SAMPLE = 16384
"""Numbers looked at to find the bracket, about: from a fifth of it to twice as many."""
DEVIATIONS = 4.0
"""Half the bracket's width, in standard deviations of the sample's rank."""


def keep(score: Tensor, k: int) -> Tensor:
    """The mask of the k largest scores; ties go to the lowest flat index."""
    return keep_among([score], k)[0]


def keep_each(scores: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """The masks of the k largest of each tensor, k its own; ties go to the lowest flat index."""
    if any(score.device.type != "cpu" for score in scores):
        return list(map(keep, scores, counts))
    return _at_once(keep, scores, counts)


def keep_among(scores: Sequence[Tensor], k: int) -> list[Tensor]:
    """The masks of the k largest of all scores; ties go to the first tensor, then to the lowest
    flat index. NaN counts as minus infinity."""
    if k >= sum(score.numel() for score in scores):
        return [torch.ones_like(score, dtype=torch.bool) for score in scores]
    if k <= 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    flat = [score.detach().flatten() for score in scores]
    if all(one.device.type == "cpu" and one.dtype.itemsize >= 4 for one in flat):
        found = [torch.from_numpy(mask) for mask in _on_cpu([one.numpy() for one in flat], k)]
    else:
        found = _by_topk(flat, k)
    return [mask.view_as(score) for mask, score in zip(found, scores, strict=True)]


def _at_once(function: Callable[..., T], first: Sequence[Any], *more: Sequence[Any]) -> list[T]:
    """The function of each item, by as many threads as torch has: numpy lets go of Python's lock
    while it computes. One item alone stays in this thread, which may be one of the pool."""
    threads = torch.get_num_threads() if len(first) > 1 else 1
    return list((_pool(threads).map if threads > 1 else map)(function, first, *more))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _by_topk(parts: Sequence[Tensor], k: int) -> list[Tensor]:
    """Without a synchronisation of the host."""
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
    masks = _at_once(lambda part: part >= lowest, parts)
    if sum(map(np.count_nonzero, masks)) == k and lowest > -np.inf:
        return masks
    masks = _at_once(lambda part: part > lowest, parts)
    left = k - sum(map(np.count_nonzero, masks))
    for mask, part in zip(masks, parts, strict=True):
        ties = np.flatnonzero(part == lowest)[:left]
        mask[ties] = True
        left -= len(ties)
    if (left or lowest == -np.inf) and any(np.isnan(part).any() for part in parts):
        return _on_cpu([np.where(np.isnan(part), -np.inf, part) for part in parts], k)
    return masks


def kth_largest(parts: Sequence[np.ndarray], k: int) -> np.floating:
    """The k-th largest of the numbers in all parts, 1 <= k <= how many there are."""
    low, high = bracket(parts, k)
    above = _at_once(lambda part: part > high, parts)
    left = k - sum(map(np.count_nonzero, above))  # how many are wanted from high downwards
    if left <= 0:
        return _by_partition(parts, k)
    if low == high:
        enough = sum(np.count_nonzero(part == high) for part in parts) >= left
        return high if enough else _by_partition(parts, k)
    between = _at_once(lambda part, more: part.compress((part >= low) ^ more), parts, above)
    if sum(map(len, between)) < left:
        return _by_partition(parts, k)
    return _by_partition(between, left)


def bracket(parts: Sequence[np.ndarray], k: int) -> tuple[np.floating, np.floating]:
    """Two numbers of the parts that the k-th largest almost certainly lies between."""
    total = sum(map(len, parts))
    step = _stride(total)
    sample = np.concatenate([part[::step] for part in parts])
    share = 1 - k / total
    place = share * len(sample)
    width = DEVIATIONS * math.sqrt(len(sample) * share * (1 - share)) + 2
    first = max(math.floor(place - width), 0)
    last = min(math.ceil(place + width), len(sample) - 1)
    ordered = np.partition(sample, [first, last])
    return ordered[first], ordered[last]


def _stride(total: int) -> int:
    """A step through `total` numbers that shares no factor with the sizes of usual matrices, so
    that every column is looked at."""
    step = max(total // SAMPLE, 1)
    while math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    return step


def _by_partition(parts: Sequence[np.ndarray], k: int) -> np.floating:
    every = np.concatenate(parts)
    return np.partition(every, len(every) - k)[len(every) - k]
