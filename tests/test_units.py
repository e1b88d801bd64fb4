"""Units: what stays or goes together, in every architecture, and how their scores learn."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from methods.kwon import of_batches
from methods.structured import mean_by_kind, movement_blocks
from methods.taylor import across_layers, sizes_of_examples
from tests.helpers import save_checkpoint
from tests.kinds import COMPACTS, HEADS, KINDS, TOKENS, fresh, states
from zoo import (
    Cell,
    ConfigError,
    Constant,
    Gate,
    GateCalibration,
    MaskedModel,
    Matrix,
    Method,
    Part,
    Penalty,
    Score,
    TrialError,
    UnitGroup,
    attention_heads,
    attention_sublayers,
    blocks,
    blocks_and_neurons,
    dimensions_and_neurons,
    export,
    feed_forward_sublayers,
    hard,
    hard_concrete,
    head_dimensions,
    heads_and_feed_forward,
    heads_and_neurons,
    learned,
    learned_from,
    magnitude,
    mean_sigmoid_gradient,
    neurons,
    stored,
    straight_through,
    topk_in_type,
    topk_local,
    whole_columns,
    whole_layers,
    whole_rows,
    with_allocation,
    with_pattern,
    zeros,
)
from zoo.engine.build import build
from zoo.engine.compact import compact, compact_layers
from zoo.engine.measure import parameters
from zoo.engine.rehearse import Rehearsed
from zoo.inputs.kinds import architecture_of
from zoo.registry import methods


def masks_of(masked: MaskedModel) -> dict[str, torch.Tensor]:
    """The mask of each group, by what its first part keeps."""
    firsts = {name: (group, group.parts[0]) for name, group in masked.groups.groups.items()}
    return {
        name: part.gather(masked.layers[part.name].mask)[:, 0].reshape(group.shape)
        for name, (group, part) in firsts.items()
    }


def shut(masked: MaskedModel, gone: dict[str, list[int]]) -> None:
    """Mask these units, by the end of their group's name, in every layer."""
    masks = {}
    for name, group in masked.groups.groups.items():
        masks[name] = torch.ones(group.units, dtype=torch.bool)
        masks[name][gone.get(name.rpartition(".")[2], [])] = False
        masks[name] = masks[name].view(group.shape)
    for name, mask in masked.groups.spread(masks).items():
        masked.put(name, mask, masked.layers[name].weight.detach())
    masked.calibrated = True
    masked.go_on(0)


def by_hand(encoder: Any, gone: dict[str, list[int]]) -> Any:
    """The encoder with zeros in rows and columns of these heads and neurons, or in what sub-layers
    put out."""
    architecture = architecture_of(encoder)
    for layer in architecture.layers_of(encoder):
        for name, role in {"attention": "O", "feed_forward": "D"}.items():
            if name in gone or "whole" in gone:
                module = layer.get_submodule(architecture.roles[role])
                module.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        roles = {r: layer.get_submodule(p).weight.data for r, p in architecture.roles.items()}
        width = roles["O"].shape[1]
        size = width // HEADS
        for head in gone.get("heads", []):
            at = slice(head * size, head * size + size)
            roles["O"][:, at] = 0
            for role in roles.keys() & {"Q", "K", "V"}:
                roles[role][at] = 0
            if "QKV" in roles:
                roles["QKV"].view(3, HEADS, size, -1)[:, head] = 0
        for neuron in gone.get("neurons", []):
            many = roles["D"].shape[1]
            roles["D"][:, neuron] = 0
            for row in range(neuron, len(roles["U"]), many):
                roles["U"][row] = 0
    return encoder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("units", "gone"),
    [
        (attention_heads, {"heads": [1]}),
        (neurons, {"neurons": [0, 3, 7]}),
        (heads_and_neurons, {"heads": [0], "neurons": [1, 2]}),
        (attention_sublayers, {"attention": [0]}),
        (feed_forward_sublayers, {"feed_forward": [0]}),
        (heads_and_feed_forward, {"heads": [2], "feed_forward": [0]}),
        (whole_layers, {"whole": [0]}),
    ],
)
def test_a_masked_unit_is_zeros_in_its_rows_and_columns(encoders, kind, units, gone):
    """Bit for bit, and removed from the compact model to 1e-12 where there is one."""
    method = Method(score=magnitude, level=Constant(1.0), units=units)
    masked = MaskedModel(fresh(encoders, kind), method)
    shut(masked, gone)
    with masked.evaluating():
        pruned = states(masked.encoder)
    expected = states(by_hand(fresh(encoders, kind), gone))
    assert torch.equal(pruned, expected) and not torch.allclose(pruned, states(encoders[kind]))
    if kind not in COMPACTS:
        return
    small = compact(fresh(encoders, kind), export(masked.encoder, masked))
    assert (states(small) - pruned).abs().max() < 1e-12
    for layer in compact_layers(small):
        heads = HEADS - len(gone.get("heads", []))
        heads = 0 if gone.keys() & {"attention", "whole"} else heads
        assert layer.heads == heads
        many = architecture_of(encoders[kind]).read_sizes(encoders[kind].config.to_dict())
        left = many.intermediate - len(gone.get("neurons", []))
        assert len(layer.inner.weight) == (0 if gone.keys() & {"feed_forward", "whole"} else left)


