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


@pytest.mark.parametrize("words", [[], ["--smp", "nowhere"], ["--movement", "nowhere"]])
def test_bad_input_is_one_line(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_script_without_the_function_is_named(tmp_path, capsys):
    folder = checkout(tmp_path / "same", 1.0)
    (folder / "smp_trainer.py").write_text("def regularization(model, mode): pass\n")
    assert main(["--smp", str(folder)]) == 2
    assert "has no function set_magnitude_topk_threshold" in capsys.readouterr().err
