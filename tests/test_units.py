"""Units: what stays or goes together, in every architecture, and how their scores learn."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

from methods.coreset import CHANCES, Draw, drawn_counts, factors, norms, products_of_norms
from methods.kwon import ByBudget, Cost, fisher, of_batches, rearranged, search
from methods.structured import mean_by_kind, movement_blocks
from methods.supertickets import (
    Ranked,
    gone_at,
    highest_go,
    lowest_go,
    mean_importance,
    released_importance,
    sizes_at_positions,
)
from methods.taylor import across_layers, sizes_of_examples
from tests.helpers import in_double, save_checkpoint
from zoo import (
    Cell,
    ConfigError,
    Constant,
    Gate,
    GateCalibration,
    Held,
    MaskedModel,
    Matrix,
    Method,
    Part,
    Penalty,
    Rescaling,
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
from zoo.engine.frozen import load_frozen
from zoo.engine.gate_gradients import drawn, gate_rows, read_batches, unit_costs
from zoo.engine.judge import judge
from zoo.engine.measure import parameters
from zoo.engine.rehearse import Rehearsed
from zoo.engine.rescale import _solved, _Sums
from zoo.engine.train import run_trial
from zoo.engine.trainer import Trainer
from zoo.inputs.batches import collate
from zoo.inputs.kinds import architecture_of
from zoo.records.trial import Conditions
from zoo.registry import methods

KINDS = ("bert", "roberta", "distilbert", "electra", "xlm-roberta", "camembert", "mpnet")
KINDS += ("deberta-v2", "modernbert")
COMPACTS = ("bert", "roberta", "distilbert", "electra")
TOKENS = torch.tensor([[2, 9, 12, 8, 3, 5], [2, 15, 13, 7, 5, 3]])
HEADS = 4


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Any]:
    """A random encoder of every kind in float64, with large biases."""
    root, found = tmp_path_factory.mktemp("kinds"), {}
    for kind in KINDS:
        save_checkpoint(root / kind, kind=kind, weight=0.3, bias=1.0)
        found[kind] = AutoModel.from_pretrained(root / kind, dtype=torch.float64).eval()
    return found


def fresh(encoders: dict[str, Any], kind: str) -> Any:
    """A copy of an encoder."""
    same = type(encoders[kind])(encoders[kind].config).double().eval()
    same.load_state_dict(encoders[kind].state_dict())
    return same


def states(encoder: Any) -> torch.Tensor:
    """Hidden states, without gradients."""
    with torch.no_grad():
        return encoder(TOKENS).last_hidden_state


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


# Methods ----------------------------------------------------------------------------------------


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


def held(name: str, *weights: torch.Tensor, bias: torch.Tensor | None = None, seed=0) -> Held:
    """What a score of units reads; the first part has the bias."""
    return Held(name, weights, (bias, *[None] * (len(weights) - 1)), seed)


def test_pitfall_72_biases_count_in_norms():
    one = held("layer.0.value_output", torch.zeros(1, 2, 4), bias=torch.tensor([[[2.0], [0.0]]]))
    assert norms(one, 0).tolist() == [[2.0, 0.0]]


def drawn_at(encoders: dict[str, Any], density: float) -> MaskedModel:
    """BERT with what a coreset keeps."""
    method = methods["coreset"].make(density)
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masks = {
        name: method.calibration.prune(masked.groups.held(name, seed), density)[0]
        for seed, name in enumerate(masked.groups.groups)
    }
    for name, mask in masked.groups.spread(masks).items():
        masked.put(name, mask, masked.layers[name].weight.detach())
    masked.calibrated = True
    masked.go_on(0)
    return masked


def test_pitfall_39_and_72_dimensions_share_their_indices_and_biases_stay(encoders):
    masked = drawn_at(encoders, 0.5)
    own = dict(masked.encoder.named_parameters())
    for name, parameter in encoders["bert"].named_parameters():
        assert not name.endswith("bias") or torch.equal(own[name], parameter)
    for layer in range(2):
        at = f"encoder.layer.{layer}."
        masks = {n: x.mask for n, x in masked.layers.items() if n.startswith(at)}
        q, k, v = (masks[f"{at}attention.self.{n}"].all(1) for n in ("query", "key", "value"))
        o = masks[f"{at}attention.output.dense"].all(0)
        assert torch.equal(q, k) and torch.equal(v, o)
        up, down = masks[f"{at}intermediate.dense"].all(1), masks[f"{at}output.dense"].all(0)
        assert torch.equal(up, down) and up.sum() == len(up) // 2
        for whole in (q, v):
            assert (whole.view(HEADS, -1).sum(1) == len(whole) // HEADS // 2).all()


def test_pitfall_70_a_coreset_at_density_1_changes_nothing(encoders):
    masked = drawn_at(encoders, 1.0)
    assert torch.equal(states(masked.encoder), states(encoders["bert"]))


def test_pitfall_38_units_are_drawn_in_proportion_to_their_chances():
    """Against all orders of two draws without replacement of three: 20,000 draws, four standard
    errors."""
    chance, many = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64), 20_000
    generator = torch.Generator().manual_seed(1)
    counts = sum(drawn_counts(chance, 2, generator, False) for _ in range(many))
    for unit, p in enumerate(chance[0].tolist()):
        others = [x for i, x in enumerate(chance[0].tolist()) if i != unit]
        share = p + sum(x * p / (1 - x) for x in others)
        error = math.sqrt(share * (1 - share) / many)
        assert counts[0, unit].item() / many == pytest.approx(share, abs=4 * error)


def test_pitfall_38_the_unbiased_estimator_is_right_on_average():
    """The mean of Q'K over 100,000 draws, for every entry, within four standard errors."""
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    p = q.norm(dim=1) * k.norm(dim=1)
    p = (p / p.sum()).expand(100_000, -1)
    drawn = drawn_counts(p, 3, generator, True)
    assert (drawn.sum(1) == 3).all()
    scale = factors(drawn, p, 3, "unbiased")
    products = torch.einsum("nd,di,dj->nij", scale, q, k)
    error = products.std(0) / math.sqrt(len(products))
    assert ((products.mean(0) - q.T @ k).abs() < 4 * error).all()


