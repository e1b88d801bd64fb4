"""Fit a trial and evaluate it: the one loop. No method's name appears here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import measure
from zoo.build import Place, Run, build, stream
from zoo.errors import Diverged, TrialError
from zoo.losses import Bank, Step
from zoo.outputs import bank, leave_outputs, load_outputs, outputs, outputs_of, teacher_logits
from zoo.registry import methods
from zoo.task import collate, encoding, shuffled
from zoo.trial import Result, Trial

LOOK_EVERY = 50
"""Steps on a GPU between two looks at the losses: each look waits for it. On a CPU it is 1."""


def run_trial(trial: Trial, place: Place) -> Result:
    """Train and judge one trial. Raises for faults; a loss that is not finite is a result."""
    watch = measure.Watch()
    run = build(trial, place)
    frozen = Frozen.of(run, place)
    curve: list[dict[str, Any]] = []
    correct: dict[str, np.ndarray] = {}
    diverged = None
    try:
        for step, level, loss in fit(run, frozen):
            with watch.evaluating():
                metrics, correct = evaluate(run, level)
            density = run.masked.remaining().density
            curve.append(
                {"step": step, "level": level, "loss": loss, "density": density, **metrics}
            )
        if place.keep_outputs:
            with run.masked.evaluating():
                leave_outputs(Path(place.cache), trial.id, run.network, run.task, run.data.train)
    except Diverged as stop:
        diverged = {"step": stop.step, "value": repr(stop.loss)}
    return result_of(run, curve, correct, diverged, watch.cost(run.device), place)


def result_of(
    run: Run,
    curve: Sequence[dict[str, Any]],
    correct: Mapping[str, np.ndarray],
    diverged: dict[str, Any] | None,
    cost: dict[str, Any],
    place: Place,
) -> Result:
    """What is written down of a run that ended."""
    names = run.task.metrics
    last = curve[-1] if curve and diverged is None else {}
    kept = run.masked.remaining()
    level = run.masked.level
    final = [p for p in curve if p["level"] == level and abs(p["density"] - kept.density) < 0.01]
    judged = [point for point in final if point.get(names[0]) is not None]
    best = max(judged, key=lambda point: point[names[0]], default={}) if not diverged else {}
    taken = diverged["step"] if diverged else run.steps
    return Result(
        trial=run.trial,
        label=methods[run.trial.method].facts.get("label", run.trial.method),
        status="diverged" if diverged else "ok",
        metrics={name: last.get(name) for name in names},
        best={"candidates": len(judged), "step": best.get("step")}
        | {name: best.get(name) for name in names},
        majority=majority(run),
        curve=curve,
        remaining={
            "density": kept.density,
            "encoder_density": kept.encoder_density,
            "kept": kept.kept,
            "total": kept.total,
            "heads": run.masked.remaining_by_head(),
        },
        parameters=measure.parameters(run.network, run.masked),
        steps={"taken": taken, "planned": run.steps, "recipe": run.recipe_steps},
        head={"name": run.method.head.name, "words": run.task.words, "labels": run.task.labels},
        notes=run.notes,
        digests=measure.digests(run.network, run.masked),
        correct={split: measure.pack_bits(bits) for split, bits in correct.items()},
        sketch=measure.sketch(run.masked),
        distribution=measure.distribution(run.masked),
        diverged=diverged,
        cost=cost,
        environment=measure.environment(run.device, place.threads) | dict(place.facts),
    )


def majority(run: Run) -> dict[str, float | None]:
    """The metrics of always giving the training set's most frequent class; none without classes."""
    if not run.task.labels:
        return {}
    counts = np.bincount(run.data.train.labels, minlength=len(run.task.labels))
    found: dict[str, float | None] = {}
    for split, data in run.data.evaluation.items():
        constant = np.tile(counts == counts.max(), (len(data), 1)).astype(np.float32)
        found.update(run.task.score(split, constant, data).metrics)
    return found


@dataclass(frozen=True)
class Frozen:
    """Outputs of frozen models over the training set that the losses read."""

    logits: np.ndarray | None
    banks: Mapping[str, Bank]
    classes: Tensor

    @classmethod
    def of(cls, run: Run, place: Place) -> "Frozen":
        """Load or compute what the method's losses need, and nothing else."""
        needs, cache = run.method.needs, Path(place.cache)
        banks = {}
        if "pretrained" in needs:
            arrays = outputs_of(cache, _start_key(run), run.network, run.data.train)
            banks["pretrained"] = bank(arrays, run.device)
        arrays = load_outputs(cache, run.trial.teacher, run.task) if run.trial.teacher else {}
        if "finetuned" in needs:
            banks["finetuned"] = bank(arrays, run.device)
        logits = arrays["logits"] if "teacher" in needs else None
        classes = torch.from_numpy(np.array(run.data.train.labels)).to(run.device)
        return cls(logits, banks, classes)


def _start_key(run: Run) -> dict[str, object]:
    """What the representations before the first step depend on; the seed through a fresh pooler."""
    trial, start = run.trial, run.method.start
    return {
        "model": trial.model_sha,
        "data": trial.data_sha,
        "task": trial.task,
        "encoding": encoding(run.task),
        "max_length": trial.train["max_length"],
        "head": run.method.head.name,
        "start": f"{start.__module__}.{start.__qualname__}",
        "seed": trial.seed,
    }