@pytest.mark.parametrize("kind", KINDS)
def test_every_unit_of_every_kind_holds_weights_of_its_own(encoders, kind):
    """Each kind of units covers its matrices once, whatever their number and shapes."""
    kinds = [attention_heads, neurons, whole_rows, whole_columns, blocks(4), blocks_and_neurons(4)]
    kinds += [attention_sublayers, feed_forward_sublayers, heads_and_feed_forward, whole_layers]
    if kind == "modernbert":
        with pytest.raises(ConfigError, match="holds Q, K and V"):
            MaskedModel(fresh(encoders, kind), Method(score=magnitude, units=head_dimensions))
    else:
        kinds += [head_dimensions, dimensions_and_neurons]
    for units in kinds:
        masked = MaskedModel(fresh(encoders, kind), Method(score=magnitude, units=units))
        seen = {name: torch.zeros_like(x.weight) for name, x in masked.layers.items()}
        for group in masked.groups.groups.values():
            for part in group.parts:
                for unit in range(group.units):
                    one = torch.zeros(group.units)
                    one[unit] = 1
                    seen[part.name] += part.spread(one)
                    alone = part.gather(part.spread(one))
                    assert alone[unit].all() and alone.sum() == alone[unit].numel()
        covered = {part.name for g in masked.groups.groups.values() for part in g.parts}
        assert all((seen[name] == (name in covered)).all() for name in seen)


def test_pitfall_84_the_gradient_of_a_units_score_is_the_sum_over_its_weights():
    w, g = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    assert Part("Q", (2, 2), 2, 2).sums(g * w).tolist() == [0.5]
    up, down = Part("U", (1, 2), 1, 2), Part("D", (2, 1), 2, 1)
    row = up.sums(torch.tensor([[1.0, 2.0]]) * torch.tensor([[0.5, 1.0]]))
    column = down.sums(torch.tensor([[3.0], [-1.0]]) * torch.tensor([[1.0], [2.0]]))
    assert (row + column).tolist() == [3.5]


def test_pitfall_84_what_is_kept_of_bert_at_3_percent():
    with torch.device("meta"):
        encoder = BertModel(BertConfig())
    method = methods["smp_structured"].make(
        0.03, stop=0.5, penalty=1.0, head="label_words", penalty_stop=1.0
    )
    shapes = {n: g.shape for n, g in MaskedModel(encoder, method).groups.groups.items()}
    assert set(shapes.values()) == {(24, 24), (3072,)} and len(shapes) == 60
    masks = topk_local({name: torch.zeros(shape) for name, shape in shapes.items()}, 0.03)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert set(kept.values()) == {17, 92}
    weights = sum(n * (1536 if name.endswith("neurons") else 1024) for name, n in kept.items())
    assert weights == 2_531_328
    assert sum(math.prod(shape) for shape in shapes.values()) == 64_512


