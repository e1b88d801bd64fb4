"""The loop: paired seeds, repeatable bit for bit, learning rates, parameters, teachers."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.movement import movement
from tasks.glue import mrpc
from tests.helpers import a_result, now_and_then
from zoo import (
    Cell,
    ConfigError,
    Encoded,
    Evaluation,
    LossTerm,
    Method,
    Ramp,
    TrialError,
    adamw,
    hard,
    magnitude,
    register_method,
    task_loss,
    topk_local,
    with_distillation,
)
from zoo.engine.build import Run, build
from zoo.engine.evaluate import best_constant, evaluate
from zoo.engine.frozen import Frozen, load_outputs, predict, store_outputs, teacher_logits
from zoo.engine.measure import sketch
from zoo.engine.streams import stream
from zoo.engine.train import fit, run_trial
from zoo.engine.trainer import Trainer, clip, make_optimizer
from zoo.errors import Diverged
from zoo.inputs.batches import by_length, collate, random_batches
from zoo.parts.collapse import may_collapse
from zoo.parts.schedules import rate
from zoo.records.packed import pack_bits
from zoo.records.result import Result, Steps
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.runs.estimate import longest_first


def cell(method: str, density: float = 0.1, **changes) -> Cell:
    """A cell on SST-2 without distillation."""
    return replace(Cell(method, "sst2", density, False, 0), **changes)


def reproducible(result: Result) -> dict:
    """Everything of a result but time and environment."""
    return {k: v for k, v in vars(result).items() if k not in ("cost", "environment")}


def evaluated_every(run: Run, steps: int) -> None:
    """Let a run evaluate more often."""
    run.trial = replace(run.trial, train=replace(run.trial.train, evaluate_every=steps))


# Repeatable -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "movement", "random", "smp_s"])
def test_a_trial_repeats_bit_for_bit(planner, resources, method):
    trial = planner.plan(cell(method)).trial
    first, second = run_trial(trial, resources), run_trial(trial, resources)
    assert reproducible(first) == reproducible(second)
    assert [repr(p) for p in first.curve] == [repr(p) for p in second.curve]
    other = run_trial(planner.plan(cell(method, seed=1)).trial, resources)
    assert other.digests["weights"] != first.digests["weights"]


def test_bfloat16_is_used_for_the_products_of_training_alone(planner, resources):
    """Scores, weights, their optimiser states and evaluation stay float32; losses nearly agree."""
    losses, seen = [], []
    for one in (planner, replace(planner, conditions=Conditions(precision="bfloat16"))):
        run = build(one.plan(cell("movement")).trial, resources)
        run.steps = 5
        layer = next(iter(run.masked.layers.values()))
        run.network.head.register_forward_hook(lambda m, args, out: seen.append(args[0].dtype))
        trainer = Trainer(run, Frozen())
        trainer.step()
        trainer.look()
        losses.append(trainer.loss)
        state = trainer.optimizer.state
        kinds = {t.dtype for moments in state.values() for t in moments.values()}
        assert kinds == {layer.score.dtype} == {layer.weight.dtype} == {torch.float32}
        evaluate(run, 1.0)
        assert seen[-1] == torch.float32
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_losses_that_are_read_late_are_the_same(planner, resources, monkeypatch):
    """On a GPU the host reads losses only now and then, and finds all that happened."""
    curves = []
    for steps in (1, 7):
        run = build(planner.plan(cell("smp_l")).trial, resources)
        run.steps = 20
        evaluated_every(run, 10)
        look(monkeypatch, steps)
        curves.append(list(fit(run, Frozen())))
    assert curves[0] == curves[1] and [step for step, *_ in curves[0]] == [10, 20]
    for steps in (1, 7):
        run = build(planner.plan(cell("smp_l")).trial, resources)
        run.steps = 20
        values = iter([1.0] * 9 + [math.inf] + [1.0] * 10)
        bad = replace(
            run.method.losses[0], value=lambda step, v=values: step.logits.sum() * next(v)
        )
        run.method = replace(run.method, losses=(bad,))
        look(monkeypatch, steps)
        with pytest.raises(Diverged) as stop:
            list(fit(run, Frozen()))
        assert stop.value.step == 9


def test_scores_that_diverge_before_their_loss_is_read_are_a_divergence(
    planner, resources, monkeypatch
):
    """SMP-S turns means of scores into counts, which fails for NaN, before the loss is read."""
    look(monkeypatch, every=50)
    run = build(planner.plan(cell("smp_s")).trial, resources)
    next(iter(run.masked.layers.values())).bias.data.fill_(math.nan)
    with pytest.raises(Diverged) as stop:
        list(fit(run, Frozen()))
    assert stop.value.step == 0


def test_a_group_without_a_learning_rate_is_rejected(planner, resources):
    for name in ("lr_scores", "lr_weights"):
        run = build(planner.plan(cell("movement", given=((name, 0.0),))).trial, resources)
        with pytest.raises(TrialError, match=f"has no learning rate for: {name} is 0"):
            make_optimizer(run)


# Optimisers -------------------------------------------------------------------------------------


def adamax(groups, train):
    """Adamax of torch, without foreach so that nothing but the method's choice differs."""
    return torch.optim.Adamax(groups, betas=tuple(train.betas), eps=train.epsilon)


