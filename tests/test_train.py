"""The loop: paired seeds, repeatable bit for bit, learning rates, parameters, teachers."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.build import Place, build, recipe_steps, stream
from zoo.errors import ConfigError, Diverged, TrialError
from zoo.estimate import longest_first
from zoo.losses import LossTerm, task_loss
from zoo.masks import topk_local
from zoo.measure import pack_bits, sketch
from zoo.method import Method, with_distillation
from zoo.outputs import leave_outputs, load_outputs, outputs, teacher_logits
from zoo.plan import Planner
from zoo.schedules import cubic, every, once
from zoo.suites import BASE, Cell
from zoo.task import Encoded, by_length, collate, shuffled
from zoo.train import Frozen, Trainer, clip, evaluate, fit, make_optimizer, rate, run_trial


@pytest.fixture
def planner(checkpoint, sst2):
    return Planner(BASE, "released", str(checkpoint), str(sst2))


@pytest.fixture
def place(checkpoint, sst2, tmp_path):
    return Place(str(checkpoint), str(sst2), str(tmp_path / "cache"), ())


def cell(method: str, density: float = 0.1, **changes) -> Cell:
    return replace(Cell(method, "sst2", density, False, 0), **changes)


def same(result) -> dict:
    """Everything of a result but time and environment."""
    return {k: v for k, v in vars(result).items() if k not in ("cost", "environment")}


@pytest.mark.parametrize("method", ["dense", "movement", "random", "smp_s"])
def test_the_same_trial_twice_is_the_same_bit_for_bit(planner, place, method):
    trial = planner.trial(cell(method))
    first, second = run_trial(trial, place), run_trial(trial, place)
    assert same(first) == same(second)
    assert json.dumps(first.curve) == json.dumps(second.curve)
    other = run_trial(planner.trial(cell(method, seed=1)), place)
    assert other.digests["weights"] != first.digests["weights"]


def test_bfloat16_is_for_the_products_of_training_alone(planner, place):
    """Scores, weights, their optimiser states and evaluation stay float32; losses nearly agree."""
    losses, seen = [], []
    for one in (planner, replace(planner, precision="bfloat16")):
        run = build(one.trial(cell("movement")), place)
        run.steps = 5
        layer = next(iter(run.masked.layers.values()))
        run.network.head.register_forward_hook(lambda m, args, out: seen.append(args[0].dtype))
        trainer = Trainer(run, Frozen(None, {}, torch.zeros(1)))
        trainer.step()
        losses.append(trainer.loss)
        state = trainer.optimizer.state
        kinds = {t.dtype for moments in state.values() for t in moments.values()}
        assert kinds == {layer.score.dtype} == {layer.weight.dtype} == {torch.float32}
        evaluate(run, 1.0)
        assert seen[-1] == torch.float32
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
    assert "precision" not in planner.trial(cell("movement")).train


def test_losses_read_late_are_the_same(planner, place, monkeypatch):
    """On a GPU the host looks at losses every so often; what it then finds is what happened."""
    curves = []
    for steps in (1, 7):
        run = build(planner.trial(cell("smp_l")), place)
        run.steps = 20
        run.trial.train["evaluate_every"] = 10
        look(monkeypatch, steps)
        curves.append(list(fit(run, Frozen(None, {}, torch.zeros(1)))))
    assert curves[0] == curves[1] and [step for step, *_ in curves[0]] == [10, 20]
    for steps in (1, 7):
        run = build(planner.trial(cell("smp_l")), place)
        run.steps = 20
        values = iter([1.0] * 9 + [math.inf] + [1.0] * 10)
        bad = replace(
            run.method.losses[0], value=lambda step, v=values: step.logits.sum() * next(v)
        )
        run.method = replace(run.method, losses=(bad,))
        look(monkeypatch, steps)
        with pytest.raises(Diverged) as stop:
            list(fit(run, Frozen(None, {}, torch.zeros(1))))
        assert stop.value.step == 9


def test_scores_that_diverged_unseen_are_diverged_and_no_crash(planner, place, monkeypatch):
    """SMP-S turns means of scores into counts before a loss that is read late was looked at."""
    look(monkeypatch, every=50)
    run = build(planner.trial(cell("smp_s")), place)
    next(iter(run.masked.layers.values())).bias.data.fill_(math.nan)
    with pytest.raises(Diverged) as stop:
        list(fit(run, Frozen(None, {}, torch.zeros(1))))
    assert stop.value.step == 0


def test_what_trains_has_a_learning_rate(planner, place):
    for name in ("lr_scores", "lr_weights"):
        run = build(planner.trial(cell("movement", given=((name, 0.0),))), place)
        with pytest.raises(TrialError, match=f"has no learning rate for: {name} is 0"):
            make_optimizer(run)


def test_scores_never_decay(planner, place):
    given = (("weight_decay", 0.01),)
    run = build(planner.trial(cell("movement", given=given)), place)
    optimizer, _ = make_optimizer(run)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.01, 0.0]


def test_a_penalty_stands_between_its_steps(planner, place):
    run = build(planner.trial(cell("smp_l")), place)
    steps = every(cubic(0.0, 400.0), 25)
    run.method = replace(run.method, penalty=replace(run.method.penalty, weight=steps))
    run.steps, weights = 100, []
    run.masked.backward = weights.append
    trainer = Trainer(run, Frozen(None, {}, torch.zeros(1)))
    for _ in range(60):
        trainer.step()
    assert weights[24:27] == [0.0, steps(25, 100), steps(25, 100)] and weights[49] == weights[26]
    assert weights[50] == steps(50, 100) == pytest.approx(350.0)


def test_one_shot_pruning_has_a_best_evaluation(planner, place, monkeypatch):
    trial = planner.trial(cell("magnitude", given=(("evaluate_every", 2),)))

    def one_shot(*given):
        run = build(*given)
        run.method = run.masked.method = replace(run.method, level=once(0.1))
        return run

    monkeypatch.setattr("zoo.train.build", one_shot)
    result = run_trial(trial, place)
    assert result.best["candidates"] == len(result.curve) > 1


def look(monkeypatch, every: int) -> None:
    """Let trainers look at the losses of `every` steps at a time, as on a GPU."""
    plain = Trainer.__init__

    def init(self, *args):
        plain(self, *args)
        self.look_every = every

    monkeypatch.setattr(Trainer, "__init__", init)


def test_compiled_layers_compute_the_same(planner, place, monkeypatch):
    """Without the code generator, which is the compiler's own; dropout off, it draws otherwise."""
    traced = partial(torch.nn.Module.compile, backend="aot_eager")
    found = []
    for one in (planner, replace(planner, compile=True)):
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "compile", lambda self, **how: traced(self, **how))
            run = build(one.trial(cell("movement")), place)
        for module in run.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run.network.encoder.config._attn_implementation = "eager"
        for layer in run.network.encoder.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        run.steps = 4
        ((_, _, loss),) = fit(run, Frozen(None, {}, torch.zeros(1)))
        scores = torch.cat([score.flatten() for score in run.masked.scores.values()])
        found.append((loss, scores, evaluate(run, run.masked.level)[0]))
    (ours, mine, judged), (loss, scores, again) = found
    assert loss == pytest.approx(ours, rel=1e-5) and again == judged
    assert torch.allclose(mine, scores, rtol=1e-3, atol=1e-4)
    assert planner.trial(cell("movement")).id != one.trial(cell("movement")).id


