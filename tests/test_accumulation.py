"""Gradient accumulation: several passes per step compute what one pass does, in less memory."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import a_trial, in_double, without_dropout
from zoo import Cell, ConfigError, Scale, Score, Value, learned
from zoo.engine.build import Run, build
from zoo.engine.frozen import load_frozen
from zoo.engine.streams import stream
from zoo.engine.train import run_trial
from zoo.engine.trainer import Trainer
from zoo.inputs.batches import collate, random_batches
from zoo.records.codec import from_json
from zoo.records.trial import Trial
from zoo.registry import methods, register_method
from zoo.runs.plan import teacher_of
from zoo.runs.values import recipe_of

ROOT = Path(__file__).resolve().parent.parent
GIVEN = {"batch": 20, "lr_weights": 1e-3, "lr_head": 2e-3, "lr_scores": 3e-2, "warmup": 0.0}
"""48 examples are batches of 20, 20 and 8: the last takes two passes, of 5 and 3, not four."""
PRUNED = ("magnitude", "movement", "l0", "smp_s")
PAIRS = [("dense", False), *((name, distill) for name in PRUNED for distill in (False, True))]


def cell(name: str, accumulation: int, distill: bool = False, **given) -> Cell:
    """A cell on SST-2 at 30 %, with the values above."""
    driven = {"penalty": 30.0} if methods[name].facts.drives == "penalty" else {}
    values = {**GIVEN, **driven, "accumulation": accumulation, **given}
    density = 0.3 if methods[name].facts.prunes else 1.0
    return Cell(name, "sst2", density, distill, 0, tuple(values.items()))


def trainer_of(planner, resources, name: str, passes: int, *, distill=False, double=True):
    """A trainer before its first step, in float64 and without dropout; the teacher is the same for
    any number of passes, and runs first."""
    *teachers, last = planner.jobs([cell(name, 1, distill, steps=6)])
    for job in teachers:
        run_trial(job.trial, replace(resources, keep_outputs=True))
    train = replace(last.trial.train, accumulation=passes)
    run = build(replace(last.trial, train=train), resources)
    frozen = load_frozen(run, Path(resources.cache))
    if double:
        without_dropout(in_double(run).network)
        logits = None if frozen.logits is None else frozen.logits.astype(np.float64)
        frozen = replace(frozen, logits=logits)
    return Trainer(run, frozen)


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """Everything that training may change."""
    found = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    for name, layer in run.masked.layers.items():
        found[f"gate {name}"] = layer.gate.detach().double()
        if run.masked.trained_scores:
            found[f"score {name}"] = layer.score.detach().clone()
    return found


# The same step ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "distill"), PAIRS)
def test_four_passes_take_the_step_of_one(name, distill, planner, resources):
    """Weights, scores, gates and masks over two epochs, the small last batches included."""
    sides = [trainer_of(planner, resources, name, n, distill=distill) for n in (1, 4)]
    before = tensors(sides[0].run)
    for _ in range(6):
        for trainer in sides:
            trainer.step()
        one, four = (tensors(trainer.run) for trainer in sides)
        for n, tensor in one.items():
            torch.testing.assert_close(four[n], tensor, rtol=0, atol=1e-12, msg=n)
        for mine, other in zip(*(t.run.masked.layers.values() for t in sides), strict=True):
            assert torch.equal(mine.mask, other.mask)
        assert sides[0].loss == pytest.approx(sides[1].loss, rel=1e-12)
    assert any((before[n] != one[n]).any() for n in before)


def test_a_score_that_observes_sees_the_whole_gradient_once_per_step(planner, resources):
    """Of movement with a penalty, against autograd over the whole batch; the penalty is added
    once."""
    seen = []
    trainer = trainer_of(planner, resources, "smp_s", 4)
    run = trainer.run
    observing = Score(learned.read, learned.init, lambda layer, g: seen.append(g.clone()))
    run.masked.method = replace(run.method, score=observing)
    run.masked.penalty_weight = 7.0
    rows = next(random_batches(48, 20, stream("sst2", 0, "order")))
    batch = collate(run.data.train, rows, run.network.pad, run.device)
    layers = list(run.masked.layers.values())
    logits, _ = run.network(batch)
    chosen = torch.log_softmax(logits, -1)[torch.arange(20), batch.labels]
    whole = torch.autograd.grad(-chosen.sum() / 20, [layer.working for layer in layers])
    scores, weights = (
        [getattr(x, n).detach().clone() for x in layers] for n in ("score", "weight")
    )
    got = []
    plain = trainer.optimizer.step
    trainer.optimizer.step = lambda: (got.extend(x.score.grad.clone() for x in layers), plain())
    trainer.step()
    assert len(seen) == len(layers)
    for s, w, g, observed, gradient in zip(scores, weights, whole, seen, got, strict=True):
        torch.testing.assert_close(observed, g, rtol=0, atol=1e-14)
        open_, share = torch.sigmoid(s), 7.0 / s.numel() / len(layers)
        by_hand = g * w + share * open_ * (1 - open_)
        scale = gradient.norm() / by_hand.norm()  # the step clips all gradients together
        torch.testing.assert_close(gradient, by_hand * scale, rtol=0, atol=1e-12)


def test_l0_draws_its_noise_once_per_step(planner, resources):
    noises = []
    for n in (1, 4):
        trainer = trainer_of(planner, resources, "l0", n)
        calls, plain = [], trainer.run.method.gate.draw
        gate = replace(
            trainer.run.method.gate,
            draw=lambda *given, c=calls, p=plain: c.append(p(*given)) or c[-1],
        )
        trainer.run.masked.method = replace(trainer.run.method, gate=gate)
        trainer.step()
        noises.append(torch.stack([noise.sum() for noise in calls]))
    assert torch.equal(*noises) and len(noises[0]) == 12


def test_passes_draw_dropout_one_after_another_from_the_steps_stream(planner, resources):
    """Passes of a step differ, steps repeat, and a single pass draws what it always did."""
    drawn = {}
    for n in (1, 4, 4):
        trainer = trainer_of(planner, resources, "movement", n, double=False)
        zeros = []
        trainer.run.network.encoder.embeddings.dropout.register_forward_hook(
            lambda m, args, out, z=zeros: z.append((out == 0)[:5, :3].flatten().tolist())
        )
        trainer.step()
        assert len(zeros) == n
        assert drawn.setdefault(n, zeros) == zeros
    assert all(a != b for a, b in pairwise(drawn[4]))


# Memory -----------------------------------------------------------------------------------------


def test_a_forward_sees_the_examples_of_its_pass_alone(planner, resources):
    """And no example is missed: batches of 20, 20 and 8 in passes of 5 at most."""
    trainer, rows = trainer_of(planner, resources, "movement", 4), []
    trainer.run.network.register_forward_hook(lambda m, args, out: rows.append(args[0].rows))
    for _ in range(3):
        trainer.step()
    assert [len(part) for part in rows] == [5, 5, 5, 5, 5, 5, 5, 5, 5, 3]
    assert sorted(torch.cat(rows).tolist()) == list(range(48))


class Held:
    """A tensor that autograd keeps for the backward pass; counts the bytes of all alive."""

    now = most = 0

    def __init__(self, tensor: torch.Tensor):
        self.tensor, self.bytes = tensor, 0 if tensor.requires_grad else tensor.nbytes
        Held.now += self.bytes
        Held.most = max(Held.most, Held.now)

    def __del__(self):
        Held.now -= self.bytes


def test_what_the_backward_pass_keeps_shrinks_with_the_pass(planner, resources):
    peaks = {}
    for n in (1, 2, 10):
        trainer = trainer_of(planner, resources, "movement", n)
        Held.now = Held.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            trainer.step()
        peaks[n] = Held.most
    assert peaks[2] < 0.7 * peaks[1] and peaks[10] < 0.25 * peaks[1]


def test_contrast_sees_its_pass(planner, resources):
    """Anchors are those of the pass, and a step is finite and repeats."""
    losses = []
    for _ in range(2):
        trainer = trainer_of(planner, resources, "cap_lite", 4)
        sizes, terms = [], trainer.run.method.losses
        watched = replace(
            terms[-1],
            value=lambda step, v=terms[-1].value, s=sizes: s.append(len(step.rows)) or v(step),
        )
        trainer.run.method = replace(trainer.run.method, losses=(*terms[:-1], watched))
        trainer.step()
        assert sizes == [5, 5, 5, 5] and np.isfinite(trainer.loss)
        losses.append(trainer.loss)
    assert losses[0] == losses[1]


# How it is set ----------------------------------------------------------------------------------


def test_a_cell_a_scale_and_a_recipe_can_set_it(planner):
    of = lambda one, by=planner: by.plan(one).trial.train.accumulation  # noqa: E731
    plain = Cell("movement", "sst2", 0.3, False, 0)
    assert of(plain) == 1 and of(cell("movement", 4)) == 4
    scale = Scale("mine", ("sst2",), "", "", values={"accumulation": Value(2, "mine")})
    assert of(plain, replace(planner, scale=scale)) == 2

    def recipe(request):
        train, hyper = recipe_of(methods["movement"])[1](request)
        return {**train, "accumulation": Value(8, "mine")}, hyper

    register_method("mine", recipe=recipe)(methods["movement"].make)
    assert of(replace(plain, method="mine")) == 8


def test_one_pass_is_not_written_and_more_are_another_trial(planner):
    plain = replace(cell("movement", 1), given=tuple(GIVEN.items()))
    ids = [planner.plan(one).trial.id for one in (plain, cell("movement", 1), cell("movement", 4))]
    assert ids[0] == ids[1] != ids[2]
    assert a_trial().id == "t-movement-0.1-seed0-1834694edabd"
    stored = list((ROOT / "docs" / "runs" / "minilm").glob("*/*-seed*.json"))
    assert stored
    for path in stored:
        trial = from_json(Trial, json.loads(path.read_text())["trial"])
        assert f"{trial.id}.json" == path.name and trial.train.accumulation == 1


@pytest.mark.parametrize(
    ("accumulation", "message"),
    [
        (3, "accumulation must divide batch, 20; got 3"),
        (40, "accumulation must divide batch, 20; got 40"),
        (0, "accumulation must be at least 1, got 0"),
        (2.0, "accumulation is 2.0, not a whole number"),
        (True, "accumulation is True, not a whole number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_line(accumulation, message, planner):
    with pytest.raises(ConfigError) as refusal:
        planner.jobs([cell("movement", accumulation)])
    assert str(refusal.value) == f"method movement on sst2: {message}"


def test_teachers_train_in_as_many_passes(planner):
    assert teacher_of(cell("movement", 4, distill=True), None).given == (("accumulation", 4),)
    dense = Cell("dense", "sst2", 1.0, False, 0, (("accumulation", 4),))
    ids = [job.trial.id for job in planner.jobs([dense, cell("movement", 4, distill=True)])]
    assert len(ids) == 2  # the dense trial of the suite is the teacher


def test_the_steps_of_a_recipe_stay(planner):
    one, four = (planner.plan(cell("movement", n)).trial.train for n in (1, 4))
    assert one.recipe_steps(48) == four.recipe_steps(48)
    assert replace(four, accumulation=1) == one