def test_pitfall_70_and_71_factors_by_enumeration():
    p = torch.tensor([0.5, 0.3, 0.2])
    found = factors(torch.ones(3), p, 3, "released")
    assert found.tolist() == pytest.approx([2 / 3, 1.1111, 1.6667], abs=1e-4)
    q, k, p = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, -1, 1]), torch.tensor([2.0, 2, 3]) / 7
    unbiased = released = 0.0
    for i in range(3):
        for j in range(3):
            drawn = torch.zeros(3)
            drawn[i] += 1
            drawn[j] += 1
            value = (factors(drawn, p, 2, "unbiased") * q * k).sum()
            unbiased += float(p[i] * p[j] * value)
            if i != j:
                value = (factors(drawn, p, 2, "released") * q * k).sum()
                released += float(p[i] * p[j] / (1 - p[i]) * value)
    assert unbiased == pytest.approx(3.0, abs=1e-6) and released == pytest.approx(2.7, abs=1e-6)


def test_factors_multiply_the_second_of_a_pair_and_its_bias(encoders):
    """Q's rows with their biases, O's and D's columns; b_O and b_D stay."""
    encoder = fresh(encoders, "bert")
    masked = MaskedModel(encoder, methods["coreset"].make(0.5))
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    with torch.no_grad():
        for name, group in masked.groups.groups.items():
            two = torch.full(group.shape, 2.0)
            masked.groups.scale(name, (None, two))
    scaled = ("query.weight", "query.bias", "attention.output.dense.weight", ".output.dense.weight")
    for name, parameter in encoder.named_parameters():
        factor = 2 if name.endswith(scaled) and "layer." in name else 1
        assert torch.equal(parameter, factor * before[name]), name


def test_a_coreset_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="unknown chances 'l7'"):
        methods["coreset"].make(0.5, chances="l7")
    with pytest.raises(ConfigError, match="attention of a coreset is a fraction above 0, got 3"):
        methods["coreset"].make(0.5, attention=3.0)
    with pytest.raises(ConfigError, match="unknown estimator 'l7'"):
        methods["coreset"].make(0.5, estimator="l7")
    for chances in CHANCES.values():
        for estimator in ("practical", "unbiased", "released"):
            first, second = torch.rand(2, 4, 8), torch.rand(2, 4, 8)
            given = held("layer.0.query_key", first, second)
            mask, (none, factor) = Draw(chances, estimator)(given, 0.5)
            again, _ = Draw(chances, estimator)(given, 0.5)
            assert mask.shape == (2, 4) and torch.equal(mask, again) and none is None
            assert (mask.sum(1) <= 2).all() and (
                estimator == "unbiased" or (mask.sum(1) == 2).all()
            )
            assert (factor is None) == (estimator == "practical")
            assert factor is None or torch.equal(factor > 0, mask)


def test_units_without_a_chance_are_drawn_last_and_scaled_by_nothing():
    first, second = torch.rand(2, 4, 8), torch.rand(2, 4, 8)
    first[0, 1], first[1] = 0, 0
    given = held("layer.0.query_key", first, second)
    for estimator in ("practical", "unbiased", "released"):
        mask, (_, factor) = Draw(products_of_norms, estimator)(given, 0.75)
        assert not mask[0, 1] and mask[1].any() and (estimator == "unbiased" or mask.sum() == 6)
        assert factor is None or factor.isfinite().all()
    whole, (_, factor) = Draw(products_of_norms, "released")(given, 1.0)
    assert whole.all() and factor.isfinite().all() and factor[0, 1] == 0