class Proximal(torch.optim.Optimizer):
    """SGD whose scores take a proximal step of an L1 penalty afterwards (soft thresholding)."""

    def __init__(self, groups, strength: float):
        self.strength = strength
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.add_(p.grad + group["weight_decay"] * p, alpha=-group["lr"])
                if group["kind"] == "scores":
                    most = group["lr"] * self.strength
                    p.copy_(p.sign() * (p.abs() - most).clamp(min=0))


OPTIMISERS = {
    "adamw": adamw,
    "adamax": adamax,
    "proximal": lambda groups, train: Proximal(groups, strength=1e-9),
}


def movement_with(name: str) -> Cell:
    """Register movement with another optimiser, under a name of its own."""

    @register_method(f"movement_{name}", recipe="movement")
    def method(density, *, start, stop):
        """Movement with another optimiser."""
        return replace(movement(density, start=start, stop=stop), optimiser=OPTIMISERS[name])

    given = {"lr_scores": 0.1, "lr_weights": 1e-2, "weight_decay": 0.01, "steps": 12}
    return cell(f"movement_{name}", given=tuple(given.items()))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_method_trains_with_its_own_optimiser(planner, resources, name):
    run = build(planner.plan(movement_with(name)).trial, resources)
    weights = [p.detach().clone() for p in run.network.parameters() if p.requires_grad]
    (*_, (_, level, loss)) = fit(run, Frozen())
    assert math.isfinite(loss) and level == 0.1
    assert run.masked.remaining().density == pytest.approx(0.1, abs=1e-3)
    assert all(score.any() for score in run.masked.trained_scores)
    now = [p for p in run.network.parameters() if p.requires_grad]
    assert all((a != b).any() for a, b in zip(weights, now, strict=True))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_gets_a_group_per_kind_and_scores_never_decay(planner, resources, name):
    run = build(planner.plan(movement_with(name)).trial, resources)
    optimizer, parameters = make_optimizer(run)
    groups = {group["kind"]: group for group in optimizer.param_groups}
    assert list(groups) == ["weights", "head", "scores"]
    decay = {kind: group["weight_decay"] for kind, group in groups.items()}
    assert decay == {"weights": 0.01, "head": 0.01, "scores": 0.0}
    assert {kind: g["peak"] for kind, g in groups.items()} == {
        "weights": 1e-2,
        "head": run.trial.train.lr_head,
        "scores": 0.1,
    }
    assert len(parameters) == sum(len(group["params"]) for group in groups.values())
    for score in run.masked.trained_scores:
        score.data.normal_(generator=torch.Generator(score.device).manual_seed(0))
    before = [score.detach().clone() for score in run.masked.trained_scores]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    if name != "proximal":  # its step shrinks scores on purpose
        optimizer.step()
        assert all(map(torch.equal, before, run.masked.trained_scores))