def test_the_longest_trials_start_first(planner):
    cells = [cell("smp_l"), cell("movement", given=(("steps", 9000),)), cell("smp_s")]
    jobs = [job for job in planner.jobs(cells) if not job.teaches]
    ordered = [job.trial.method for job in longest_first(jobs, planner)]
    assert ordered == ["movement", "smp_l", "smp_s"]


def test_seeds_are_paired_between_methods(planner, place, monkeypatch):
    """Data order, dropout and the head's start depend on (task, seed) alone."""
    seen = {}
    for method in ("dense", "magnitude", "movement", "random"):
        run = build(planner.trial(cell(method)), place)
        head = run.network.head.classifier.weight.detach().clone()
        rows, zeros = watch(run)
        run.steps = 3
        list(fit(run, Frozen(None, {}, torch.zeros(1))))
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


def test_masks_stand_through_an_evaluation(planner, place):
    run = build(planner.trial(cell("movement")), place)
    calls = []
    run.method = replace(
        run.method, mask=lambda s, level: calls.append(level) or topk_local(s, level)
    )
    run.masked.method = run.method
    for step, level, _ in fit(run, Frozen(None, {}, torch.zeros(1))):
        before = len(calls)
        evaluate(run, level)
        assert len(calls) == before == step + 1
    assert calls[0] == 1.0 and calls[-1] == 0.1