def test_the_norm_of_a_dimension_is_a_product_of_two():
    first, second = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[6.0, 8.0]]])
    assert products_of_norms(held("layer.0.value_output", first, second)).tolist() == [[50.0]]


@pytest.mark.parametrize("estimator", ["unbiased", "released"])
def test_a_judge_finds_a_coreset_whose_biases_were_scaled(planner, resources, tmp_path, estimator):
    planner = replace(planner, conditions=Conditions(max_steps=4))
    cell = Cell("coreset", "sst2", 0.5, False, 0, (("estimator", estimator), ("steps", 250)))
    dense, job = planner.jobs([cell])
    run_trial(dense.trial, replace(resources, keep_outputs=True))
    resources = replace(resources, handover=str(tmp_path / "files"))
    claim = run_trial(job.trial, resources)
    found = judge(claim, tmp_path / "files", resources)
    assert found.ok and found.judgement.claims == claim.metrics
    kept = [m.kept / m.total for m in found.remaining.matrices.values()]
    assert 0 < min(kept) <= max(kept) <= 0.5


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


GATES = {"layer.0.heads": [5.0, 3.0, 1.0], "layer.0.neurons": [2.0, 2.0, 1.0, 0.5]}
"""Fisher information of units."""


@pytest.mark.parametrize(("budget", "heads", "most"), [(8.0, 1, 10.5), (3.0, 0, 5.0)])
def test_pitfall_60_a_search_stays_within_its_budget(budget, heads, most):
    rows = {name: torch.tensor([own]).sqrt() for name, own in GATES.items()}
    masks = search(rows, Cost(4.0), Cost(1.0), budget / 16)
    assert int(masks["layer.0.heads"].sum()) == heads
    kept = sum(float(torch.tensor(own)[masks[name]].sum()) for name, own in GATES.items())
    assert kept == pytest.approx(most)


def test_pitfall_61_rearrangement_sees_what_units_do_together():
    gradients = torch.tensor([[1.0, 0.0, -1.2], [0.0, 1.1, 0.0]])
    assert rearranged(gradients, 2).tolist() == [False, True, False]
    assert rearranged(gradients, 0).all() and not rearranged(gradients, 3).any()


def test_pitfall_62_gradients_are_those_of_batches():
    products = torch.tensor([[[1.0]], [[-1.0]]])
    assert fisher({"a": of_batches(products, torch.ones(2, 1))})["a"].item() == 0


def test_pitfall_63_scales_are_damped():
    """A^T A = diag(2, 1) and A^T r = (1, .5), r what is missing: 1.4 and 1.25, undamped 1.5."""
    sums = _Sums()
    sums.add(
        torch.tensor([[math.sqrt(2), 0.0], [0.0, 1.0]]), torch.tensor([[math.sqrt(0.5)], [0.5]])
    )
    group = UnitGroup((2,), (Part("D", (1, 2), 1, 1),))
    scales = _solved(sums, torch.ones(1, 2), group, constant=False)
    assert scales.tolist() == pytest.approx([1.4, 1.25])


def test_a_search_is_the_best_of_all_sets_within_the_budget():
    """Over all sets of ten units, and ten budgets."""
    draw = torch.Generator().manual_seed(3)
    costs = {"layer.0.heads": 3.7, "layer.1.heads": 3.7}
    costs |= {"layer.0.neurons": 1.0, "layer.1.neurons": 1.0}
    sizes = {name: 2 if name.endswith("heads") else 3 for name in costs}
    for level in torch.linspace(0.05, 1.0, 10).tolist():
        rows = {name: torch.rand(4, n, generator=draw) for name, n in sizes.items()}
        values = torch.cat([row.double().square().sum(0) for row in rows.values()])
        price = torch.cat(
            [torch.full((n,), costs[name], dtype=torch.float64) for name, n in sizes.items()]
        )
        sets = torch.tensor(list(product((0.0, 1.0), repeat=10))).double()
        within = sets @ price <= level * price.sum() + 1e-9
        best = float((sets @ values)[within].max())
        kept = torch.cat(list(search(rows, Cost(3.7), Cost(1.0), level).values())).double()
        assert float(kept @ price) <= level * float(price.sum()) + 1e-9
        assert float(kept @ values) == pytest.approx(best)


