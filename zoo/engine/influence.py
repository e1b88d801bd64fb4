"""Choose the layers that stay by what training examples become in the dense encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.examples import at_tokens, in_batches, some_rows
from zoo.inputs.batches import Encoded
from zoo.parts.depth import LayersByData, TheseLayers, cosines, kept_of, top
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
    rows = some_rows(len(data), layers.examples, trial.task, trial.seed, "layers")
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
    for batch in in_batches(data, rows, BATCH, network.pad, device):
        read = layers.read(batch.attention)
        with _passing(network) as passed:
            network(batch)
        for layer, (before, after) in passed.items():
            what = f"states of layer {layer}"
            pair = (at_tokens(x, read, batch.attention, what) for x in (before, after))
            parts.setdefault(layer, []).append(cosines(*pair))
    network.train(was_training)
    return [float(torch.cat(parts[layer]).mean()) for layer in sorted(parts)]


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