def test_a_proximal_step_by_hand(planner, resources):
    """S - lr * G, and then 0.5 * lr closer to zero."""
    run = build(planner.plan(movement_with("proximal")).trial, resources)
    run.method = replace(run.method, optimiser=lambda groups, train: Proximal(groups, 0.5))
    optimizer, _ = make_optimizer(run)
    score = run.masked.trained_scores[0]
    with torch.no_grad():
        score.zero_()
        score[0, :4] = torch.tensor([1.0, -1.0, 0.06, 0.01])
    score.grad = torch.zeros_like(score)
    score.grad[0, :4] = torch.tensor([2.0, 2.0, 0.5, 0.0])
    optimizer.step()
    by_hand = [1 - 0.2 - 0.05, -1 - 0.2 + 0.05, 0.0, 0.0]
    assert score[0, :4].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_learning_rates_of_every_optimiser_follow_the_warm_up(planner, resources, monkeypatch):
    for name in OPTIMISERS:
        run = build(planner.plan(movement_with(name)).trial, resources)
        trainer, factors = Trainer(run, Frozen()), []
        plain = trainer.optimizer.step
        trainer.optimizer.step = lambda plain=plain, o=trainer.optimizer, f=factors: (
            f.append({group["lr"] / group["peak"] for group in o.param_groups}) or plain()
        )
        for _ in range(run.steps):
            trainer.step()
        by_hand = [rate(step, run.steps, run.trial.train.warmup) for step in range(run.steps)]
        assert [max(f) for f in factors] == pytest.approx(by_hand)
        assert [min(f) for f in factors] == pytest.approx(by_hand)


def test_a_method_that_trains_nothing_is_rejected(planner, resources):
    run = build(planner.plan(cell("smp_l")).trial, resources)
    for layer in run.masked.layers.values():
        layer.score.requires_grad_(False)
    run.masked.method = replace(run.method, score=magnitude, gate=hard, penalty=None)
    with pytest.raises(TrialError, match="method smp_l trains nothing: no weights, head or scores"):
        make_optimizer(run)


def test_a_loss_that_needs_the_teacher_gets_one(planner):
    """Also where the cell asks for no distillation."""

    @register_method("reads_teacher", recipe="movement")
    def reads_teacher(density, **hyper):
        needs = frozenset({"teacher"})
        return replace(movement(density, **hyper), losses=(LossTerm(task_loss, needs=needs),))

    teacher, student = planner.jobs([cell("reads_teacher")])
    assert teacher.teaches and student.trial.teacher == teacher.trial.id
    with pytest.raises(ConfigError, match="unknown frozen output 'teachers'; did you mean"):
        LossTerm(task_loss, needs=frozenset({"teachers"}))


def test_a_penalty_keeps_its_weight_between_its_steps(planner, resources):
    run = build(planner.plan(cell("smp_l")).trial, resources)
    steps = now_and_then(Ramp(0.0, 400.0, 0.0, 1.0, 3), 25)
    run.method = replace(run.method, penalty=replace(run.method.penalty, weight=steps))
    run.masked.method = run.method
    run.steps, weights = 100, []
    plain = run.masked.backward
    run.masked.backward = lambda: weights.append(run.masked.penalty_weight) or plain()
    trainer = Trainer(run, Frozen())
    for _ in range(60):
        trainer.step()
    assert weights[24:27] == [0.0, steps(25, 100), steps(25, 100)] and weights[49] == weights[26]
    assert weights[50] == steps(50, 100) == pytest.approx(350.0)


def test_one_shot_pruning_has_a_best_evaluation(planner, resources, monkeypatch):
    trial = planner.plan(cell("magnitude", given=(("evaluate_every", 2),))).trial

    def one_shot(*given):
        run = build(*given)
        run.method = run.masked.method = replace(
            run.method, level=lambda step, total: 0.1 if step == 0 else None
        )
        return run

    monkeypatch.setattr("zoo.engine.train.build", one_shot)
    result = run_trial(trial, resources)
    assert result.best.candidates == len(result.curve) > 1


def look(monkeypatch, every: int) -> None:
    """Let trainers look at the losses of `every` steps at a time, as on a GPU."""
    plain = Trainer.__init__

    def init(self, *args):
        plain(self, *args)
        self.look_every = every

    monkeypatch.setattr(Trainer, "__init__", init)