def fit(run: Run, frozen: Frozen) -> Iterator[tuple[int, float | None, float]]:
    """Train; yield (steps taken, level, loss) where an evaluation is due, and at the end. Raises
    Diverged."""
    trainer = Trainer(run, frozen)
    every = run.trial.train.get("evaluate_every") or run.steps
    for step in range(1, run.steps + 1):
        trainer.step()
        if step % every == 0 or step == run.steps:
            trainer.look()
            yield step, run.masked.level, trainer.loss


class Trainer:
    """A run between two steps: its optimiser, the order of its examples, the steps taken."""

    def __init__(self, run: Run, frozen: Frozen):
        trial = run.trial
        self.run, self.frozen = run, frozen
        self.optimizer, self.parameters = make_optimizer(run)
        order = stream(trial.task, trial.seed, "order")
        self.rows = shuffled(len(run.data.train), trial.train["batch"], order)
        self.draws = torch.Generator().manual_seed(stream(trial.task, trial.seed, "losses"))
        self.taken, self.loss, self.penalty = 0, math.nan, 0.0
        self.unseen: list[Tensor] = []
        self.look_every = 1 if run.device.type == "cpu" else LOOK_EVERY
        run.masked.refresh(run.method.level(0, run.steps))
        run.network.train()

    def step(self) -> None:
        """Forward and backward with the W' that stands, gradients of W and S from G, clip,
        optimiser, then masks and W' for the next step. Raises Diverged, at the latest at the next
        look."""
        run, now = self.run, self.taken
        trial, masked = run.trial, run.masked
        set_learning_rates(self.optimizer, rate(now, run.steps, trial.train["warmup"]))
        torch.manual_seed(stream(trial.task, trial.seed, "dropout", now))
        loss = _loss(run, self.frozen, next(self.rows), self.draws)
        loss.backward()
        if run.method.penalty is not None:
            weight = run.method.penalty.weight(now, run.steps)
            self.penalty = self.penalty if weight is None else weight
        masked.backward(self.penalty)
        norm = clip(self.parameters, trial.train["clip"])
        self.unseen.append(torch.stack([loss.detach().to(norm.dtype), norm]))
        self.taken = now + 1
        if len(self.unseen) == self.look_every:
            self.look()
        self.optimizer.step()
        self.optimizer.zero_grad()
        try:
            masked.refresh(run.method.level(self.taken, run.steps))
        except Exception:  # scores that diverged may break a mask before their loss is read
            self.look()
            raise

    def look(self) -> None:
        """Read the losses and norms of the steps since the last look. Raises Diverged if one is not
        finite."""
        seen = torch.stack(self.unseen).tolist() if self.unseen else []
        self.unseen.clear()
        for step, (loss, norm) in enumerate(seen, self.taken - len(seen)):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Diverged(step, norm if math.isfinite(loss) else loss)
            self.loss = loss


def clip(parameters: Sequence[Tensor], most: float) -> Tensor:
    """The norm of all gradients; they are scaled down if it is over `most`. On a CPU they are else
    not touched; a GPU multiplies them by one, as torch does, and the host need not wait for it."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or most / (norm + 1e-6) < 1:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _loss(run: Run, frozen: Frozen, rows: np.ndarray, draws: torch.Generator) -> Tensor:
    data = run.data.train
    batch = collate(data, rows, run.pad, run.device)
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
    """AdamW, one group each for pre-trained weights, fresh ones and scores; scores never decay.

    Raises TrialError where nothing trains, and where the recipe has no learning rate for a group.
    """
    train, network = run.trial.train, run.network
    named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    groups = {
        "lr_weights": [p for n, p in named if n not in network.fresh],
        "lr_head": [p for n, p in named if n in network.fresh],
        "lr_scores": run.masked.trained_scores,
    }
    decays = dict.fromkeys(groups, train["weight_decay"]) | {"lr_scores": 0.0}
    filled = [
        {"params": p, "lr": train[name], "peak": train[name], "weight_decay": decays[name]}
        for name, p in groups.items()
        if p
    ]
    if not filled:
        raise TrialError(f"method {run.trial.method} trains nothing: no weights, head or scores")
    still = [name for name, p in groups.items() if p and not train[name]]
    if still:
        raise TrialError(
            f"method {run.trial.method} trains what its recipe has no learning rate for:"
            f" {', '.join(still)} is 0; register it with another recipe=, or give the rate in a"
            " suite"
        )
    optimizer = torch.optim.AdamW(filled, betas=train["betas"], eps=train["epsilon"], fused=True)
    return optimizer, [p for group in filled for p in group["params"]]


def rate(step: int, total: int, warmup: float) -> float:
    """Learning-rate factor: linear from 0 to 1 over the fraction `warmup`, then linear to 0."""
    rising = round(warmup * total)
    if step < rising:
        return step / rising
    return (total - step) / (total - rising)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def evaluate(
    run: Run, level: float | None
) -> tuple[dict[str, float | None], dict[str, np.ndarray]]:
    """Metrics by name and correctness by split, with the masks that stand, made at `level`.

    Raises TrialError if the masks keep more than the method may.
    """
    run.masked.check_budget(level)
    metrics: dict[str, float | None] = {}
    correct: dict[str, np.ndarray] = {}
    with run.masked.evaluating():
        for split, data in run.data.evaluation.items():
            scores = run.task.score(split, outputs(run.network, data)["logits"], data)
            metrics.update(scores.metrics)
            if scores.correct is not None:
                correct[split] = scores.correct
    return metrics, correct
