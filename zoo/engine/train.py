"""Train a trial and evaluate it: the one loop. No method's name appears here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.engine import measure
from zoo.engine.build import Resources, Run, build
from zoo.engine.evaluate import best_constant, best_of, evaluate
from zoo.engine.frozen import Frozen, load_frozen, store_outputs, teacher_logits
from zoo.engine.save import save_model
from zoo.engine.streams import stream
from zoo.engine.sweeps import Update
from zoo.errors import Diverged, TrialError
from zoo.inputs.batches import collate, first_read, random_batches
from zoo.inputs.task import Evaluation
from zoo.parts.losses import Step
from zoo.parts.optimisers import Group
from zoo.records.packed import pack_bits
from zoo.records.result import (
    Cost,
    Divergence,
    HeadFacts,
    Point,
    Result,
    Steps,
)
from zoo.records.trial import Trial
from zoo.registry import methods
from zoo.status import tell

LOOK_EVERY = 50
"""Steps on a GPU between two readings of the losses, each of which waits for it. On a CPU it is
1."""


def run_trial(trial: Trial, resources: Resources) -> Result:
    """Train and evaluate one trial. Raises for faults; a loss that is not finite is a result."""
    watch = measure.Watch()
    run = build(trial, resources)
    frozen = load_frozen(run, Path(resources.cache))
    curve: list[Point] = []
    found: dict[str, Evaluation] = {}
    diverged = None
    try:
        with watch.training(run.steps):
            for step, level, loss in fit(run, frozen):
                with watch.evaluating():
                    metrics, found = evaluate(run, level)
                    remaining = run.masked.remaining().density
                curve.append(Point(step, level, loss, remaining, metrics))
        if resources.keep_outputs:
            with run.masked.evaluating():
                cache = Path(resources.cache)
                rows = _read_by_students(run, resources.reads)
                store_outputs(cache, trial.id, run.network, run.task, run.data.train, rows)
    except Diverged as stop:
        diverged = Divergence(stop.step, repr(stop.value))
    result = result_of(run, curve, found, diverged, watch.cost(run.device), resources)
    if resources.models and result.ok:
        tell("saving the model")
        save_model(run, result, Path(resources.models))
    return result


def _read_by_students(run: Run, many: int | None) -> np.ndarray | None:
    """The rows of the first `many` examples in the order of training; None for all."""
    examples = len(run.data.train)
    if many is None or many >= examples:
        return None
    return first_read(examples, many, stream(run.trial.task, run.trial.seed, "order"))


def result_of(
    run: Run,
    curve: Sequence[Point],
    found: Mapping[str, Evaluation],
    diverged: Divergence | None,
    cost: Cost,
    resources: Resources,
) -> Result:
    """The record of a run that ended."""
    names = run.task.metrics
    last = curve[-1].metrics if curve and diverged is None else {}
    taken = diverged.step if diverged else run.steps
    about = measure.environment(run.device, resources.threads)
    return Result(
        trial=run.trial,
        facts=methods[run.trial.method].facts,
        status="diverged" if diverged else "ok",
        metrics={name: last.get(name) for name in names},
        best=best_of(run, curve, diverged),
        majority=best_constant(run),
        curve=tuple(curve),
        remaining=measure.remaining(run.masked),
        parameters=measure.parameters(run.network, run.masked),
        steps=Steps(taken, run.steps, run.recipe_steps),
        head=HeadFacts(run.method.head.name, run.task.words, run.task.labels),
        notes=tuple(run.notes),
        whole_data=run.task.is_whole(run.source),
        digests=measure.digests(run.network, run.masked),
        correct={
            split: pack_bits(one.correct) for split, one in found.items() if one.correct is not None
        },
        answers=measure.answers(run.task, found, run.data.evaluation),
        sketch=measure.sketch(run.masked),
        distribution=measure.distribution(run.masked),
        diverged=diverged,
        cost=cost,
        environment=replace(about, **resources.environment),
    )


def fit(run: Run, frozen: Frozen) -> Iterator[tuple[int, float | None, float]]:
    """Train; yield (steps taken, level, loss) where an evaluation is due and at the end. Raises
    Diverged."""
    trainer = Trainer(run, frozen)
    every = run.trial.train.evaluate_every or run.steps
    for step in range(1, run.steps + 1):
        trainer.step()
        tell(trainer.told)
        if step % every == 0 or step == run.steps:
            trainer.look()
            yield step, run.masked.level, trainer.loss


class Trainer:
    """A run between two steps: its optimiser, the order of its examples, the number of steps
    taken."""

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
        masked, layers = run.masked, list(run.masked.layers.values())
        if run.precision != torch.float32 and trial.train.accumulation == 1:
            masked.work_in(run.precision)  # a G that several passes add up needs all its digits
        masked.fused = Update.possible(run.method, layers, self.optimizer)
        self.update = Update(run.method, layers, self.optimizer) if masked.fused else None
        masked.advance(0, run.steps)
        run.network.train()

    def step(self) -> None:
        """Take one optimiser step. Raises Diverged, at the latest at the next `look`.

        Forward and backward with the current W', in one pass or several, gradients of W and S from
        the sum of their G, clipping, the optimiser, then masks and W' for the next step.
        """
        run, now = self.run, self.taken
        trial, masked = run.trial, run.masked
        set_learning_rates(self.optimizer, rate(now, run.steps, trial.train.warmup))
        torch.manual_seed(stream(trial.task, trial.seed, "dropout", now))
        loss = self._passes(next(self.rows))
        norm = self._gradients(trial.train.clip)
        self.unread.append(torch.stack([loss.to(norm.dtype), norm]))
        self.taken = now + 1
        if len(self.unread) == self.look_every:
            self.look()
        self.optimizer.step()
        if self.update:
            self.update.step(masked.penalty_weight, masked.seed())
        self.optimizer.zero_grad()
        try:
            masked.advance(self.taken, run.steps)
        except Exception:  # scores that diverged may break a mask before their loss is read
            self.look()
            raise

    def _gradients(self, most: float) -> Tensor:
        """Gradients of all that trains, scaled so that their norm is at most `most`; their norm
        before. An `Update` keeps those of masked layers to itself."""
        masked = self.run.masked
        if self.update is None:
            masked.backward()
            return clip(self.parameters, most)
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
        train, losses = self.run.trial.train, []
        most = train.batch // train.accumulation
        for part in np.split(rows, range(most, len(rows), most)):
            loss = _loss(self.run, self.frozen, part, self.draws) * (len(part) / len(rows))
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def look(self) -> None:
        """Read the losses and norms since the last look. Raises Diverged if one is not finite."""
        seen = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for step, (loss, norm) in enumerate(seen, self.taken - len(seen)):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Diverged(step, norm if math.isfinite(loss) else loss)
            self.loss = loss


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


def rate(step: int, total: int, warmup: float) -> float:
    """Factor of all learning rates: linear from 0 to 1 over the fraction `warmup`, then linear to
    0."""
    rising = round(warmup * total)
    if step < rising:
        return step / rising
    return (total - step) / (total - rising)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