def test_compiled_layers_compute_the_same(planner, resources, monkeypatch):
    """Without the compiler's code generator, and without dropout, which it draws otherwise.

    Batches of 20, 20 and 8 examples: no size equals another by chance, which would be compiled in.
    """
    traced = partial(torch.nn.Module.compile, backend="aot_eager")
    found = []
    for one in (planner, replace(planner, conditions=Conditions(compile=True))):
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "compile", lambda self, **how: traced(self, **how))
            run = build(one.plan(cell("movement", given=(("batch", 20),))).trial, resources)
        for module in run.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run.network.encoder.config._attn_implementation = "eager"
        for layer in run.network.encoder.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        run.steps = 3
        ((_, _, loss),) = fit(run, Frozen())
        scores = torch.cat([score.flatten() for score in run.masked.scores.values()])
        found.append((loss, scores, evaluate(run, run.masked.level)[0]))
    (plain_loss, plain_scores, plain_metrics), (loss, scores, metrics) = found
    assert loss == pytest.approx(plain_loss, rel=1e-5) and metrics == plain_metrics
    assert torch.allclose(plain_scores, scores, rtol=1e-3, atol=1e-4)
    assert planner.plan(cell("movement")).trial.id != one.plan(cell("movement")).trial.id


def test_the_longest_trials_start_first(planner):
    cells = [cell("smp_l"), cell("movement", given=(("steps", 9000),)), cell("smp_s")]
    jobs = [job for job in planner.jobs(cells) if not job.teaches]
    ordered = [job.trial.method for job in longest_first(jobs, planner)]
    assert ordered == ["movement", "smp_l", "smp_s"]


def test_seeds_are_paired_between_methods(planner, resources, monkeypatch):
    """Data order, dropout and the head's start depend on (task, seed) alone."""
    seen = {}
    for method in ("dense", "magnitude", "movement", "random"):
        run = build(planner.plan(cell(method)).trial, resources)
        head = run.network.head.classifier.weight.detach().clone()
        rows, zeros = watch(run)
        run.steps = 3
        list(fit(run, Frozen()))
        seen[method] = (head.tolist(), rows, zeros)
    assert len({json.dumps(value) for value in seen.values()}) == 1
    assert stream("t", 0, "dropout", 1) != stream("t", 0, "dropout", 2)


def watch(run) -> tuple[list, list]:
    """Lists that fill with the rows of each batch, and where dropout of the embeddings is zero."""
    rows, zeros = [], []
    run.network.register_forward_hook(lambda m, args, out: rows.append(args[0].rows.tolist()))
    run.network.encoder.embeddings.dropout.register_forward_hook(
        lambda m, args, out: zeros.append((out == 0).flatten().nonzero().flatten().tolist())
    )
    return rows, zeros


def test_an_evaluation_does_not_change_masks(planner, resources):
    run = build(planner.plan(cell("movement")).trial, resources)
    calls = []
    run.method = replace(
        run.method, mask=lambda s, level: calls.append(level) or topk_local(s, level)
    )
    run.masked.method = run.method
    for step, level, _ in fit(run, Frozen()):
        before = len(calls)
        evaluate(run, level)
        assert len(calls) == before == step + 1
    assert calls[0] == 1.0 and calls[-1] == 0.1


def test_measured_remaining_weights_equal_the_target(planner, resources):
    for density in (0.5, 0.1):
        result = run_trial(planner.plan(cell("smp_l", density)).trial, resources)
        for matrix in result.remaining.matrices.values():
            assert matrix.kept == int(density * matrix.total)


def test_parameters_are_counted(planner, resources):
    """Counted by another route, from the configuration: 2 layers, H = 32, I = 64, vocabulary 21."""
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    biases = 2 * (4 * 32 + 64 + 32)
    norms, pooler, head = 2 * 4 * 32, 32 * 32 + 32, 2 * 32 + 2
    embeddings = 21 * 32 + 64 * 32 + 2 * 32 + 2 * 32
    got = {
        m: run_trial(planner.plan(cell(m)).trial, resources).parameters
        for m in ("dense", "movement", "smp_l")
    }
    assert got["dense"].trainable == matrices + biases + norms + pooler + head + embeddings
    assert got["dense"].new == got["dense"].trainable and got["dense"].mask_bits == 0
    assert got["movement"].trainable == 2 * matrices + biases + norms + pooler + head
    kept = 2 * (4 * int(0.1 * 1024) + 2 * int(0.1 * 2048))
    assert got["movement"].new == kept + biases + norms + pooler + head + matrices // 32
    assert got["smp_l"].trainable == matrices
    assert got["smp_l"].new == matrices // 32
    assert got["smp_l"].artifact_bytes == matrices // 8