def test_measured_remaining_weights_are_those_of_the_target(planner, place):
    for density in (0.5, 0.1):
        result = run_trial(planner.trial(cell("smp_l", density)), place)
        for name, total in result.remaining["total"].items():
            assert result.remaining["kept"][name] == int(density * total)


def test_parameters(planner, place):
    """Counted by another route, from the configuration: 2 layers, H = 32, I = 64, vocabulary 21."""
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    biases = 2 * (4 * 32 + 64 + 32)
    norms, pooler, head = 2 * 4 * 32, 32 * 32 + 32, 2 * 32 + 2
    embeddings = 21 * 32 + 64 * 32 + 2 * 32 + 2 * 32
    got = {
        m: run_trial(planner.trial(cell(m)), place).parameters
        for m in ("dense", "movement", "smp_l")
    }
    assert got["dense"]["trainable"] == matrices + biases + norms + pooler + head + embeddings
    assert got["dense"]["new"] == got["dense"]["trainable"] and got["dense"]["mask_bits"] == 0
    assert got["movement"]["trainable"] == 2 * matrices + biases + norms + pooler + head
    kept = 2 * (4 * int(0.1 * 1024) + 2 * int(0.1 * 2048))
    assert got["movement"]["new"] == kept + biases + norms + pooler + head + matrices // 32
    assert got["smp_l"]["trainable"] == matrices
    assert got["smp_l"]["new"] == matrices // 32
    assert got["smp_l"]["artifact_bytes"] == matrices // 8


def test_the_rate_rises_and_falls():
    assert [rate(t, 10, 0.2) for t in (0, 1, 2, 6, 9)] == [0, 0.5, 1, 0.5, 0.125]
    assert rate(0, 10, 0.0) == 1.0
    assert rate(73631, 73632, 0.0) < 1e-3


def test_steps_are_those_that_are_taken(planner, place):
    trial = planner.trial(cell("dense"))
    assert recipe_steps(trial.train, 48) == 3 * 2
    result = run_trial(trial, place)
    assert result.steps == {"taken": 6, "planned": 6, "recipe": 6}


def test_a_density_of_one_is_the_same_in_every_spelling(planner):
    jobs = planner.jobs([cell("dense", 1), cell("movement", distill=True)])
    assert [job.trial.method for job in jobs] == ["dense", "movement"]


def test_distillation_needs_the_loss_that_it_is_mixed_with():
    own = Method(losses=(LossTerm(lambda step: 2 * task_loss(step)),))
    with pytest.raises(ConfigError, match=r"none of the method's losses is zoo\.losses\.task_loss"):
        with_distillation(own, task_weight=0.5, teacher_weight=0.5, temperature=2.0)


def test_students_learn_from_the_dense_trial_of_their_seed(planner, place):
    jobs = planner.jobs([cell("smp_l", distill=True), cell("cap_lite")])
    assert [job.trial.method for job in jobs] == ["dense", "smp_l", "cap_lite"]
    assert [job.teaches for job in jobs] == [True, False, False]
    teacher, student, contrasted = (job.trial for job in jobs)
    assert student.teacher == contrasted.teacher == teacher.id
    with pytest.raises(TrialError, match="left no outputs"):
        run_trial(student, place)
    run_trial(teacher, replace(place, keep_outputs=True))
    result = run_trial(student, place)
    assert result.status == "ok" and result.metrics["acc"] is not None
    assert run_trial(contrasted, place).status == "ok"


