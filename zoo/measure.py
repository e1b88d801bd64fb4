"""What a run is measured by beside its metrics: parameters, digests, time, memory, versions."""

import base64
import hashlib
import math
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.heads import Network
from zoo.masked import MaskedModel, export
from zoo.memory import hand_back

PACKAGES = ("torch", "transformers", "datasets", "evaluate", "ray", "numpy")


class Watch:
    """Seconds of a trial, the part of them in evaluation, and peak memory since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.evaluation = 0.0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        hand_back()
        with suppress(OSError):  # Linux only: forget the peak of earlier trials in this process
            Path("/proc/self/clear_refs").write_text("5")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time inside as evaluation."""
        start = time.monotonic()
        yield
        self.evaluation += time.monotonic() - start

    def cost(self, device: torch.device) -> dict[str, Any]:
        """Seconds in all and in evaluation; peak bytes on the GPU, or of this process on a CPU."""
        seconds = time.monotonic() - self.start
        peak = peak_memory(device)
        return {"seconds": seconds, "evaluation_seconds": self.evaluation, "peak_bytes": peak}


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: allocated on the GPU, or resident of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parameters(network: Network, masked: MaskedModel) -> dict[str, int]:
    """Counts of parameters.

    `trainable`: all that the optimiser updates, scores included. `values`: remaining weights of
    matrices that were trained; `other`: all else that was trained (biases, LayerNorm, embeddings,
    head); `mask_bits`: one per prunable weight where there is a mask; `new`: what the task adds
    to the shared pre-trained model, values + other + mask_bits / 32. `artifact_bytes`: the same in
    bytes, float32 values and packed bits.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices = {f"encoder.{name}.weight": name for name in masked.sizes}
    kept = masked.remaining().kept
    values = sum(kept[matrices[name]] for name in trained if name in matrices)
    other = sum(p.numel() for name, p in trained.items() if name not in matrices)
    bits = sum(masked.sizes.values()) if masked.layers else 0
    scores = sum(score.numel() for score in masked.trained_scores)
    return {
        "trainable": sum(p.numel() for p in trained.values()) + scores,
        "values": values,
        "other": other,
        "mask_bits": bits,
        "new": values + other + math.ceil(bits / 32),
        "artifact_bytes": 4 * (values + other) + math.ceil(bits / 8),
    }


def digests(network: Network, masked: MaskedModel) -> dict[str, str]:
    """sha256 of the masks (packed bits), of the trained scores and of the exported weights."""
    masks, scores, weights = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for gate in masked.test_gates().values():
        masks.update(np.packbits((gate != 0).cpu().numpy()).tobytes())
    for score in masked.trained_scores:
        scores.update(score.detach().cpu().numpy().tobytes())
    for name, tensor in sorted(export(network.encoder, masked).items()):
        weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    found = {"masks": masks, "scores": scores, "weights": weights}
    return {name: digest.hexdigest() for name, digest in found.items()}


SKETCH = 256
"""Values of a mask's sketch: two sketches agree on a share of them that is the masks' Jaccard index
up to a standard error of 3 points."""


def sketch(masked: MaskedModel) -> str:
    """One-permutation MinHash of which weights are kept (Li et al. 2012), as base64 of `SKETCH`
    32-bit values; "" if nothing is masked. Comparable between trials of one model."""
    if not masked.layers:
        return ""
    least = torch.full((SKETCH,), 2**32 - 1, dtype=torch.int64)
    start = 0
    for gate in masked.test_gates().values():
        kept = gate.flatten().nonzero().flatten().cpu() + start
        start += gate.numel()
        hashed = _mixed(kept)
        least.scatter_reduce_(0, hashed & (SKETCH - 1), hashed >> 24 & 0xFFFFFFFF, "amin")
    return base64.b64encode(least.numpy().astype("<u4").tobytes()).decode()


def _mixed(numbers: Tensor) -> Tensor:
    """splitmix64 of int64 numbers: every bit of the result depends on every bit of the number."""
    z = numbers * -7046029254386353131
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * -4658895280553007687
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return z ^ (z >> 31 & (1 << 33) - 1)


BINS, SCORE_BINS = 64, 32
"""Bins of a distribution: of weights, and of scores beside them."""


def distribution(masked: MaskedModel) -> dict[str, Any]:
    """How the prunable weights are distributed: all of them, those that remain, and against their
    learned scores (Sanh 2020, Figure 4); {} if nothing is masked or a number is not finite.

    `all` and `kept` are counts in `BINS` equal bins over `range`, four standard deviations about
    the mean, what lies outside in the outer ones; `scores` the same plane with `SCORE_BINS` bins of
    S over `score_range`, as base64 of bytes round(8 log2(1 + count)), rows of one W.
    """
    if not masked.layers:
        return {}
    across = _span([layer.weight for layer in masked.layers.values()])
    learned = bool(masked.trained_scores)
    scores = masked.scores if learned else {}
    up = _span(list(scores.values())) if learned else [0.0, 0.0]
    if not all(map(math.isfinite, (*across, *up))):
        return {}
    whole, kept = torch.zeros(BINS, dtype=torch.int64), torch.zeros(BINS, dtype=torch.int64)
    plane = torch.zeros(BINS * SCORE_BINS, dtype=torch.int64)
    for name, gate in masked.test_gates().items():
        places = _bin(masked.layers[name].weight, across, BINS)
        whole += torch.bincount(places, minlength=BINS).cpu()
        kept += torch.bincount(places[(gate != 0).flatten()], minlength=BINS).cpu()
        if learned:
            both = places * SCORE_BINS + _bin(scores[name], up, SCORE_BINS)
            plane += torch.bincount(both, minlength=BINS * SCORE_BINS).cpu()
    found: dict[str, Any] = {"range": across, "all": whole.tolist(), "kept": kept.tolist()}
    if learned:
        heights = np.round(8 * np.log2(1 + plane.numpy())).astype(np.uint8)
        found |= {"score_range": up, "scores": base64.b64encode(heights.tobytes()).decode()}
    return found


def _span(tensors: Sequence[Tensor]) -> list[float]:
    """Four standard deviations about the mean of all numbers; one about it where all are equal."""
    number = sum(t.numel() for t in tensors)
    middle = sum(float(t.detach().double().sum()) for t in tensors) / number
    square = sum(float((t.detach().double() - middle).square().sum()) for t in tensors) / number
    half = 4 * math.sqrt(square)
    if middle - half == middle + half:
        half = 1.0
    return [middle - half, middle + half]


def _bin(tensor: Tensor, span: Sequence[float], bins: int) -> Tensor:
    """The bin of each entry over the span, flat."""
    low, high = span
    return ((tensor.detach().flatten() - low) * (bins / (high - low))).clamp_(0, bins - 1).long()


def pack_bits(bits: np.ndarray) -> str:
    """Booleans as '<number>:<base64 of packed bits>', the first in the highest bit."""
    return f"{len(bits)}:" + base64.b64encode(np.packbits(bits).tobytes()).decode()


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions and hardware kind; no names of machines, users or folders."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    kind = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    python = platform.python_version()
    return {
        "python": python,
        "packages": versions,
        "device": f"{device.type} {kind}",
        "threads": threads,
    }