def test_the_learning_rate_rises_and_falls():
    assert [rate(t, 10, 0.2) for t in (0, 1, 2, 6, 9)] == [0, 0.5, 1, 0.5, 0.125]
    assert rate(0, 10, 0.0) == 1.0
    assert rate(73631, 73632, 0.0) < 1e-3


def test_recorded_steps_are_those_that_were_taken(planner, resources):
    trial = planner.plan(cell("dense")).trial
    assert trial.train.recipe_steps(48) == 3 * 2
    result = run_trial(trial, resources)
    assert result.steps == Steps(taken=6, planned=6, recipe=6)


def test_the_densities_1_and_1_0_are_the_same_trial(planner):
    jobs = planner.jobs([cell("dense", 1), cell("movement", distill=True)])
    assert [job.trial.method for job in jobs] == ["dense", "movement"]


def test_distillation_needs_the_tasks_own_loss():
    own = Method(losses=(LossTerm(lambda step: 2 * task_loss(step)),))
    with pytest.raises(ConfigError, match=r"none of the method's losses is zoo\.task_loss"):
        with_distillation(own, task_weight=0.5, teacher_weight=0.5, temperature=2.0)


def test_students_learn_from_the_dense_trial_of_their_seed(planner, resources):
    jobs = planner.jobs([cell("smp_l", distill=True), cell("cap_lite")])
    assert [job.trial.method for job in jobs] == ["dense", "smp_l", "cap_lite"]
    assert [job.teaches for job in jobs] == [True, False, False]
    teacher, student, contrasted = (job.trial for job in jobs)
    assert student.teacher == contrasted.teacher == teacher.id
    with pytest.raises(TrialError, match="left no outputs"):
        run_trial(student, resources)
    run_trial(teacher, replace(resources, keep_outputs=True))
    result = run_trial(student, resources)
    assert result.status == "ok" and result.metrics["acc"] is not None
    assert run_trial(contrasted, resources).status == "ok"


def test_cap_lite_without_its_losses_trains_as_movement_bit_for_bit(planner, resources):
    none = (("unsupervised", 0.0), ("supervised", 0.0))
    teacher, plain = planner.jobs([cell("movement", distill=True)])
    *_, bare = planner.jobs([cell("cap_lite", distill=True, given=none)])
    run_trial(teacher.trial, replace(resources, keep_outputs=True))
    first, second = run_trial(plain.trial, resources), run_trial(bare.trial, resources)
    assert first.digests == second.digests and first.metrics == second.metrics
    assert [point.loss for point in first.curve] == [point.loss for point in second.curve]


def test_stored_outputs_are_those_of_the_teacher(planner, resources):
    trial = planner.plan(cell("dense")).trial
    run = build(trial, resources)
    list(fit(run, Frozen()))
    store_outputs(Path(resources.cache), trial.id, run.network, run.task, run.data.train)
    kept = load_outputs(Path(resources.cache), trial.id, run.task)
    with pytest.raises(TrialError, match=r"classes \['negative', 'positive'\], the task \['p"):
        turned = replace(run.task, labels=run.task.labels[::-1])
        load_outputs(Path(resources.cache), trial.id, turned)
    batch = collate(run.data.train, [3, 40, 7], 0, run.device)
    run.network.eval()
    with torch.no_grad():
        logits, representation = run.network(batch)
    assert torch.allclose(teacher_logits(kept["logits"], run.data.train, batch), logits, atol=1e-6)
    unit = torch.nn.functional.normalize(representation, dim=-1).cpu().numpy()
    assert np.allclose(kept["representations"][[3, 40, 7]], unit, atol=1e-3)
    assert np.allclose(predict(run.network, run.data.train)["logits"], kept["logits"])


# Batches ----------------------------------------------------------------------------------------


