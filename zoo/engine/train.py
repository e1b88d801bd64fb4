"""Train a trial and evaluate it: the one loop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.engine import measure
from zoo.engine.build import Resources, Run, build
from zoo.engine.calibrate import prepare
from zoo.engine.evaluate import best_constant, best_of, evaluate, shares
from zoo.engine.export import export
from zoo.engine.frozen import Frozen, load_frozen, store_outputs, store_weights
from zoo.engine.handover import hand_over
from zoo.engine.save import save_model
from zoo.engine.snapshots import Snapshots
from zoo.engine.streams import stream
from zoo.engine.trainer import Trainer
from zoo.errors import Diverged
from zoo.inputs.batches import first_read
from zoo.inputs.task import Evaluation
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


def run_trial(trial: Trial, resources: Resources) -> Result:
    """Train and evaluate one trial. Raises for faults; a loss that is not finite is a result."""
    watch = measure.Watch()
    run = build(trial, resources)
    frozen = load_frozen(run, Path(resources.cache))
    curve: list[Point] = []
    found: dict[str, Evaluation] = {}
    diverged = None
    snapshots = _snapshots(run, resources, curve, watch)
    try:
        with watch.training(run.steps):
            for step, level, loss in fit(run, frozen, snapshots):
                with watch.evaluating():
                    metrics, found = evaluate(run, level)
                    remaining = run.masked.remaining().density
                curve.append(Point(step, level, loss, remaining, metrics))
        if resources.keep_outputs:
            with run.masked.evaluating():
                cache = Path(resources.cache)
                rows = _read_by_students(run, resources.reads)
                store_outputs(cache, trial.id, run.network, run.task, run.data.train, rows)
            if resources.keep_weights:
                store_weights(cache, trial.id, run.network)
    except Diverged as stop:
        diverged = Divergence(stop.step, repr(stop.value))
    finally:
        if snapshots:
            snapshots.end()
    result = result_of(run, curve, found, diverged, watch.cost(run.device), resources)
    if resources.models and result.ok:
        tell("saving the model")
        save_model(run, result, Path(resources.models))
    if resources.handover and result.ok:
        hand_over(run, Path(resources.handover))
    return result


def _snapshots(
    run: Run, resources: Resources, curve: list[Point], watch: measure.Watch
) -> Snapshots | None:
    """The snapshots of the run; None where none are kept."""
    if not resources.snapshots:
        return None
    folder = Path(resources.snapshots) / run.trial.id
    git = str(resources.environment.get("git", ""))
    return Snapshots(folder, resources.snapshot_minutes, curve, watch, run.notes, git)


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
        best=best_of(names, curve if diverged is None else ()),
        majority=best_constant(run.task, run.data.evaluation),
        curve=tuple(curve),
        remaining=measure.remaining(run.masked),
        parameters=measure.parameters(run.network, run.masked),
        steps=Steps(taken, run.steps, run.recipe_steps),
        head=HeadFacts(run.method.head.name, run.task.words, run.task.labels),
        notes=tuple(run.notes),
        whole_data=run.task.is_whole(run.source),
        digests=measure.digests(
            run.masked.test_gates(),
            run.masked.trained_scores,
            export(run.network.encoder, run.masked),
        ),
        correct={
            split: pack_bits(one.correct) for split, one in found.items() if one.correct is not None
        },
        shares=shares(found),
        answers=measure.answers(run.task, found, run.data.evaluation),
        sketch=measure.sketch(run.masked),
        distribution=measure.distribution(run.masked),
        diverged=diverged,
        cost=cost,
        environment=replace(about, **resources.environment),
    )


def fit(
    run: Run, frozen: Frozen, snapshots: Snapshots | None = None
) -> Iterator[tuple[int, float | None, float | None]]:
    """Train; yield (steps taken, level, loss) where an evaluation is due and at the end. Goes on
    from the newest of the snapshots, and writes them. Raises Diverged, and Terminated after a
    snapshot where the trial was asked to end. Without steps it is pruned, and there is no loss."""
    if not run.steps:
        prepare(run, 0)
        yield 0, run.masked.level, None
        return
    trainer = Trainer(run, frozen)
    if snapshots:
        snapshots.resume(trainer)
    every = run.trial.train.evaluate_every or run.steps
    for step in range(trainer.taken + 1, run.steps + 1):
        trainer.step()
        tell(trainer.told)
        if step % every == 0 or step == run.steps:
            trainer.look()
            yield step, run.masked.level, trainer.loss
        if snapshots and step < run.steps:
            snapshots.after_step(trainer)
