"""Super tickets: importances by gates, what goes at each level, and what trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from methods.supertickets import (
    Ranked,
    gone_at,
    highest_go,
    lowest_go,
    mean_importance,
    released_importance,
    sizes_at_positions,
)
from tests.helpers import in_double
from zoo import (
    Cell,
)
from zoo.engine.build import build
from zoo.engine.frozen import load_frozen
from zoo.engine.gate_gradients import drawn, gate_rows, read_batches
from zoo.engine.train import run_trial
from zoo.engine.trainer import Trainer
from zoo.inputs.batches import collate
from zoo.registry import methods


def test_pitfall_36_and_66_sizes_are_taken_at_each_position():
    """Outputs (1, 2) and (3, 1) with gradients (.5, -1) and (1, .5): 1.5 + 3.5, not 2, nor 6."""
    outputs = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    gradients = torch.tensor([[0.5, -1.0], [1.0, 0.5]])
    products = (outputs * gradients).sum(-1)[None, :, None]
    assert sizes_at_positions(products, torch.ones(1, 2)).tolist() == [[5.0]]
    one = torch.tensor([[[1.0], [-1.0]]])
    assert sizes_at_positions(one, torch.ones(1, 2)).tolist() == [[2.0]]


def test_pitfall_67_gradients_that_are_never_cleared_turn_the_ranking():
    a, b = (torch.tensor([[x] for x in row]) for row in ([3.0, 1.0, 2.0], [1.0, 2.0, 4.0]))
    assert mean_importance(a) == 2 < mean_importance(b)
    assert mean_importance(b).item() == pytest.approx(7 / 3)
    assert released_importance(a).item() == pytest.approx(13 / 3)
    assert released_importance(b).item() == pytest.approx(11 / 3)


def test_pitfall_37_and_68_what_goes_from_bert_at_each_level():
    """Every layer keeps a head; level 8 leaves 44.87 % of the whole model, level 6 58.70 %."""
    draw = torch.Generator().manual_seed(0)
    for ticket in ("winning", "random"):
        mask = methods["supertickets"].make(0.2, ticket=ticket).mask
        for level, left in ((6, 0.5870), (8, 0.4487)):
            rows = {f"layer.{i}.heads": torch.rand(1, 12, generator=draw) for i in range(12)}
            rows |= {f"layer.{i}.feed_forward": torch.rand(1, 1, generator=draw) for i in range(12)}
            if ticket == "random":  # scores, not rows of batches
                rows = {name: row[0] for name, row in rows.items()}
            kept = mask(rows, 1 - level / 10)
            heads = torch.stack([m for n, m in kept.items() if n.endswith("heads")])
            blocks = sum(int(m.sum()) for n, m in kept.items() if n.endswith("feed_forward"))
            assert (heads.sum(1) >= 1).all()
            gone = (196_608 * int((~heads).sum()) + 4_718_592 * (12 - blocks)) / 109_482_240
            assert 1 - gone == pytest.approx(left, abs=5e-5)
    assert [gone_at(1 - k / 10, 384) for k in (1, 8)] == [38, 307]


def test_pitfall_69_a_losing_ticket_protects_the_lowest_head():
    rows = {"layer.0.heads": torch.tensor([[0.9, 0.1, 0.5]])}
    rows |= {"layer.1.heads": torch.tensor([[0.2, 0.3, 0.8]])}
    for go, gone in ((lowest_go, [(0, 1), (1, 0), (1, 1)]), (highest_go, [(0, 0), (0, 2), (1, 2)])):
        masks = Ranked(mean_importance, go)(rows, 0.5)
        found = [(int(n[6]), i) for n, m in masks.items() for i, kept in enumerate(m) if not kept]
        assert sorted(found) == gone


def test_rows_of_gates_are_autograds_derivatives_on_two_layers(planner, resources):
    """Against gates that multiply in a forward pass of one example at a time."""
    (*_, job) = planner.jobs([Cell("supertickets", "sst2", 0.5, False, 0, (("examples", 7),))])
    run = in_double(build(job.trial, resources))
    run.network.eval()
    run.masked.go_on(0)
    calibration = replace(run.method.calibration, batch=3)
    with run.masked.evaluating():
        found = gate_rows(run, calibration, read_batches(run, calibration))
    rows = drawn(run, calibration)
    for name, group in run.masked.groups.groups.items():
        module = run.masked.layers[group.parts[-1].name]
        sizes = []
        for row in rows:
            batch = collate(run.data.train, [row], run.network.pad, run.device, packs=False)
            gate = torch.ones(
                batch.tokens.shape[1], group.units, dtype=torch.float64, requires_grad=True
            )
            wide = lambda x, gate=gate: x * gate.repeat_interleave(x.shape[-1] // gate.shape[1], 1)  # noqa: E731
            if name.endswith("heads"):
                handle = module.register_forward_pre_hook(lambda _, a, wide=wide: (wide(a[0]),))
            else:
                handle = module.register_forward_hook(lambda _, a, out, wide=wide: wide(out))
            loss = run.task.output.loss(run.network(batch)[0], batch.labels)
            handle.remove()
            sizes.append(torch.autograd.grad(loss, gate)[0].abs().sum(0))
        expected = torch.stack(
            [torch.stack(part).mean(0) for part in (sizes[:3], sizes[3:6], sizes[6:])]
        )
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-15)


def test_a_ticket_trains_from_the_checkpoint_not_from_the_dense_trial(planner, resources):
    """Weights that stay are the checkpoint's, bit for bit, those that go are 0; the head is fresh."""
    cell = Cell("supertickets", "sst2", 0.5, False, 0, (("examples", 8),))
    dense, job = planner.jobs([cell])
    run_trial(dense.trial, replace(resources, keep_outputs=True))
    new = build(job.trial, resources)
    before = {n: p.clone() for n, p in new.network.named_parameters()}
    trainer = Trainer(new, load_frozen(new, Path(resources.cache)))
    masks = {f"encoder.{n}.weight": x.mask for n, x in new.masked.layers.items()}
    masks |= {
        f"encoder.{n}.bias": x.mask.any(1)
        for n, x in new.masked.layers.items()
        if x.bias_gate is not None
    }
    assert not all(mask.all() for mask in masks.values())
    for name, parameter in trainer.run.network.named_parameters():
        assert torch.equal(parameter, before[name] * masks.get(name, 1)), name