def encoded(lengths: list[int]) -> Encoded:
    """Examples of these lengths; tokens and labels count up."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(1, bounds[-1] + 1, dtype=np.int32)
    return Encoded(tokens, np.ones(bounds[-1], np.uint8), bounds, np.arange(len(lengths)))


def test_a_batch_is_padded_to_its_longest_example():
    data = encoded([3, 1, 2, 5])
    batch = collate(data, np.array([2, 0]), 0, torch.device("cpu"))
    assert batch.tokens.tolist() == [[5, 6, 0], [1, 2, 3]]
    assert batch.attention.tolist() == [[True, True, False], [True, True, True]]
    assert batch.types.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.labels.tolist() == [2, 0]


def test_span_logits_of_a_teacher_are_padded_like_the_students():
    data = replace(encoded([3, 1, 2]), labels=np.zeros((3, 2), np.int64))
    logits = np.arange(12, dtype=np.float32).reshape(6, 2)
    batch = collate(data, np.array([1, 0]), 0, torch.device("cpu"))
    got = teacher_logits(logits, data, batch)
    assert got[0, 0].tolist() == [6, 7] and got[0, 1].tolist() == [-1e4, -1e4]
    assert got[1].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_an_epoch_sees_every_example_once():
    rows = random_batches(10, 4, seed=1)
    first = np.concatenate([next(rows) for _ in range(3)])
    second = np.concatenate([next(rows) for _ in range(3)])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    again = random_batches(10, 4, seed=1)
    assert np.concatenate([next(again) for _ in range(3)]).tolist() == first.tolist()


def test_evaluation_batches_are_ordered_by_length_and_miss_no_example():
    data = encoded([3, 1, 2, 5, 1])
    assert [rows.tolist() for rows in by_length(data, 2)] == [[1, 4], [2, 0], [3]]


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_sketches_agree_as_much_as_their_masks_do(density):
    """Against the Jaccard index of the masks themselves, for masks that share a part."""
    from leaderboard.heat_maps import agreement

    class Masked:
        layers = True

        def __init__(self, *masks):
            self.masks = masks

        def test_gates(self):
            return dict(enumerate(self.masks))

    draw = torch.Generator().manual_seed(5)

    def masks(shared):
        own = [torch.rand(300, 400, generator=draw) < density for _ in range(2)]
        return [
            torch.where(torch.arange(300)[:, None] < shared, s, o)
            for s, o in zip(common, own, strict=True)
        ]

    common = [torch.rand(300, 400, generator=draw) < density for _ in range(2)]
    for shared in (0, 150, 300):
        one, other = masks(shared), masks(shared)
        both = sum((a & b).sum().item() for a, b in zip(one, other, strict=True))
        either = sum((a | b).sum().item() for a, b in zip(one, other, strict=True))
        first, second = (a_result(sketch=sketch(Masked(*m))) for m in (one, other))
        assert agreement(first, second) == pytest.approx(both / either, abs=0.1)
    assert agreement(first, a_result()) is None


def test_bits_are_packed_behind_their_number():
    assert pack_bits(np.array([True, False, True])) == "3:oA=="


def test_data_that_changed_since_the_plan_is_rejected(planner, resources):
    trial = replace(planner.plan(cell("dense")).trial, data_sha="0" * 64)
    with pytest.raises(TrialError, match="changed since the run was planned"):
        build(trial, resources)


@pytest.mark.parametrize("most", [1e-3, 1.0, 1e3])
def test_clipping_equals_torchs(most):
    """The same norm and the same gradients, bit for bit, whether there is anything to scale."""
    draw = torch.Generator().manual_seed(0)
    gradients = [torch.randn(20, 30, generator=draw) * 0.03 for _ in range(4)]
    sides = []
    for _ in range(2):
        sides.append([torch.nn.Parameter(torch.zeros(20, 30)) for _ in gradients])
        for parameter, gradient in zip(sides[-1], gradients, strict=True):
            parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(sides[0], most)
    assert clip(sides[1], most) == float(norm)
    for one, other in zip(*sides, strict=True):
        assert torch.equal(one.grad, other.grad)


def optimiser_of(change):
    """AdamW on groups that `change` makes of those that it is given."""
    return lambda groups, train: torch.optim.SGD(change(groups), lr=1e-3)


def test_an_optimiser_must_hold_what_it_is_given(planner, resources):
    run = build(planner.plan(cell("movement")).trial, resources)
    run.method = replace(run.method, optimiser=optimiser_of(lambda groups: groups[:-1]))
    with pytest.raises(TrialError, match="must hold exactly the parameters of the groups"):
        make_optimizer(run)
    one = optimiser_of(lambda groups: [p for group in groups for p in group["params"]])
    run.method = replace(run.method, optimiser=one)
    made, parameters = make_optimizer(run)
    assert [group["peak"] for group in made.param_groups] == [1e-3]
    assert len(made.param_groups[0]["params"]) == len(parameters)


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", 150.0])
def test_a_metric_is_a_percentage_or_none(planner, resources, value):
    run = build(planner.plan(cell("dense")).trial, resources)
    run.task = replace(run.task, evaluate=lambda *given: Evaluation({"acc": value}, None))
    with pytest.raises(TrialError, match="acc must be a percentage, from -100 to 100, or None"):
        evaluate(run, None)
    run.task = replace(run.task, evaluate=lambda *given: Evaluation({"acc": np.float32(0.5)}, None))
    assert type(evaluate(run, None)[0]["acc"]) is float


@pytest.mark.parametrize(("ones", "acc", "f1"), [(50, 50.0, 200 / 3), (68, 68.0, 13600 / 168)])
def test_the_constant_answer_is_the_best_by_each_metric(ones, acc, f1):
    """F1 of always "yes" is 66.7 among equal classes, 81 on MRPC; that of always "no" is 0."""
    labels = np.array([1] * ones + [0] * (100 - ones))
    data = SimpleNamespace(evaluation={"validation": LabelsAlone(labels)})
    found = best_constant(mrpc(), data.evaluation)
    assert found == pytest.approx({"acc": acc, "f1": f1})


class LabelsAlone:
    """What the metrics of classes read of an encoded split."""

    def __init__(self, labels: np.ndarray):
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize(
    ("name", "steps", "warned"),
    [
        ("movement", 250, True),
        ("movement", 36_816, False),
        ("smp_l", 250, False),
        ("soft_movement", 250, False),
        ("magnitude", 250, False),
        ("random", 250, False),
    ],
)
def test_a_short_run_of_hard_movement_is_warned_of(name, steps, warned):
    """What collapsed in the authors' code too: docs/certificates.md."""
    hyper = {"start": 0.1, "stop": 0.8}
    hyper |= {"penalty": 1.0} if name == "soft_movement" else {}
    hyper = {"stop": 0.8, "penalty": 1.0} if name == "smp_l" else hyper
    assert may_collapse(methods[name].make(0.1, **hyper), steps) is warned


