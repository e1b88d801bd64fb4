"""oBERT's masks and weights beside the authors' own code, for tests.certify_one_shot.

Three matrices are pruned together, to one level after another, by the same gradients.
"""

import math
import random
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.authors import as_precise_as, pieces, torch_of
from tests.certify_one_shot import SEED, SHAPES, Match
from zoo import GradientCalibration, Method
from zoo.registry import methods

PRUNING = Path("src", "sparseml", "pytorch", "sparsification", "pruning")
LEVELS = ((0.5,), (0.1,), (0.5, 0.1))
GRADIENTS = 64


class Ours:
    """The registered method's matrices, masks and curvature."""

    def __init__(self, weights: Mapping[str, Tensor], level: float):
        self.method: Method = methods["obert_one_shot"].make(level, gradients=GRADIENTS)
        assert isinstance(self.method.calibration, GradientCalibration)
        self.curvature = self.method.calibration.curvature
        self.weights = dict(weights)
        self.masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}

    def prune(self, gradients: Sequence[Mapping[str, Tensor]], level: float) -> None:
        """Take in gradients and prune to a level, as a calibration does."""
        scores, curvature = {}, self.curvature
        held = {n: curvature.start(w) for n, w in self.weights.items()}
        for gradient in gradients:
            for n, g in gradient.items():
                curvature.add(held[n], g * self.masks[n])
        for n, w in self.weights.items():
            scores[n] = curvature.scores(w, held[n]).masked_fill(~self.masks[n], -math.inf)
        kept = self.method.mask(scores, level)
        for n, w in self.weights.items():
            new = curvature.update(w, held[n], self.masks[n] & ~kept[n])
            self.weights[n] = new.masked_fill(~kept[n], 0.0)
        self.masks = kept


class Theirs:
    """The authors' scorer and mask creator, as their modifier calls them."""

    def __init__(self, folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype):
        given = {**vars(typing), "ABC": ABC, "abstractmethod": abstractmethod, "math": math}
        given |= {"torch": torch_of(dtype), "Tensor": Tensor, "Parameter": nn.Parameter}
        given |= {"dist": torch.distributed, "timedelta": timedelta, "random": random}
        given |= {"MEMORY_BOUNDED": "", "os": SimpleNamespace(environ={})}
        helpers = folder / "src" / "sparseml" / "pytorch" / "utils" / "helpers.py"
        for file, names in (
            (folder / PRUNING / "scorer.py", ("PruningParamsScorer", "PruningParamsGradScorer")),
            (
                folder / PRUNING / "modifier_pruning_obs.py",
                ("EmpiricalBlockFisherInverse", "OBSPruningParamsScorer"),
            ),
            (helpers, ("memory_aware_threshold",)),
            (
                folder / PRUNING / "mask_creator.py",
                ("PruningMaskCreator", "UnstructuredPruningMaskCreator"),
            ),
        ):
            given |= pieces(file, names, given)
        self.parameters = [nn.Parameter(w.clone(), requires_grad=False) for w in weights.values()]
        self.creator: Any = given["UnstructuredPruningMaskCreator"]()
        self.scorer: Any = given["OBSPruningParamsScorer"](
            self.parameters, GRADIENTS, 1e-7, 50, "unstructured"
        )
        self.scorer._enabled_grad_buffering = True
        self.masks = [torch.ones_like(p) for p in self.parameters]

    def prune(self, gradients: Sequence[Mapping[str, Tensor]], level: float) -> None:
        """The same by theirs."""
        for gradient in gradients:
            for parameter, g in zip(self.parameters, gradient.values(), strict=True):
                parameter.grad = g.clone()
            self.scorer.pre_optim_step_update(self.masks)
        scores = self.scorer.score_parameters()
        found = self.creator.create_sparsity_masks(scores, 1 - level, global_sparsity=True)
        changed = [new - old for old, new in zip(self.masks, found, strict=True)]
        self.scorer.mask_update(found, changed)
        self.masks = found


def compare_obert(folder: Path, levels: Sequence[float], dtype: torch.dtype) -> Match:
    """Prune three matrices by both to each level, with fresh gradients for each."""
    generator = torch.Generator().manual_seed(SEED)

    def drawn() -> dict[str, Tensor]:
        return {
            str(shape): torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in SHAPES
        }

    weights, equal, entries = drawn(), 0, 0
    ours = Ours(weights, levels[-1])
    with as_precise_as(dtype):
        theirs = Theirs(folder, weights, dtype)
    for level in levels:
        gradients = [{n: g * 1e-3 for n, g in drawn().items()} for _ in range(GRADIENTS)]
        ours.prune(gradients, level)
        with as_precise_as(dtype):
            theirs.prune(gradients, level)
        for mask, other in zip(ours.masks.values(), theirs.masks, strict=True):
            equal, entries = equal + int((mask == (other != 0)).sum()), entries + mask.numel()
    pairs = zip(ours.weights.values(), theirs.parameters, strict=True)
    furthest = max(float((w - p).abs().max()) for w, p in pairs)
    name = "oBERT to " + ", then ".join(f"{100 * level:g} %" for level in levels)
    return Match(name, str(dtype).removeprefix("torch."), equal / entries, furthest, True)
