"""tests.certify against stand-ins for a checkout: one that does what ours does, one that does
not. The authors' own code is not here; docs/certificates.md has what it gave."""

import textwrap
from pathlib import Path

import pytest
import torch

from tests import certify
from tests.certify import main

LAYER = """
    import torch
    from torch import nn

    class Highest(torch.autograd.Function):
        @staticmethod
        def forward(ctx, scores, level):
            kept = scores.flatten().argsort(descending=True, stable=True)[: int(level * scores.numel())]
            return torch.zeros_like(scores).flatten().index_fill_(0, kept, 1.0).view_as(scores)

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    class MaskedLinear(nn.Linear):
        local_threshold = -1

        def __init__(self, inputs, outputs, pruning_method):
            super().__init__(inputs, outputs)
            self.mask_scores = nn.Parameter(torch.zeros_like(self.weight))

        def forward(self, input, threshold):
            level = self.local_threshold if self.local_threshold > 0 else threshold
            mask = Highest.apply(self.mask_scores, level * FACTOR)
            return nn.functional.linear(input, mask * self.weight, self.bias)
"""
TRAINER = """
    import something_that_is_not_installed

    def regularization(model, mode):
        found = [p for n, p in model.named_parameters() if "mask_scores" in n]
        return sum(torch.sigmoid(p).mean() for p in found) / len(found)

    class Trainer:
        def set_magnitude_topk_threshold(self, model, level):
            layers = model.bert.encoder.layer
            of = [
                lambda l: l.attention.self.query, lambda l: l.attention.self.key,
                lambda l: l.attention.self.value, lambda l: l.attention.output.dense,
                lambda l: l.intermediate.dense, lambda l: l.output.dense,
            ]
            p = self.args.magnitude_topk_threshold_p
            for one in of:
                means = [torch.sigmoid(one(l).mask_scores / p).mean().item() for l in layers]
                for layer, mean in zip(layers, means):
                    one(layer).local_threshold = level * len(layers) * mean / sum(means)
"""


def checkout(folder: Path, factor: float) -> Path:
    modules = folder / "emmental" / "modules"
    modules.mkdir(parents=True)
    (modules / "__init__.py").write_text("from .masked_nn import MaskedLinear\n")
    layer = textwrap.dedent(LAYER).replace("FACTOR", str(factor))
    (modules / "masked_nn.py").write_text(layer)
    (folder / "smp_trainer.py").write_text(textwrap.dedent(TRAINER))
    return folder


@pytest.fixture
def two_cases(monkeypatch):
    """SMP-L and SMP-S in float64."""
    monkeypatch.setattr(certify, "SMP", (certify.SMP[0], certify.SMP[-1]))
    monkeypatch.setattr(certify, "PRECISIONS", (torch.float64,))


def test_equal_code_agrees_entry_by_entry_and_other_code_does_not(tmp_path, capsys, two_cases):
    assert main(["--smp", str(checkout(tmp_path / "same", 1.0))]) == 0
    assert capsys.readouterr().out.count("| float64 | 1.000000") == 2
    assert main(["--smp", str(checkout(tmp_path / "other", 0.97))]) == 1
    assert "| float64 | 1.000000" not in capsys.readouterr().out


WRAPPER = """
    import something_that_is_not_installed

    class WrappedGPT:
        def __init__(self, layer):
            self.scaler_row = torch.zeros(layer.weight.shape[1])

        def add_batch(self, inp, out):
            self.scaler_row += inp.type(torch.float32).square().sum((0, 1))
"""
PRUNE = """
    from .layerwrapper import WrappedGPT

    def find_layers(module):
        return module.only

    def prepare_calibration_input(loader):
        return [sequence for (sequence,) in loader]

    @torch.no_grad()
    def prune_wanda(args, model, tokenizer, device=torch.device("cuda:0"), prune_n=0, prune_m=0):
        loader, _ = get_loaders("c4")
        linear = find_layers(model.model.layers[0])
        wrapped = WrappedGPT(linear)
        for sequence in prepare_calibration_input(loader):
            wrapped.add_batch(sequence, None)
        score = linear.weight.abs() * wrapped.scaler_row.float() ** (0.5 * FACTOR)
        n, m = (prune_n, prune_m) if prune_n else (round(score.shape[1] * args.sparsity_ratio), 0)
        groups = score.unflatten(1, (-1, m or score.shape[1]))
        gone = torch.zeros_like(groups).scatter(2, groups.topk(n, largest=False)[1], 1.0)
        linear.weight[gone.flatten(1) > 0] = 0

    def prune_magnitude(args, model, tokenizer, device, prune_n=0, prune_m=0):
        groups = model.model.layers[0].only.weight.detach().unflatten(1, (-1, prune_m))
        groups.scatter_(2, groups.abs().topk(prune_n, largest=False)[1], 0.0)
"""
SOLVER = """
    class AdmmPruner:
        def __init__(self, layer):
            self.layer, self.inputs = layer, []

        def add_batch(self, inp, out):
            self.inputs.append(inp[0])

        def fasterprune(self, sparsity, prune_n=0, prune_m=0, per_out=False):
            from tests.certify_one_shot import OneShot, ours, their_counts, without_ramp

            pattern = "2:4" if prune_n else "row" if per_out else ""
            solve = their_counts if pattern else without_ramp
            case = OneShot("", "admm", None, pattern, solve=solve)
            density = 0.5 if prune_n else round(1 - sparsity * FACTOR, 6)
            kept, new = ours(case, self.layer.weight.data, torch.stack(self.inputs), density)
            self.layer.weight.data = new
"""


def checkout_at_once(folder: Path, factor: float) -> list[str]:
    """Words for stand-ins of Wanda and ADMM in one folder."""
    (folder / "lib").mkdir(parents=True)
    for name, text in (("layerwrapper", WRAPPER), ("prune", PRUNE), ("admm", SOLVER)):
        code = textwrap.dedent(text).replace("FACTOR", str(factor))
        (folder / "lib" / f"{name}.py").write_text(code)
    return ["--wanda", str(folder), "--admm", str(folder)]


def test_equal_code_that_prunes_at_once_agrees_and_other_code_does_not(tmp_path, capsys):
    assert main(checkout_at_once(tmp_path / "same", 1.0)) == 0
    shown = capsys.readouterr().out
    for name in ("Wanda", "Wanda, 2:4", "magnitude, 2:4", "ADMM, without ramp", "ADMM by row, as"):
        assert any(
            line.startswith(f"| {name}") and "| float64 | 1.000000" in line
            for line in shown.splitlines()
        ), name
    assert main(checkout_at_once(tmp_path / "other", 0.9)) == 1


@pytest.mark.parametrize("words", [[], *([f"--{name}", "nowhere"] for name in certify.CHECKOUTS)])
def test_bad_input_is_one_line(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_script_without_the_function_is_named(tmp_path, capsys):
    folder = checkout(tmp_path / "same", 1.0)
    (folder / "smp_trainer.py").write_text("def regularization(model, mode): pass\n")
    assert main(["--smp", str(folder)]) == 2
    assert "has no function set_magnitude_topk_threshold" in capsys.readouterr().err
