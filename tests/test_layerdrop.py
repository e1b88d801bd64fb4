"""Layers that are skipped in training, run in evaluation, and leave at the end."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, ModernBertConfig

from methods.layers import layerdrop
from tests.helpers import save_checkpoint
from zoo import Cell, ConfigError, KeepLayers, MaskedModel, Method, export, magnitude
from zoo.engine.build import build
from zoo.engine.evaluate import evaluate
from zoo.engine.frozen import Frozen
from zoo.engine.layers import skipping
from zoo.engine.rehearse import Rehearsed
from zoo.engine.train import fit, run_trial
from zoo.engine.trainer import Trainer
from zoo.parts.depth import even, runs, top

LAYERS, STEPS = 6, 8


@pytest.fixture
def deep(planner, resources, tmp_path):
    """A trial of LayerDrop on an encoder of six layers, two of which stay, and its resources."""
    model = str(save_checkpoint(tmp_path / "deep", layers=LAYERS))
    planner = type(planner)(planner.scale, "released", model, planner.data_dir)
    values = {"batch": 8, "max_length": 16, "lr_weights": 1e-3, "lr_head": 1e-3}
    values |= {"steps": STEPS, "evaluate_every": 4, "rate": 0.5}
    (job,) = planner.jobs([Cell("layerdrop", "sst2", 0.4, False, 0, tuple(values.items()))])
    return job.trial, replace(resources, model=model)


def calls_of(encoder, act) -> list[int]:
    """The layers that are called while something is done, in order."""
    called: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: called.append(number))
        for number, layer in enumerate(encoder.encoder.layer)
    ]
    act()
    for handle in handles:
        handle.remove()
    return called


def test_pitfall_40_as_many_layers_run_as_the_rate_says():
    draws = torch.Generator().manual_seed(0)
    for rate in (0.2, 0.5):
        found = [runs(12, rate, draws) for _ in range(10_000)]
        assert sum(map(len, found)) / 10_000 == pytest.approx(12 * (1 - rate), abs=0.1)
        each = [sum(layer in one for one in found) / 10_000 for layer in range(12)]
        assert each == pytest.approx([1 - rate] * 12, abs=0.025)


def test_pitfall_40_all_layers_run_in_evaluation(deep):
    run = build(*deep)
    trainer, encoder = Trainer(run, Frozen()), run.network.encoder
    trained = []
    for _ in range(STEPS - 1):
        trained.append(calls_of(encoder, trainer.step))
        batches = calls_of(encoder, lambda: evaluate(run, None))
        assert batches == [*range(LAYERS)] * (len(batches) // LAYERS) and batches
    assert all(called == sorted(set(called)) for called in trained)
    assert min(map(len, trained)) < LAYERS and len(set(map(tuple, trained))) > 1
    again = Trainer(build(*deep), Frozen())
    assert [calls_of(again.run.network.encoder, again.step) for _ in trained] == trained


def test_a_skipped_layer_is_identity_and_nothing_is_rescaled():
    """Bit for bit the stock model without it; all layers are back afterwards."""
    config = BertConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_attention_heads=2,
        num_hidden_layers=LAYERS,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder, tokens = BertModel(config).eval(), torch.tensor([[2, 9, 12, 3]])
    every = list(encoder.encoder.layer)
    for seed in range(20):
        kept = runs(LAYERS, 0.5, torch.Generator().manual_seed(seed))
        stock = BertModel(BertConfig(**{**config.to_dict(), "num_hidden_layers": len(kept)})).eval()
        stock.embeddings.load_state_dict(encoder.embeddings.state_dict())
        for layer, number in zip(stock.encoder.layer, kept, strict=True):
            layer.load_state_dict(every[number].state_dict())
        with torch.no_grad(), skipping(encoder, 0.5, torch.Generator().manual_seed(seed)):
            found = encoder(tokens).last_hidden_state
        assert torch.equal(found, stock(tokens).last_hidden_state)
        assert list(encoder.encoder.layer) == every
    with pytest.raises(RuntimeError), skipping(encoder, 0.5, torch.Generator()):
        raise RuntimeError
    assert list(encoder.encoder.layer) == every


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "distilbert"])
def test_all_layers_may_be_skipped(kind, tmp_path):
    """The encoder is its embeddings then, and dropout has drawn nothing more."""
    encoder = AutoModel.from_pretrained(save_checkpoint(tmp_path / kind, kind=kind)).train()
    tokens, ones = torch.tensor([[2, 9, 12, 3]]), torch.ones(1, 4, dtype=torch.long)
    assert runs(2, 0.999, torch.Generator().manual_seed(0)) == []
    torch.manual_seed(1)
    with skipping(encoder, 0.999, torch.Generator().manual_seed(0)):
        found = encoder(tokens, attention_mask=ones).last_hidden_state
    after = torch.get_rng_state()
    torch.manual_seed(1)
    masks = {"mask": ones} if kind == "deberta-v2" else {}
    assert torch.equal(found, encoder.embeddings(tokens, **masks))
    if kind != "bert":  # whose pooler follows
        assert torch.equal(after, torch.get_rng_state())
    assert all(module.training for module in encoder.modules())


def test_what_is_left_at_the_end_is_the_stock_model_with_fewer_layers(deep):
    run = build(*deep)
    encoder = run.network.encoder
    every, found = list(encoder.encoder.layer), []
    for step, _, _ in fit(run, Frozen()):
        found.append((step, len(encoder.encoder.layer), run.masked.remaining().density))
    assert found == [(4, LAYERS, 1.0), (STEPS, 2, 2 / LAYERS)]
    stock = BertModel(BertConfig(**{**encoder.config.to_dict(), "num_hidden_layers": 2})).eval()
    state = {n: t for n, t in encoder.state_dict().items() if "encoder.layer." not in n}
    for new, old in enumerate(even(LAYERS, 2)):
        own = every[old].state_dict()
        state |= {f"encoder.layer.{new}.{name}": tensor for name, tensor in own.items()}
    stock.load_state_dict(state)
    exported = export(encoder, run.masked)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], state[name]) for name in state)
    tokens = torch.tensor([[2, 9, 12, 3]])
    pairs = zip(encoder.eval()(tokens).to_tuple(), stock(tokens).to_tuple(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert encoder.config.num_hidden_layers == 2


def test_the_result_is_that_of_the_shorter_model(deep):
    result = run_trial(*deep)
    assert [point.remaining for point in result.curve] == [1.0, 2 / LAYERS]
    assert result.remaining.density == 2 / LAYERS and result.best.candidates == 1
    matrices = result.remaining.matrices.values()
    assert sum(m.kept > 0 for m in matrices) == 12 and len(matrices) == 36


def test_layers_leave_once_in_a_loop_of_ones_own():
    masked = MaskedModel(
        BertModel(BertConfig(**{**SIZES, "num_hidden_layers": LAYERS})), layerdrop(0.5)
    )
    masked.advance(0, 4)
    assert masked.remaining().density == 1.0
    for _ in range(2):
        masked.advance(4, 4)
        assert masked.remaining().density == 0.5 and len(masked.sizes) == 18


SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


def test_parts_that_do_not_fit_are_rejected():
    with pytest.raises(ConfigError, match=r"in \[0, 1\), got 1"):
        layerdrop(0.5, rate=1.0)
    for other in ({"score": magnitude}, {"layers": KeepLayers(top, 0.5)}):
        with pytest.raises(ConfigError, match="allow no masks and no other `layers`"):
            Method(skips=0.1, **other)
    modern = Rehearsed(layers=4, config=ModernBertConfig(num_hidden_layers=4))
    with pytest.raises(ConfigError, match="the layers of modernbert differ"):
        modern.check(Method(skips=0.1))
