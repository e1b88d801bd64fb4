"""What is measured of a run beside its metrics: weights, parameters, digests, time, memory."""

import hashlib
import math
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.layers import Counts
from zoo.engine.masked import MaskedModel
from zoo.engine.memory import release
from zoo.inputs.batches import Encoded
from zoo.inputs.kinds import architecture_of
from zoo.inputs.task import Evaluation, Task
from zoo.parts.heads import Network
from zoo.records.arrays import Answers, Distribution
from zoo.records.packed import EMPTY, pack_classes, pack_counts, pack_sketch, pack_values
from zoo.records.result import (
    Cost,
    Environment,
    Matrix,
    Parameters,
    Remaining,
)

PACKAGES = ("torch", "transformers", "datasets", "evaluate", "ray", "numpy")
"""Packages whose versions are recorded."""


class Watch:
    """Measures the seconds of a trial, those in evaluation and of a step, and its peak memory."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.evaluation = 0.0
        self.step: float | None = None
        self.trained, self.began, self.evaluated = 0.0, self.start, 0.0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        release()
        with suppress(OSError):  # Linux only: reset the peak of earlier trials in this process
            Path("/proc/self/clear_refs").write_text("5", "utf-8")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time inside as evaluation."""
        start = time.monotonic()
        yield
        self.evaluation += time.monotonic() - start

    @contextmanager
    def training(self, steps: int) -> Iterator[None]:
        """Count the time inside, without evaluation, as that of so many steps."""
        self.began, self.evaluated = time.monotonic(), self.evaluation
        yield
        self.step = self._training() / steps if steps else None

    def _training(self) -> float:
        evaluation = self.evaluation - self.evaluated
        return self.trained + time.monotonic() - self.began - evaluation

    def so_far(self) -> dict[str, float]:
        """What `go_on` takes in another process."""
        seconds = time.monotonic() - self.start
        return {"seconds": seconds, "evaluation": self.evaluation, "trained": self._training()}

    def go_on(self, seconds: float, evaluation: float, trained: float) -> None:
        """Add the times of a trial that goes on here."""
        self.start -= seconds
        self.evaluation += evaluation
        self.evaluated += evaluation
        self.trained += trained

    def cost(self, device: torch.device) -> Cost:
        """Time and memory since the start."""
        seconds = time.monotonic() - self.start
        return Cost(seconds, self.evaluation, peak_memory(device), self.step)


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def remaining(masked: MaskedModel) -> Remaining:
    """Remaining weights in all, per matrix, and per attention head of Q, K, V and O."""
    return remaining_of(masked.remaining(), masked.test_gates(), masked.encoder)


def remaining_of(counts: Counts, gates: Mapping[str, Tensor], encoder: Any) -> Remaining:
    """The same from counts and the evaluation gates of an encoder."""
    architecture = architecture_of(encoder)
    heads = architecture.attention_heads(encoder)
    matrices = {}
    for name, kept in counts.kept.items():
        where = architecture.parameter(f"{name}.weight")
        assert where.layer is not None and where.role is not None
        densities = (
            attention_head_densities(gates[name], where.role, heads) if name in gates else ()
        )
        matrices[name] = Matrix(kept, counts.total[name], where.layer, where.role, densities)
    return Remaining(counts.density, counts.encoder_density, matrices)


def attention_head_densities(gate: Tensor, role: str, heads: int) -> tuple[float, ...]:
    """The density of each attention head in one matrix: rows of Q, K, V or all three together,
    columns of O; () for U and D."""
    kept = (gate != 0).float()
    if role in ("Q", "K", "V", "QKV"):
        blocks = kept.view(len(role), heads, -1).transpose(0, 1).flatten(1)
    elif role == "O":
        blocks = kept.T.reshape(heads, -1)
    else:
        return ()
    return tuple(blocks.mean(1).tolist())


