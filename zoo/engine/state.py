"""The state of a trial between two steps, taken from a trainer and put into another one."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.trainer import Trainer
from zoo.errors import TrialError
from zoo.parts.depth import TheseLayers

NUMBERS = (bool, int, float, type(None))
"""What of an optimiser's state is no tensor."""
OF_NETWORK = ("network.", "score.", "mask.")
"""How the names of a network's tensors begin in a snapshot."""


@dataclass(frozen=True)
class Content:
    """A snapshot in memory."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def of_network(trainer: Trainer) -> dict[str, Tensor]:
    """Parameters that train, buffers, scores that change, and masks as packed bits."""
    masked = trainer.run.masked
    tensors = {f"network.{n}": t for n, t in _changing(trainer.run.network).items()}
    if not masked.method.constant_scores:
        tensors |= {f"score.{name}": score for name, score in masked.stored_scores.items()}
    for name, layer in masked.layers.items():
        tensors[f"mask.{name}"] = torch.from_numpy(np.packbits(layer.mask.cpu().numpy()))
    return tensors


def chosen_layers(trainer: Trainer) -> list[int] | None:
    """The numbers of the layers that stay, where data chose them."""
    layers = trainer.run.method.layers
    return list(layers.kept) if isinstance(layers, TheseLayers) else None


def taken_from(trainer: Trainer) -> Content:
    """The state between two steps. Raises Diverged if a loss that was not read is not finite, and
    TrialError for an optimiser whose state is neither tensors nor numbers."""
    trainer.look()
    run, masked = trainer.run, trainer.run.masked
    tensors, numbers = of_network(trainer), _numbers(trainer.optimizer)
    for number, parameter in enumerate(_parameters(trainer.optimizer)):
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{key}"] = value
            elif isinstance(value, NUMBERS):
                numbers[f"optimiser.{number}.{key}"] = value
            else:
                raise TrialError(f"its optimiser's state {key} is a {type(value).__name__}")
    streams, positions = _streams(trainer)
    return Content(
        {n: t.detach().cpu().contiguous() for n, t in {**tensors, **streams}.items()},
        {
            "trial": run.trial.id,
            "taken": trainer.taken,
            "layers": chosen_layers(trainer),
            "loss": float(trainer.loss).hex(),
            "level": masked.level,
            "penalty_weight": masked.penalty_weight,
            "optimiser": numbers,
            "streams": positions,
        },
    )


def restore(trainer: Trainer, content: Content) -> None:
    """Bring a fresh trainer of the same trial to a state."""
    run, masked, tensors = trainer.run, trainer.run.masked, dict(content.tensors)
    state = content.state
    with torch.no_grad():
        for name, tensor in _changing(run.network).items():
            tensor.copy_(tensors[f"network.{name}"])
        for name, score in masked.stored_scores.items():
            if f"score.{name}" in tensors:
                score.copy_(tensors[f"score.{name}"])
        for name, layer in masked.layers.items():
            bits = np.unpackbits(tensors[f"mask.{name}"].numpy(), count=layer.mask.numel())
            mask = torch.from_numpy(bits.view(bool)).view(layer.mask.shape)
            layer.mask = mask.to(layer.weight.device)
    _restore_optimiser(trainer.optimizer, tensors, state["optimiser"])
    masked.level, masked.penalty_weight = state["level"], state["penalty_weight"]
    trainer.go_on(state["taken"], float.fromhex(state["loss"]))
    _restore_streams(trainer, tensors, state["streams"])


def _restore_optimiser(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    parameters = _parameters(optimizer)
    for name, value in {**tensors, **numbers}.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            number, _, key = rest.partition(".")
            parameter = parameters[int(number)]
            if isinstance(value, Tensor):
                before = optimizer.state[parameter].get(key)
                where = parameter.device if before is None else before.device
                value = value.clone().to(where)
            optimizer.state[parameter][key] = value
        elif kind == "group":
            number, _, key = rest.partition(".")
            optimizer.param_groups[int(number)][key] = value


def _numbers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Numbers of an optimiser's groups. Raises TrialError if it has state that is not stored."""
    known = {id(parameter) for parameter in _parameters(optimizer)}
    if any(id(parameter) not in known for parameter in optimizer.state):
        raise TrialError("its optimiser keeps state that belongs to no parameter")
    return {
        f"group.{number}.{key}": value
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if isinstance(value, NUMBERS)
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _changing(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and buffers, by name."""
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    return {**trained, **dict(network.named_buffers())}


def _streams(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All streams of random numbers that are not made anew at each step."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "stream.losses": trainer.draws.get_state(),
        "stream.torch": torch.get_rng_state(),
        "stream.python": torch.tensor(words, dtype=torch.int64),
        "stream.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }
    python = [version, None if gauss is None else float(gauss).hex()]
    numpy = [str(kind), int(position), int(has_gauss), float(cached).hex()]
    return tensors, {"python": python, "numpy": numpy}


def _restore_streams(
    trainer: Trainer, tensors: Mapping[str, Tensor], positions: Mapping[str, Any]
) -> None:
    trainer.draws.set_state(tensors["stream.losses"])
    torch.set_rng_state(tensors["stream.torch"])
    version, gauss = positions["python"]
    words = tuple(tensors["stream.python"].tolist())
    random.setstate((version, words, None if gauss is None else float.fromhex(gauss)))
    kind, position, has_gauss, cached = positions["numpy"]
    keys = tensors["stream.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, float.fromhex(cached)))