def test_a_search_by_latency_is_the_best_of_all_numbers_of_heads_and_neurons():
    """By times that do not fall below some number of units, and vanish with the last; each pair of
    numbers is priced anew, layer by layer."""
    draw = torch.Generator().manual_seed(5)
    sizes = {"layer.0.heads": 4, "layer.1.heads": 4, "layer.0.neurons": 9, "layer.1.neurons": 9}

    def seconds(name: str, many: int) -> float:
        least, flat, each = (5.0, 2, 1.5) if name.endswith("heads") else (3.0, 4, 0.5)
        return 0.0 if many == 0 else least + each * max(0, many - flat)

    whole = sum(seconds(name, many) for name, many in sizes.items())
    for level in torch.linspace(0.0, 1.0, 21).tolist():
        rows = {name: torch.rand(1, n, generator=draw).sqrt() for name, n in sizes.items()}
        ranked = {
            kind: sorted(
                (
                    (float(x), name)
                    for name, row in rows.items()
                    if kind in name
                    for x in row[0] ** 2
                ),
                reverse=True,
            )
            for kind in ("heads", "neurons")
        }
        best = 0.0
        for h, n in product(range(9), range(19)):
            kept = ranked["heads"][:h] + ranked["neurons"][:n]
            counts = Counter(name for _, name in kept)
            if sum(seconds(name, counts[name]) for name in sizes) <= level * whole:
                best = max(best, sum(value for value, _ in kept))
        masks = search(rows, Cost(1.5, 2, 5.0), Cost(0.5, 4, 3.0), level)
        spent = sum(seconds(name, int(mask.sum())) for name, mask in masks.items())
        assert spent <= level * whole + 1e-6
        kept = sum(float((rows[name][0] ** 2)[mask].sum()) for name, mask in masks.items())
        assert kept == pytest.approx(best, rel=1e-5)


def test_a_search_by_latency_says_which_times_it_needs():
    times = {"heads_each": 1.5, "heads_flat": 2, "heads_least": 5.0, "neurons_each": 0.5}
    with pytest.raises(ConfigError, match=r"needs neurons_each, .* got 0.5, None, None: python -m"):
        methods["kwon"].make(0.5, constraint="latency", **times)
    with pytest.raises(ConfigError, match="unknown constraint 'time': operations or latency"):
        methods["kwon"].make(0.5, constraint="time")
    times |= {"neurons_flat": 4, "neurons_least": 3.0}
    chosen = methods["kwon"].make(0.5, constraint="latency", **times).calibration.choose
    assert chosen == ByBudget((Cost(1.5, 2, 5.0), Cost(0.5, 4, 3.0)))
    whole = methods["kwon"].make(0.5, constraint="latency", **times | {"heads_flat": 2.0})
    assert whole.calibration.choose == chosen
    with pytest.raises(ConfigError, match="heads_each, heads_flat, .* times count with constraint"):
        methods["kwon"].make(0.5, **times)


@pytest.mark.parametrize("name", ["heads_each", "heads_flat", "neurons_least"])
@pytest.mark.parametrize(
    "value",
    [0, -1, math.nan, math.inf, pytest.param(10**400, id="huge"), 1e308, True, "2", "", (1, 2)],
)
def test_what_is_no_time_is_refused_in_one_line(name, value):
    times = {"heads_each": 1.5, "heads_flat": 2, "heads_least": 5.0}
    times |= {"neurons_each": 0.5, "neurons_flat": 4, "neurons_least": 3.0, name: value}
    with pytest.raises(ConfigError, match=rf"needs .*{name}.* numbers above 0") as refused:
        methods["kwon"].make(0.5, constraint="latency", **times)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
    with pytest.raises(ConfigError, match="the second a whole one, got .*, 2.5, 5.0"):
        methods["kwon"].make(0.5, constraint="latency", **times | {name: 3, "heads_flat": 2.5})


def test_units_cost_what_their_weights_and_attention_cost(planner, resources):
    """All units of a layer cost its linear layers and both products of attention."""
    (*_, job) = planner.jobs([Cell("kwon", "sst2", 0.5, False, 0, (("examples", 5),))])
    run = build(job.trial, resources)
    batches = read_batches(run, run.method.calibration)
    costs = unit_costs(run, batches)
    mean = sum(float(b.attention.sum()) for b in batches) / 5
    config = run.network.encoder.config
    width, inner = config.hidden_size, config.intermediate_size
    linear = 4 * width**2 + 2 * width * inner
    groups = run.masked.groups.groups
    whole = sum(costs[name] * groups[name].units for name in costs) / config.num_hidden_layers
    assert whole == pytest.approx(mean * linear + 2 * mean**2 * width)


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


def test_encoders_without_layer_norms_behind_sub_layers_cannot_be_scaled():
    scaled = GateCalibration(of_batches, rescaling=Rescaling(ByBudget(None)))
    with pytest.raises(ConfigError, match="no LayerNorm stands behind"):
        Rehearsed(config=BertConfig(), norms=False)._check_gates(scaled, {})
