"""A run between two steps, and the step itself. No method's name appears here."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor

from zoo.engine.build import Run
from zoo.engine.calibrate import prepare
from zoo.engine.frozen import Frozen, teacher_logits
from zoo.engine.layers import skipping
from zoo.engine.streams import stream
from zoo.engine.sweeps import Update
from zoo.errors import Diverged, TrialError
from zoo.inputs.batches import collate, random_batches
from zoo.parts.losses import Step
from zoo.parts.optimisers import Group
from zoo.parts.scores import Moment

LOOK_EVERY = 50
"""Steps on a GPU between two readings of the losses, each of which waits for it. On a CPU it is
1."""


class Trainer:
    """A run between two steps: its optimiser, the order of its examples, the number of steps
    taken. Raises TrialError where `make_optimizer` does."""

    def __init__(self, run: Run, frozen: Frozen):
        trial = run.trial
        self.run, self.frozen = run, frozen
        self.optimizer, self.parameters = make_optimizer(run)
        order = stream(trial.task, trial.seed, "order")
        self.rows = random_batches(len(run.data.train), trial.train.batch, order)
        draws = torch.device("cpu") if run.device.type == "meta" else run.device
        self.draws = torch.Generator(draws).manual_seed(stream(trial.task, trial.seed, "losses"))
        self.taken, self.loss = 0, math.nan
        self.unread: list[Tensor] = []
        self.look_every = 1 if run.device.type == "cpu" else LOOK_EVERY
        if run.precision != torch.float32 and trial.train.accumulation == 1:
            run.masked.work_in(run.precision)  # a G that several passes add up needs all its digits
        self._make_update()
        self.start = self._weights_to_return()
        prepare(run, 0)
        if frozen.start:
            self._rewind()
        run.network.train()

    def _weights_to_return(self) -> dict[Tensor, Tensor]:
        """Parameters that return to a state before, and that state."""
        network = self.run.network
        if self.frozen.start:
            return {p: self.frozen.start[name] for name, p in network.named_parameters()}
        own = network.encoder.parameters() if self.run.method.rewinds else ()
        return {parameter: parameter.detach().clone() for parameter in own}

    def _make_update(self) -> None:
        """Take sweeps over all matrices for `backward`, clipping and AdamW, where possible."""
        method, masked, optimizer = self.run.method, self.run.masked, self.optimizer
        layers = list(masked.layers.values())
        masked.fused = Update.possible(method, layers, optimizer)
        self.update = Update(method, layers, optimizer) if masked.fused else None

    def go_on(self, taken: int, loss: float) -> None:
        """Go on after `taken` steps, whose last loss this was, with everything else in place."""
        for _ in range(taken):
            next(self.rows)
        self.taken, self.loss = taken, loss
        self._make_update()
        self.run.masked.go_on(taken)

    def step(self) -> None:
        """Take one optimiser step. Raises Diverged, at the latest at the next `look`.

        Forward and backward with the current W', in one pass or several, gradients of W and S from
        the sum of their G, clipping, the optimiser, what scores read after it, then masks and W'
        for the next step, rewound where the method says so.
        """
        run, now = self.run, self.taken
        trial = run.trial
        factor = run.method.rate(now, run.steps, trial.train.warmup)
        set_learning_rates(self.optimizer, factor)
        torch.manual_seed(stream(trial.task, trial.seed, "dropout", now))
        loss = self._passes(next(self.rows))
        norm = self._gradients(trial.train.clip)
        self.unread.append(torch.stack([loss.to(norm.dtype), norm]))
        self.taken = now + 1
        if len(self.unread) == self.look_every:
            self.look()
        self.optimizer.step()
        if self.update:
            self.update.step()
        _look_back(run, Moment(self.taken, run.steps, trial.train.lr_weights * factor))
        self.optimizer.zero_grad()
        try:
            prepare(run, self.taken)
        except Exception:  # scores that diverged may break a mask before their loss is read
            self.look()
            raise
        if self.taken in (round(moment * run.steps) for moment in run.method.rewinds):
            self._rewind()

    @torch.no_grad()
    def _rewind(self) -> None:
        """Give weights back what they were before the first step, or before those of a dense trial,
        under the masks that stand, and the optimiser a fresh state."""
        for parameter, before in self.start.items():
            parameter.copy_(before)
        for layer in self.run.masked.layers.values():
            layer.zero_masked()
        self.optimizer.state.clear()
        self._make_update()
        self.run.masked.refresh(None)

    def _gradients(self, most: float) -> Tensor:
        """Gradients of all that trains, scaled so that their norm is at most `most`; their norm
        before. An `Update` keeps those of masked layers to itself, but for scores of units."""
        masked = self.run.masked
        if self.update is None:
            masked.backward()
            return clip(self.parameters, most)
        masked.backward_units()
        return self.update.clip(self.parameters, most, masked.penalty_weight, masked.seed())

    def told(self) -> str:
        """Step, loss, and remaining weights where counting them costs little."""
        run = self.run
        loss = f", loss {self.loss:.3f}" if math.isfinite(self.loss) else ""  # a GPU's is read late
        line = f"step {self.taken:,} of {run.steps:,}{loss}"
        if not run.masked.layers or run.method.gate.test is not None:
            return line
        return f"{line}, {100 * run.masked.remaining().density:.1f} % of the weights"

    def _passes(self, rows: np.ndarray) -> Tensor:
        """Forward and backward of a step's examples, pass by pass; returns their loss.

        Each pass counts as its share of the examples, so that means over them add up to the mean
        over the step. The last batch of an epoch may take fewer passes, the last of them smaller.
        """
        trial, losses = self.run.trial, list[Tensor]()
        most = trial.train.batch // trial.train.accumulation
        skips = self._skips()
        for part in np.split(rows, range(most, len(rows), most)):
            with skips():
                loss = _loss(self.run, self.frozen, part, self.draws) * (len(part) / len(rows))
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _skips(self) -> Callable[[], AbstractContextManager[None]]:
        """What leaves layers out in a pass of the step, where the method skips any."""
        trial, rate = self.run.trial, self.run.method.skips
        if not rate:
            return nullcontext
        seed = stream(trial.task, trial.seed, "skips", self.taken)
        return partial(
            skipping, self.run.network.encoder, rate, torch.Generator().manual_seed(seed)
        )

    def look(self) -> None:
        """Read the losses and norms since the last look. Raises Diverged if one is not finite."""
        seen = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for step, (loss, norm) in enumerate(seen, self.taken - len(seen)):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Diverged(step, norm if math.isfinite(loss) else loss)
            self.loss = loss


@torch.no_grad()
def _look_back(run: Run, moment: Moment) -> None:
    """Let scores read what the last optimiser step made of W, before its gradients go."""
    score = run.method.score
    if score is not None and score.after is not None:
        for layer in run.masked.layers.values():
            score.after(layer, moment)


def clip(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale all gradients down if their norm is over `most`; return the norm before.

    On a CPU gradients that are small enough are not touched. A GPU multiplies them by 1, as torch
    does, so that the host need not wait for the norm.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or most / (norm + 1e-6) < 1:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _loss(run: Run, frozen: Frozen, rows: np.ndarray, draws: torch.Generator) -> Tensor:
    data = run.data.train
    packs = run.network.architecture.packs
    batch = collate(data, rows, run.network.pad, run.device, packs=packs)
    lower = run.precision != torch.float32
    with torch.autocast(run.device.type, run.precision, enabled=lower):
        logits, representation = run.network(batch)
    if lower:
        logits, representation = logits.float(), representation.float()
    teacher = None if frozen.logits is None else teacher_logits(frozen.logits, data, batch)
    step = Step(
        task=run.task,
        logits=logits,
        labels=batch.labels,
        representation=representation,
        rows=batch.rows,
        generator=draws,
        classes=frozen.classes,
        teacher=teacher,
        banks=frozen.banks,
    )
    return torch.stack([term.weight * term.value(step) for term in run.method.losses]).sum()


def make_optimizer(run: Run) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """The method's optimiser over pre-trained weights, fresh parameters and scores, one group each;
    scores never decay. Returns it and all its parameters.

    Raises TrialError if nothing trains, or if the recipe has no learning rate for a group.
    """
    train, network = run.trial.train, run.network
    named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    kinds = {
        "weights": [p for n, p in named if n not in network.fresh],
        "head": [p for n, p in named if n in network.fresh],
        "scores": run.masked.trained_scores,
    }
    groups: list[Group] = []
    for kind, parameters in kinds.items():
        peak = getattr(train, f"lr_{kind}")
        decay = 0.0 if kind == "scores" else train.weight_decay
        if parameters and not peak:
            raise TrialError(
                f"method {run.trial.method} trains what its recipe has no learning rate for:"
                f" lr_{kind} is 0; register it with another recipe, or set the rate in a suite"
            )
        if parameters:
            own = {"kind": kind, "lr": peak, "peak": peak, "weight_decay": decay}
            groups.append({"params": parameters, **own})
    if not groups:
        raise TrialError(f"method {run.trial.method} trains nothing: no weights, head or scores")
    optimizer = run.method.optimiser(groups, train)
    parameters = [p for group in groups for p in group["params"]]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if {id(p) for p in held} != {id(p) for p in parameters}:
        raise TrialError(
            f"method {run.trial.method}: its optimiser must hold exactly the parameters of the"
            f" groups that it is given, {len(parameters)}; it holds {len(held)}"
        )
    for made in optimizer.param_groups:  # an optimiser may put groups of its own together
        made.setdefault("peak", made["lr"])
    return optimizer, parameters


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