def test_the_warning_stands_in_the_plan_and_in_the_result(planner, resources):
    planner.plan(cell("movement"))
    (note,) = [note for note in planner.notes() if "docs/certificates.md" in note]
    assert note.startswith("movement: scores that start equal")
    result = run_trial(planner.plan(cell("movement")).trial, resources)
    assert note in result.notes


@pytest.mark.parametrize("name", ["smp_s", "movement", "l0"])
def test_working_weights_in_bfloat16_change_no_number(planner, resources, monkeypatch, name):
    """Autocast rounds W' and G in every pass; once per step is the same."""
    planner = replace(planner, conditions=Conditions(precision="bfloat16"))
    given = (("penalty", 30.0),) if name == "l0" else ()
    trial = planner.jobs([Cell(name, "sst2", 0.3, False, 0, given)])[-1].trial
    found = []
    for lowered in (True, False):
        run = build(trial, resources)
        if not lowered:
            monkeypatch.setattr(run.masked, "work_in", lambda kind: None)
        trainer = Trainer(run, Frozen())
        for _ in range(3):
            trainer.step()
        layers = run.masked.layers.values()
        assert {x.working.dtype for x in layers} == {torch.bfloat16 if lowered else torch.float32}
        found.append([*(x.weight for x in layers), *run.masked.trained_scores])
    assert all(map(torch.equal, *found))
