"""A training step the way the authors of SMP wrote theirs, for `python -m zoo.tools.bench`.

Every forward pass sorts every score matrix and multiplies by a float mask; autograd carries the
gradients of scores and penalty; the teacher runs at every step and is itself a masked model. The
result is the same as the engine's. Only methods that keep the highest learned scores of each matrix
and train nothing else can be run this way (`fits`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.engine.build import Run
from zoo.engine.layers import MaskedLinear
from zoo.engine.streams import stream
from zoo.inputs.batches import collate, random_batches
from zoo.inputs.task import divergence
from zoo.parts.gates import straight_through
from zoo.parts.masks import topk_local
from zoo.parts.method import Method, nothing
from zoo.parts.penalties import mean_sigmoid
from zoo.parts.schedules import rate
from zoo.parts.scores import learned


def fits(method: Method) -> bool:
    """Whether a method's step can be taken this way."""
    kind = (method.score, method.mask, method.gate, method.trains)
    regularised = method.penalty is not None and method.penalty.value is mean_sigmoid
    alone = kind == (learned, topk_local, straight_through, nothing) and regularised
    return alone and method.head.name != "trained" and method.units is None


class SortedTopK(torch.autograd.Function):
    """1 at the k largest scores by a full sort; its gradient goes to the scores as it is."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, density: float) -> Tensor:
        order = score.flatten().sort(descending=True, stable=True).indices
        mask = torch.zeros_like(score).flatten()
        mask[order[: int(density * score.numel())]] = 1.0
        return mask.view_as(score)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class SortingLinear(nn.Module):
    """A linear layer that makes its mask in every forward; `density` is set before it."""

    density = 1.0

    def __init__(self, weight: Tensor, bias: Tensor, score: Tensor):
        super().__init__()
        self.weight, self.bias = weight, bias
        self.score = nn.Parameter(score.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, SortedTopK.apply(self.score, self.density) * self.weight, self.bias)


class AsWritten:
    """A run that takes its steps this way; `teacher` is a second one, which runs at every step."""

    def __init__(self, run: Run, teacher: "AsWritten | None" = None):
        self.run, self.teacher, self.taken = run, teacher, 0
        self.layers: dict[str, SortingLinear] = {}
        for name, layer in run.masked.layers.items():
            assert isinstance(layer, MaskedLinear)
            self.layers[name] = SortingLinear(layer.weight, layer.bias, layer.score)
            parent, _, child = name.rpartition(".")
            setattr(run.network.encoder.get_submodule(parent), child, self.layers[name])
        self.parameters = [layer.score for layer in self.layers.values()]
        trial = run.trial
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=trial.train.lr_scores,
            betas=(trial.train.betas[0], trial.train.betas[1]),
            eps=trial.train.epsilon,
            weight_decay=trial.train.weight_decay,
            foreach=False,
        )
        order = stream(trial.task, trial.seed, "order")
        self.rows = random_batches(len(run.data.train), trial.train.batch, order)
        run.network.train()

    def step(self) -> None:
        """One optimiser step."""
        run, trial = self.run, self.run.trial
        level, penalty = run.method.level(self.taken, run.steps), run.method.penalty
        for layer in self.layers.values():
            layer.density = 1.0 if level is None else level
        torch.manual_seed(stream(trial.task, trial.seed, "dropout", self.taken))
        batch = collate(run.data.train, next(self.rows), run.network.pad, run.device)
        logits, _ = run.network(batch)
        loss = run.task.output.loss(logits, batch.labels)
        if self.teacher is not None:
            with torch.no_grad():
                other, _ = self.teacher.run.network(batch)
            loss = 0.5 * loss + 0.5 * divergence(logits, other, 2.0)
        assert penalty is not None
        means = [
            torch.sigmoid(layer.score).norm(p=1) / layer.score.numel()
            for layer in self.layers.values()
        ]
        loss = loss + (penalty.weight(self.taken, run.steps) or 0.0) * sum(means) / len(means)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, trial.train.clip)
        factor = rate(self.taken, run.steps, trial.train.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = trial.train.lr_scores * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.taken += 1