@pytest.mark.parametrize(
    "units", [heads_and_neurons, heads_and_feed_forward, attention_sublayers, whole_layers]
)
def test_scores_of_units_learn_by_the_sum_of_their_weights_gradients(encoders, units):
    """Against autograd through M + S - S.detach(), masked units and biases that go included."""
    method = Method(
        score=learned,
        mask=lambda scores, level: {
            name: torch.arange(s.numel()).view(s.shape) < s.numel() // 2
            for name, s in scores.items()
        },
        level=Constant(0.5),
        gate=straight_through,
        units=units,
    )
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masked.advance(0, 1)
    masked.encoder(TOKENS).last_hidden_state.pow(3).sum().backward()
    masked.backward()
    groups = masked.groups.groups
    other, leaves, state = fresh(encoders, "bert"), {}, {}
    for name, group in groups.items():
        leaves[name] = torch.zeros(group.shape, dtype=torch.float64, requires_grad=True)
        mask = masks_of(masked)[name]
        for part in group.parts:
            own = other.get_submodule(part.name).weight.detach()
            gate = mask + leaves[name] - leaves[name].detach()
            state[f"{part.name}.weight"] = own * part.spread(gate)
            if part.closes:
                state[f"{part.name}.bias"] = other.get_submodule(part.name).bias.detach() * gate
    out = torch.func.functional_call(other, state, (TOKENS,)).last_hidden_state
    out.pow(3).sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(masked.groups.stored[name].grad, leaf.grad, rtol=1e-9, atol=0)
        assert (leaf.grad != 0).all()


EVERY = (attention_heads, attention_sublayers, feed_forward_sublayers, heads_and_feed_forward)
EVERY += (head_dimensions, neurons, heads_and_neurons, dimensions_and_neurons, whole_rows)
EVERY += (whole_columns, whole_layers, blocks(4), blocks_and_neurons(4))


def of_one_score(score: torch.Tensor, tensors: int) -> torch.Tensor:
    """A gradient of a penalty that reads how many dimensions and entries its score has."""
    assert score.ndim in (1, 2)
    return score.square().sum() * score.cos() / tensors


def one_by_one(masked: MaskedModel, name: str) -> torch.Tensor:
    """The gradient of the scores of a group, part by part and from one score tensor."""
    group, score = masked.groups.groups[name], masked.stored_scores[name].detach()
    penalty = masked.method.penalty
    found = masked.penalty_weight * penalty.gradient(score, len(masked.stored_scores))
    for part in group.parts:
        layer = masked.layers[part.name]
        found += part.gather(layer.working.grad * layer.weight.detach()).sum(1).view(group.shape)
        if layer.bias_gate is not None:
            found += layer.bias_gate.grad.view(*group.shape, -1).sum(-1)
    return found


@pytest.mark.parametrize("units", EVERY)
@pytest.mark.parametrize("gradient", [mean_sigmoid_gradient, of_one_score])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_groups_that_are_alike_are_taken_at_once(encoders, kind, units, gradient):
    """As a GPU takes them: the masks of one by one bit for bit, gradients to rounding of sums."""
    if kind == "modernbert" and units in (head_dimensions, dimensions_and_neurons):
        pytest.skip("holds Q, K and V in one matrix")
    penalty = Penalty(lambda scores: torch.zeros(()), gradient, Constant(1000.0))
    method = Method(
        score=Score(
            stored, init=lambda like, draw: torch.randn(like.shape, generator=draw).to(like)
        ),
        mask=topk_local,
        level=Constant(0.5),
        gate=straight_through,
        units=units,
        penalty=penalty,
    )
    ones = [MaskedModel(fresh(encoders, kind), method, torch.Generator().manual_seed(1))]
    ones.append(MaskedModel(fresh(encoders, kind), method, torch.Generator().manual_seed(1)))
    assert max(map(len, ones[1].groups.alike)) > 1 and not ones[0].groups.at_once
    ones[1].groups.at_once = True
    for masked in ones:
        masked.advance(0, 1)
        masked.encoder(TOKENS).last_hidden_state.pow(3).sum().backward()
        expected = {name: one_by_one(masked, name) for name in masked.stored_scores}
        masked.backward()
        for name, score in masked.stored_scores.items():
            torch.testing.assert_close(score.grad, expected[name], rtol=1e-9, atol=1e-12)
    for one, other in zip(*(masked.layers.values() for masked in ones), strict=True):
        assert torch.equal(one.mask, other.mask) and other.mask.is_contiguous()
        assert torch.equal(one.weight.grad, other.weight.grad)
        assert one.bias_gate is None or one.bias_gate.grad is other.bias_gate.grad is None


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_the_penalty_of_blocks_and_neurons_is_autograds_derivative(encoders, kind):
    """Half of each kind, also where a layer has two tensors of blocks and not four."""
    method = movement_blocks(0.5, penalty=30.0, start=0.1, stop=0.5)
    masked = MaskedModel(fresh(encoders, kind), method)
    leaves = {n: s.detach().clone().requires_grad_() for n, s in masked.stored_scores.items()}
    mean_by_kind(leaves).backward()
    masked.penalty_weight = 1.0
    for name, score in masked.stored_scores.items():
        found = masked._with_penalty(torch.zeros_like(score), score)
        torch.testing.assert_close(found, leaves[name].grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 1.0])
