"""ONNX files of stock and compact models, and models that run them in onnxruntime.

Needs optional packages, which INSTALL names.
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
from zoo.tools.compared import CLOSE_ONNX, difference, example

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "ONNX needs optional packages: pip install -e '.[onnx]'"


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
        raise ConfigError(INSTALL)
    inputs = example(model, 3, 7)
    inputs["attention_mask"][0, 4:] = 0
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
    worst = difference(model, OnnxModel(file))
    if not worst <= CLOSE_ONNX:
        raise TrialError(f"outputs in onnxruntime differ by {worst:.2g} from torch's")
    return file


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
