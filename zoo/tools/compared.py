"""Whether two models compute the same."""

from typing import Any

import torch
from torch import Tensor

from zoo.engine.stock import outputs_of
from zoo.errors import ConfigError, TrialError
from zoo.inputs.kinds import architecture_of

CLOSE, CLOSE_ONNX = 1e-5, 1e-4
"""Largest difference of outputs, over their largest, that is rounding: in torch, in onnxruntime."""


@torch.no_grad()
def difference(model: Any, other: Any) -> float:
    """The largest difference of the outputs of a stock model and of another on random tokens, with
    and without padding, over their largest; NaN if an output is not a number."""
    found = []
    for batch, tokens in ((4, 12), (1, 1), (2, 9)):
        inputs = example(model, batch, tokens)
        inputs["attention_mask"][0, (tokens + 1) // 2 :] = 0
        seen = inputs["attention_mask"].bool()
        ours, theirs = model(**inputs), other(**inputs)
        for name in outputs_of(model):
            before, after = _at(ours[name], seen), _at(getattr(theirs, name), seen)
            found.append((before - after).abs().max() / before.abs().max())
    return float(torch.stack(found).max())


def check_equal(model: Any, other: Any) -> None:
    """Raise TrialError unless all tensors of two models are equal, value for value."""
    again = other.state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, again[name]):
            raise TrialError(f"what was packed gives another {name}")


def _at(output: Tensor, seen: Tensor) -> Tensor:
    """What is not at padding."""
    return output[seen] if output.shape[:2] == seen.shape else output


def check_tokens(model: Any, tokens: int) -> None:
    """Raise ConfigError for more tokens than the model has positions."""
    most = getattr(model.config, "max_position_embeddings", tokens)
    most -= 2 if architecture_of(model.base_model).offset_positions else 0
    if tokens > most:
        raise ConfigError(f"{tokens} tokens are more than the model's {most}")


def example(model: Any, batch: int, tokens: int) -> dict[str, Tensor]:
    """Inputs of random tokens without padding, (batch, tokens). Raises ConfigError for more tokens
    than the model has positions."""
    check_tokens(model, tokens)
    config = model.config
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size // 2, config.vocab_size, (batch, tokens), generator=draws)
    inputs = architecture_of(model.base_model).inputs(ids, torch.zeros_like(ids))
    return {**inputs, "attention_mask": torch.ones_like(ids)}