def test_as_many_units_stay_as_the_density_says(encoders, density):
    method = Method(score=magnitude, level=Constant(density), units=heads_and_neurons)
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masked.advance(0, 1)
    for name, mask in masks_of(masked).items():
        assert int(mask.sum()) == max(1, int(density * mask.numel())), name
        score = masked.scores[name]
        assert density == 1.0 or score[mask].min() >= score[~mask].max()
        parts = masked.groups.groups[name].parts
        squares = sum(
            part.gather(masked.layers[part.name].weight.detach()).square().sum(1) for part in parts
        )
        torch.testing.assert_close(score, squares.sqrt().view(score.shape))


def test_matrices_without_units_are_kept_whole(encoders):
    method = Method(score=magnitude, level=Constant(0.5), units=neurons)
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masked.advance(0, 1)
    kept, total = masked.remaining().kept, masked.remaining().total
    for name in kept:
        assert kept[name] == total[name] // (1 if "attention" in name else 2)


WRONG = {
    "another matrix": lambda m, h: {"a": UnitGroup((4,), (Part("nope", (4, 4), 1, 4),))},
    "another shape": lambda m, h: {"a": UnitGroup((4,), (Part(m[0].name, (4, 4), 1, 4),))},
    "holds already": lambda m, h: {
        **whole_rows(m, h),
        **{f"b.{name}": group for name, group in whole_columns(m, h).items()},
    },
    "no part": lambda m, h: {"a": UnitGroup((4,), ())},
    "at least one, got {}": lambda m, h: {},
    "at least one, got None": lambda m, h: None,
    "must be a UnitGroup": lambda m, h: {"a": 3},
}
"""Functions of units that are wrong, by what is said of them."""
SAID = {"another matrix": "holds nope, which is no prunable", "another shape": "for 4 x 4, it is"}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_functions_of_units_are_named(encoders, wrong):
    method = Method(score=magnitude, units=WRONG[wrong])
    with pytest.raises(ConfigError, match=SAID.get(wrong, wrong)):
        MaskedModel(fresh(encoders, "bert"), method)


def test_wrong_masks_and_factors_of_units_are_named(encoders):
    method = Method(score=magnitude, mask=lambda s, d: {}, level=Constant(0.5), units=neurons)
    with pytest.raises(TrialError, match=r"there is none for encoder\.layer\.0\.neurons"):
        MaskedModel(fresh(encoders, "bert"), method).advance(0, 1)
    masked = MaskedModel(fresh(encoders, "bert"), methods["coreset"].make(0.5))
    for wrong in (None, (None,), (torch.ones(2), None)):
        with pytest.raises(TrialError, match="must return, for each of the 2 parts of"):
            masked.groups.scale("encoder.layer.0.neurons", wrong)