def parameters(network: Network, masked: MaskedModel) -> Parameters:
    """Counts of parameters, as zoo/records/result.py describes them."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices = {f"encoder.{name}.weight": name for name in masked.sizes}
    kept = masked.remaining().kept
    every = dict(network.named_parameters())
    new = every if masked.method.dense else trained  # a dense trial has trained them all
    values = sum(kept[matrices[name]] for name in new if name in matrices)
    other = sum(p.numel() for name, p in new.items() if name not in matrices)
    bits = sum(masked.sizes.values()) if masked.layers else 0
    if masked.groups is not None:
        bits = sum(group.units for group in masked.groups.groups.values())
    scores = sum(score.numel() for score in masked.trained_scores)
    return Parameters(
        trainable=0
        if masked.method.untrained
        else sum(p.numel() for p in trained.values()) + scores,
        values=values,
        other=other,
        mask_bits=bits,
        new=values + other + math.ceil(bits / 32),
        artifact_bytes=4 * (values + other) + math.ceil(bits / 8),
    )


def digests(
    gates: Mapping[str, Tensor], scores: Iterable[Tensor], weights: Mapping[str, Tensor]
) -> dict[str, str]:
    """sha256 of the masks (packed bits), of the trained scores and of the exported weights."""
    of_masks, of_scores, of_weights = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for gate in gates.values():
        of_masks.update(np.packbits((gate != 0).cpu().numpy()).tobytes())
    for score in scores:
        of_scores.update(score.detach().cpu().numpy().tobytes())
    for name, tensor in sorted(weights.items()):
        of_weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    found = {"masks": of_masks, "scores": of_scores, "weights": of_weights}
    return {name: digest.hexdigest() for name, digest in found.items()}


SKETCH = 256
"""Values of a mask's sketch. The fraction on which two sketches agree estimates the Jaccard index
of the masks with a standard error of 3 points."""


def sketch(masked: MaskedModel) -> str:
    """One-permutation MinHash of the kept weights (Li et al. 2012), as base64 of SKETCH 32-bit
    values; "" if nothing is masked. Comparable between trials of one model."""
    if not masked.layers:
        return ""
    least = torch.full((SKETCH,), EMPTY, dtype=torch.int64)
    start = 0
    for gate in masked.test_gates().values():
        kept = gate.flatten().nonzero().flatten().cpu() + start
        start += gate.numel()
        hashed = _mixed(kept)
        least.scatter_reduce_(0, hashed & (SKETCH - 1), hashed >> 24 & EMPTY, "amin")
    return pack_sketch(least.numpy())


def _mixed(numbers: Tensor) -> Tensor:
    """splitmix64 of int64 numbers: every bit of the result depends on every bit of the input."""
    z = numbers * -7046029254386353131
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * -4658895280553007687
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return z ^ (z >> 31 & (1 << 33) - 1)


BINS, SCORE_BINS = 64, 32
"""Bins of a distribution: of weights, and of scores."""


def distribution(masked: MaskedModel) -> Distribution | None:
    """How the prunable weights are distributed: all, those that remain, and against their learned
    scores (Sanh et al. 2020, Figure 4); None if nothing is masked or a number is not finite."""
    if not masked.layers:
        return None
    across = _span([layer.weight for layer in masked.layers.values()])
    scores = {}
    if masked.trained_scores:
        scores = masked.groups.over_weights() if masked.groups else masked.scores
    up = _span(list(scores.values())) if scores else (0.0, 0.0)
    if not all(map(math.isfinite, (*across, *up))):
        return None
    whole, kept = torch.zeros(BINS, dtype=torch.int64), torch.zeros(BINS, dtype=torch.int64)
    plane = torch.zeros(BINS * SCORE_BINS, dtype=torch.int64)
    for name, gate in masked.test_gates().items():
        bins = _bin(masked.layers[name].weight, across, BINS)
        whole += torch.bincount(bins, minlength=BINS).cpu()
        kept += torch.bincount(bins[(gate != 0).flatten()], minlength=BINS).cpu()
        if name in scores:
            both = bins * SCORE_BINS + _bin(scores[name], up, SCORE_BINS)
            plane += torch.bincount(both, minlength=BINS * SCORE_BINS).cpu()
    counts = tuple(whole.tolist()), tuple(kept.tolist())
    if not scores:
        return Distribution(across, *counts)
    return Distribution(across, *counts, up, pack_counts(plane.numpy()))


def _span(tensors: Sequence[Tensor]) -> tuple[float, float]:
    """The mean of all numbers minus and plus four standard deviations, or 1 if all are equal."""
    number = sum(t.numel() for t in tensors)
    middle = sum(float(t.detach().double().sum()) for t in tensors) / number
    square = sum(float((t.detach().double() - middle).square().sum()) for t in tensors) / number
    half = 4 * math.sqrt(square)
    if middle - half == middle + half:
        half = 1.0
    return middle - half, middle + half


def _bin(tensor: Tensor, span: Sequence[float], bins: int) -> Tensor:
    """The bin of each entry over the span, flattened."""
    low, high = span
    return ((tensor.detach().flatten() - low) * (bins / (high - low))).clamp_(0, bins - 1).long()


def answers(
    task: Task, found: Mapping[str, Evaluation], data: Mapping[str, Encoded]
) -> dict[str, Answers]:
    """What was answered to each example, by split, where the task says it."""
    packed = {}
    for split, one in found.items():
        if one.answers is None:
            continue
        if task.output.per_token:
            packed[split] = Answers("overlap", pack_values(one.answers))
        elif task.labels:
            packed[split] = Answers("classes", pack_classes(one.answers))
        else:
            truth = pack_values(np.asarray(data[split].labels))
            packed[split] = Answers("values", pack_values(one.answers), truth)
    return packed


def environment(device: torch.device, threads: int) -> Environment:
    """Versions and kind of hardware; no names of machines or users."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    if device.type == "cuda":
        kind = torch.cuda.get_device_name()
    else:  # processors with other instructions give other last digits
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    python = platform.python_version()
    return Environment(versions, f"{device.type} {kind}", threads, python)
