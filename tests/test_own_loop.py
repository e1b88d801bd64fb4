"""docs/own_loop.md: its code, run on stock models for every method and every architecture."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from methods.movement import movement
from tests.helpers import CLASSES, given_for, save_checkpoint
from zoo import ConfigError, MaskedModel, TrialError
from zoo.inputs.kinds import architecture_of
from zoo.registry import methods
from zoo.runs.suites import Cell

PAGE = Path(__file__).resolve().parent.parent / "docs" / "own_loop.md"
YOURS, CHOICE, LOOP = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
STEPS = 12


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("own")
    return {kind: save_checkpoint(folder / kind, kind=kind) for kind in CLASSES}


def make_batches() -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    tokens = [torch.randint(5, 20, (4, 8), generator=draw) for _ in range(STEPS)]
    return [
        {"input_ids": t, "attention_mask": torch.ones_like(t), "labels": t[:, 0] % 2}
        for t in tokens
    ]


def run_page(checkpoint: Path, folder: Path, monkeypatch: Any, method: Any = None) -> Any:
    """Run the page's code with this checkpoint; returns the model."""
    monkeypatch.chdir(folder)
    own = YOURS.replace('"bert-base-uncased"', f"{str(checkpoint)!r}").replace(" ...", " None")
    scope: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(own, scope)
    scope["batches"] = make_batches()
    exec(CHOICE, scope)
    if method is not None:
        scope["method"] = method
    exec(LOOP, scope)
    return scope["model"]


def kept(model: Any) -> float:
    """Nonzero entries of the prunable matrices, counted in the model."""
    matrices = dict(architecture_of(model.base_model).matrices(model.base_model)).values()
    sizes = sum(m.weight.numel() for m in matrices)
    return sum(int(m.weight.count_nonzero()) for m in matrices) / sizes


def test_the_loop_has_ten_lines_for_pruning():
    """Lines that a loop without pruning would not have, and the imports."""
    own = [line for line in LOOP.splitlines() if re.search(r"masked|method|zoo|scores", line)]
    assert len(own) <= 10


@pytest.mark.parametrize("kind", CLASSES)
def test_the_page_prunes_a_stock_model(kind, checkpoints, tmp_path, monkeypatch, capsys):
    model = run_page(checkpoints[kind], tmp_path, monkeypatch)
    assert kept(model) == pytest.approx(0.1, abs=2e-3)
    assert f"{100 * kept(model):.2f} % of the weights remain" in capsys.readouterr().out
    assert not [type(m).__name__ for m in model.modules() if "Masked" in type(m).__name__]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned").eval()
    batch = make_batches()[0]
    assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)


def test_every_method_works_in_it(checkpoints, planner, tmp_path, monkeypatch):
    for entry in methods:
        given = given_for(entry.name)
        density = 0.5 if entry.facts.prunes else 1.0
        method = planner.plan(Cell(entry.name, "sst2", density, False, 0, given)).method
        if method.calibration is not None:
            with pytest.raises(TrialError, match="come from a calibration, which a loop of one's"):
                run_page(checkpoints["bert"], tmp_path, monkeypatch, method)
            continue
        model = run_page(checkpoints["bert"], tmp_path, monkeypatch, method)
        if entry.facts.prunes and method.budget is None:  # the density is measured, not set
            assert 0 < kept(model) <= 1, entry.name
        else:
            assert kept(model) == pytest.approx(density, abs=2e-3), entry.name


def test_what_is_forgotten_in_a_loop_is_said(bert):
    """No masks, no gradients used, none there, a percentage for a fraction, a model with a head."""
    encoder = bert()
    masked = MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))
    inputs = {"input_ids": torch.tensor([[2, 9, 3]])}
    encoder(**inputs).last_hidden_state.sum().backward()
    with pytest.raises(TrialError, match=r"no masks yet: call advance\(step, total\)"):
        masked.backward()
    with pytest.raises(TrialError, match=r"call masked.backward\(\) after the loss's"):
        masked.advance(0, 10)
    for layer in masked.layers.values():
        layer.working.grad = None
    masked.advance(0, 10)
    with pytest.raises(TrialError, match=r"call the loss's backward\(\) first"):
        masked.backward()
    with pytest.raises(ConfigError, match="is a fraction, got 10; did you mean 0.1"):
        MaskedModel(bert(), movement(10, start=0.0, stop=1.0)).advance(10, 10)
    model = BertForSequenceClassification(encoder.config)
    with pytest.raises(ConfigError, match="has a head: pass its encoder, model.base_model"):
        MaskedModel(model, movement(0.5, start=0.0, stop=1.0))