def test_what_does_not_fit_a_model_is_said_before_any_trial(planner, tmp_path):
    folder = save_checkpoint(tmp_path / "modern", kind="modernbert")
    other = replace(planner, model=str(folder))
    for name, given, said in (
        ("coreset", (), "holds Q, K and V"),
        ("drop_layers", (("rule", "top"),), "choose the rule bottom"),
        ("smp_structured", (("block", 7),), "cannot cover; choose a size that divides both"),
        ("smp_structured", (("block", 0),), "whole number of weights, got 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            other.plan(Cell(name, "sst2", 0.5, False, 0, given))


def test_units_need_a_bit_each_and_are_gone_after_folding(planner, resources, encoders):
    (job,) = planner.jobs([Cell("smp_structured", "sst2", 0.5, False, 0, (("block", 8),))])
    run = build(job.trial, resources)
    groups = run.masked.groups.groups.values()
    found = parameters(run.network, run.masked)
    assert found.mask_bits == sum(group.units for group in groups) < 1000
    method = Method(score=magnitude, level=Constant(0.5), units=neurons)
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masked.advance(0, 1)
    masked.check_budget(0.5)
    masked.fold()
    assert masked.groups is None and masked.trained_scores == []
    assert 0.5 < masked.remaining().density < 1


def test_a_single_head_owns_no_bias_of_its_output():
    one = [Matrix(f"layer.0.{role}", role, (8, 8)) for role in "QKVO"]
    parts = attention_heads(one, 1)["layer.0.heads"].parts
    assert [part.biased for part in parts] == [True, True, True, False]


def test_what_units_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="units need a gate that is the mask"):
        Method(score=magnitude, units=neurons, gate=Gate(value=lambda s, m, n: s * m))
    with pytest.raises(ConfigError, match="as they are stored"):
        Method(score=Score(read=lambda layer: layer.score, init=zeros), units=neurons)
    with pytest.raises(ConfigError, match="units have no inputs"):
        learned_from("kaiming", 0.0).init(torch.zeros(4), torch.Generator())
    with pytest.raises(ConfigError, match="examples of a calibration must be at least 1"):
        methods["taylor"].make(0.5, examples=0)
    square = [Matrix("layer.0.Q", "Q", (6, 4))]
    with pytest.raises(ConfigError, match=r"layer\.0\.Q is 6 x 4, which units of 4 x 4 weights"):
        blocks(4)(square, 1)
    with pytest.raises(ConfigError, match="units need a gate that is the mask"):
        Method(score=learned, gate=hard_concrete, units=neurons)
    with pytest.raises(ConfigError, match="units need a score"):
        Method(units=neurons)
    method = Method(score=magnitude, level=Constant(0.5), units=neurons)
    with pytest.raises(ConfigError, match="prunes whole units"):
        with_pattern(method, "2:4")
    with pytest.raises(ConfigError, match="prunes whole units"):
        with_allocation(method, "erk")
    with pytest.raises(ConfigError, match="only by their weights or their gates"):
        replace(method, calibration=methods["wanda"].make(0.5).calibration)


def test_pitfall_66_taylor_adds_up_sizes_of_single_examples():
    """Gradients of +1 and -1 are an importance of 2; they would be 0 in one batch. Those of one
    example are added up over its positions first."""
    products = torch.tensor([[[1.5], [-0.5]], [[-1.0], [0.0]]])
    assert sizes_of_examples(products, torch.ones(2, 2)).tolist() == [[2.0]]


def test_importances_are_compared_across_layers_after_a_division_by_their_norm():
    scores = {"layer.0.heads": torch.tensor([[900.0, 50.0], [0.0, 50.0]])}
    scores |= {"layer.1.heads": torch.tensor([[4.0, 3.0]]), "layer.1.neurons": torch.ones(1, 4)}
    masks = across_layers(scores, 0.5)
    assert masks["layer.0.heads"].tolist() == [True, False]
    assert masks["layer.1.heads"].tolist() == [True, False]
    assert masks["layer.1.neurons"].tolist() == [True, True, False, False]


def test_whole_layers_go_where_all_of_them_are_ranked_together(encoders):
    """Each is a group of its own, of which `topk_local` keeps its only unit."""
    for mask, left in ((topk_in_type, [0.0, 1.0]), (topk_local, [1.0, 1.0])):
        method = Method(score=learned, mask=mask, level=Constant(0.5), gate=straight_through)
        masked = MaskedModel(fresh(encoders, "bert"), replace(method, units=whole_layers))
        for own, score in zip(masked.stored_scores.values(), (1.0, 2.0), strict=True):
            own.data.fill_(score)
        masked.advance(0, 1)
        found = [float(x.mask.float().mean()) for x in masked.layers.values()]
        assert found == [kept for kept in left for _ in range(6)]
        assert masked.remaining().density == sum(left) / 2


def test_units_that_put_out_at_two_places_have_no_gate():
    """Whole layers; and units whose last part closes nothing, where another one does."""
    shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    matrices = tuple(Matrix(f"layer.0.{role}", role, shape) for role, shape in shapes.items())
    found = Rehearsed(matrices, layers=1, heads=2, config=BertConfig())
    reads = GateCalibration(of_batches)
    method = Method(score=magnitude, units=whole_layers, calibration=reads, gate=hard)
    with pytest.raises(ConfigError, match=r"units of layer\.0\.D have no output of their own"):
        found.check(method)
    for units in (heads_and_neurons, heads_and_feed_forward, attention_sublayers):
        found.check(replace(method, units=units))
    output, down = (Part(f"layer.0.{role}", shapes[role], *shapes[role]) for role in "OD")
    assert UnitGroup((1,), (output, down)).gated == "input"
    with pytest.raises(ConfigError, match=r"units of layer\.0\.D have no output of their own"):
        _ = UnitGroup((1,), (replace(output, biased=True, closes=True), down)).gated
