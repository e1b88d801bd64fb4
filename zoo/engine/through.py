"""Passes through one layer at a time."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from zoo.engine.build import Run
from zoo.inputs.batches import Batch


class Through:
    """Passes batches through one layer at a time. Around it stock code runs as always, so that it
    makes whatever else a layer needs; the other layers do nothing but hand on what is held."""

    def __init__(self, run: Run):
        self.network = run.network
        self.layers = list(run.masked.architecture.layers_of(run.masked.encoder))
        self.held: dict[int, Any] = {}

    def __call__(self, layer: int, number: int, batch: Batch) -> Any:
        """The output of a layer for a batch, given what the layer before it put out."""
        now = [self.held.get(number)]
        own = self.layers[layer].forward

        def compute(*args: Any, **kwargs: Any) -> Any:
            now[0] = own(*args, **kwargs)
            return now[0]

        with ExitStack() as stack:
            for index, module in enumerate(self.layers):
                forward = compute if index == layer else lambda *args, **kwargs: now[0]
                stack.enter_context(_as_forward(module, forward))
            self.network(batch)
        return now[0]

    def finish(self, layer: int, batches: Sequence[Batch]) -> None:
        """Hold what a layer puts out as it is now."""
        if layer + 1 < len(self.layers):
            for number, batch in enumerate(batches):
                self.held[number] = self(layer, number, batch)


@contextmanager
def _as_forward(module: Any, forward: Any) -> Iterator[None]:
    """Inside, a module computes something else, also if it was compiled."""
    compiled, module._compiled_call_impl = module._compiled_call_impl, None
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        module._compiled_call_impl = compiled