def test_cap_lite_without_its_losses_is_movement_with_distillation_bit_for_bit(planner, place):
    none = (("unsupervised", 0.0), ("supervised", 0.0))
    teacher, plain = planner.jobs([cell("movement", distill=True)])
    *_, bare = planner.jobs([cell("cap_lite", distill=True, given=none)])
    run_trial(teacher.trial, replace(place, keep_outputs=True))
    first, second = run_trial(plain.trial, place), run_trial(bare.trial, place)
    assert first.digests == second.digests and first.metrics == second.metrics
    assert [point["loss"] for point in first.curve] == [point["loss"] for point in second.curve]


def test_kept_logits_are_those_of_a_teacher_forward(planner, place):
    trial = planner.trial(cell("dense"))
    run = build(trial, place)
    list(fit(run, Frozen(None, {}, torch.zeros(1))))
    leave_outputs(Path(place.cache), trial.id, run.network, run.task, run.data.train)
    kept = load_outputs(Path(place.cache), trial.id, run.task)
    with pytest.raises(TrialError, match=r"classes \['negative', 'positive'\], the task \['p"):
        turned = replace(run.task, labels=run.task.labels[::-1])
        load_outputs(Path(place.cache), trial.id, turned)
    batch = collate(run.data.train, [3, 40, 7], 0, run.device)
    run.network.eval()
    with torch.no_grad():
        logits, representation = run.network(batch)
    assert torch.allclose(teacher_logits(kept["logits"], run.data.train, batch), logits, atol=1e-6)
    unit = torch.nn.functional.normalize(representation, dim=-1).numpy()
    assert np.allclose(kept["representations"][[3, 40, 7]], unit, atol=1e-3)
    assert np.allclose(outputs(run.network, run.data.train)["logits"], kept["logits"])


def encoded(lengths: list[int]) -> Encoded:
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(1, bounds[-1] + 1, dtype=np.int32)
    return Encoded(tokens, np.ones(bounds[-1], np.uint8), bounds, np.arange(len(lengths)))


def test_batches_are_padded_to_their_longest():
    data = encoded([3, 1, 2, 5])
    batch = collate(data, np.array([2, 0]), 0, torch.device("cpu"))
    assert batch.tokens.tolist() == [[5, 6, 0], [1, 2, 3]]
    assert batch.attention.tolist() == [[True, True, False], [True, True, True]]
    assert batch.types.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.labels.tolist() == [2, 0]


def test_span_logits_of_a_teacher_are_padded_as_the_students():
    data = replace(encoded([3, 1, 2]), labels=np.zeros((3, 2), np.int64))
    logits = np.arange(12, dtype=np.float32).reshape(6, 2)
    batch = collate(data, np.array([1, 0]), 0, torch.device("cpu"))
    got = teacher_logits(logits, data, batch)
    assert got[0, 0].tolist() == [6, 7] and got[0, 1].tolist() == [-1e4, -1e4]
    assert got[1].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_an_epoch_sees_every_example_once():
    rows = shuffled(10, 4, seed=1)
    first = np.concatenate([next(rows) for _ in range(3)])
    second = np.concatenate([next(rows) for _ in range(3)])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    again = shuffled(10, 4, seed=1)
    assert np.concatenate([next(again) for _ in range(3)]).tolist() == first.tolist()


def test_evaluation_goes_by_length_and_misses_none():
    data = encoded([3, 1, 2, 5, 1])
    assert [rows.tolist() for rows in by_length(data, 2)] == [[1, 4], [2, 0], [3]]


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_sketches_agree_as_much_as_their_masks(density):
    """Against the Jaccard index of the masks themselves, for masks that share a part."""
    from leaderboard.compare import agreement
    from tests.helpers import a_result

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


def test_bits_are_packed_with_their_number():
    assert pack_bits(np.array([True, False, True])) == "3:oA=="


def test_data_that_changed_since_the_plan_is_noticed(planner, place):
    trial = replace(planner.trial(cell("dense")), data_sha="0" * 64)
    with pytest.raises(TrialError, match="changed since the run was planned"):
        build(trial, place)


@pytest.mark.parametrize("most", [1e-3, 1.0, 1e3])
def test_clipping_is_torchs(most):
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
