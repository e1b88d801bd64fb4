"""Choose the layers that stay by what training examples become in the dense encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.streams import stream
from zoo.errors import TrialError
from zoo.inputs.batches import Encoded, collate
from zoo.parts.depth import DATA_RULES, LayersByData, TheseLayers, cosines, kept_of, top
from zoo.parts.heads import Network
from zoo.parts.method import Method
from zoo.records.trial import Trial
from zoo.status import tell

BATCH = 16
"""Examples that are read together."""


def with_chosen_layers(method: Method, network: Network, data: Encoded, trial: Trial) -> Method:
    """The method with the numbers of the layers that stay, where data choose them. The examples
    depend on (task, seed) alone. On a device without numbers the last ones stay."""
    layers = method.layers
    if not isinstance(layers, LayersByData):
        return method
    many = len(network.architecture.layers_of(network.encoder))
    if next(network.parameters()).is_meta:
        return replace(method, layers=TheseLayers(tuple(top(many, kept_of(many, layers.density)))))
    tell("choosing layers")
    seed = stream(trial.task, trial.seed, "layers")
    rows = np.random.default_rng(seed).permutation(len(data))[: layers.examples]
    found = mean_cosines(layers, network, data, rows)
    return replace(method, layers=TheseLayers(tuple(layers.choose(found))))


@torch.no_grad()
def mean_cosines(
    layers: LayersByData, network: Network, data: Encoded, rows: np.ndarray
) -> list[float]:
    """The mean cosine of each layer over the tokens that a rule reads of the examples `rows`."""
    device, was_training = next(network.parameters()).device, network.training
    network.eval()
    parts: dict[int, list[Tensor]] = {}
    for part in np.split(rows, range(BATCH, len(rows), BATCH)):
        batch = collate(data, part, network.pad, device, packs=False)
        read = DATA_RULES[layers.rule](batch.attention)
        with _passing(network) as passed:
            network(batch)
        for layer, (before, after) in passed.items():
            rows_of = (_taken(states, read, batch.attention) for states in (before, after))
            parts.setdefault(layer, []).append(cosines(*rows_of))
    network.train(was_training)
    return [float(torch.cat(parts[layer]).mean()) for layer in sorted(parts)]


def _taken(states: Tensor, read: Tensor, attention: Tensor) -> Tensor:
    """The states (tokens, hidden) of the tokens that are read; encoders may leave padding out."""
    flat = states.flatten(0, -2)
    if states.shape[:-1] == attention.shape:
        return flat[read.flatten()]
    if len(flat) == int(attention.sum()):
        return flat[read[attention]]
    raise TrialError(
        f"a layer gives states of shape {tuple(states.shape)}, which are not those of"
        f" {tuple(attention.shape)} tokens: layers of this encoder cannot be chosen by data"
    )


@contextmanager
def _passing(network: Network) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Inside, what enters and what leaves each layer is held."""
    held: dict[int, tuple[Tensor, Tensor]] = {}

    def hold(number: int, args: Any, kwargs: Any, out: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        held[number] = before, out[0] if isinstance(out, tuple) else out

    handles = [
        layer.register_forward_hook(
            lambda module, args, kwargs, out, number=number: hold(number, args, kwargs, out),
            with_kwargs=True,
        )
        for number, layer in enumerate(network.architecture.layers_of(network.encoder))
    ]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()
