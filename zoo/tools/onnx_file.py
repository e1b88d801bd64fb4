"""ONNX files of stock and compact models, and models that run them in onnxruntime.

Needs the optional packages: pip install -e '.[onnx]'.
"""

import importlib.util
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.stock import outputs_of
from zoo.errors import ConfigError, TrialError, cause_of
from zoo.inputs.kinds import architecture_of

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
CLOSE = 1e-4
"""Largest difference of outputs between torch and onnxruntime that is rounding."""


def has_onnx() -> bool:
    """Whether the optional packages are installed."""
    return all(importlib.util.find_spec(name) for name in NEEDED)


class _Outputs(nn.Module):
    """A model whose arguments are in order and whose outputs are a tuple of tensors."""

    def __init__(self, model: Any, inputs: list[str]):
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Logits; start and end logits; or hidden states."""
        out = self.model(**dict(zip(self.inputs, given, strict=True)))
        return tuple(out[name] for name in outputs_of(self.model))


def save_onnx(model: Any, folder: Path) -> Path:
    """Write a stock or compact model as model.onnx, whose batch and tokens may vary, and compare it
    in onnxruntime with torch. Raises ConfigError without the optional packages, and TrialError if
    outputs differ by more than rounding."""
    if not has_onnx():
        raise ConfigError("ONNX needs optional packages: pip install -e '.[onnx]'")
    inputs = _example((3, 7), model)
    names, file = list(inputs), folder / FILE
    shapes = [{0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")} for _ in names]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Outputs(model, names).eval(),
                tuple(inputs.values()),
                file,
                input_names=names,
                output_names=outputs_of(model),
                dynamic_shapes=(tuple(shapes),),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises anything
        raise TrialError(f"the model cannot be written as ONNX: {cause_of(error)}") from error
    _check(model, file)
    return file


def _example(shape: tuple[int, int], model: Any) -> dict[str, Tensor]:
    """Inputs with padding at the end of the first row."""
    tokens = torch.randint(model.config.vocab_size // 2, model.config.vocab_size, shape)
    inputs = architecture_of(model.base_model).inputs(tokens, torch.zeros_like(tokens))
    seen = torch.ones_like(tokens)
    seen[0, (shape[1] + 1) // 2 :] = 0
    return {**inputs, "attention_mask": seen}


def _check(model: Any, file: Path) -> None:
    session = OnnxModel(file)
    for shape in ((1, 1), (2, 9), (5, 16)):
        inputs = _example(shape, model)
        with torch.no_grad():
            expected, found = model(**inputs), session(**inputs)
        for name in outputs_of(model):
            worst = float((expected[name] - getattr(found, name)).abs().max())
            if not worst <= CLOSE:
                raise TrialError(f"in onnxruntime {name} differs by {worst:.2g} from torch's")


class OnnxModel:
    """A file of ONNX in onnxruntime, on the CPU with the threads that torch has now, called like
    the stock model."""

    def __init__(self, file: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            file.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self.names = [one.name for one in self.session.get_outputs()]

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        """Outputs by name."""
        given = {name: tensor.numpy() for name, tensor in inputs.items()}
        found = self.session.run(self.names, given)
        return SimpleNamespace(**dict(zip(self.names, map(torch.from_numpy, found), strict=True)))
