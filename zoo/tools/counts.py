"""What a training step asks of a GPU, counted without one: launches, bytes, and waits.

    python -m zoo.tools.counts --model-size base --precision bfloat16

Steps are taken on torch's meta device, where tensors have no numbers, along the path that they take
on a GPU. A launch is a kernel that the host starts; a pass is reading or writing as many bytes as
all scores have in float32; a wait is the host asking for a number. Parts are the forward and
backward passes; gradients, their norm and clipping; the optimiser; masks and working weights.
Launches of torch's operations are its usual ones: one each, none for views, `foreach` and fused
operations in chunks as torch makes them. The last columns predict the ratio to the dense step from
launches, bytes and products, in bfloat16.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.ends import command, leave
from zoo.engine.build import PRECISIONS
from zoo.engine.trainer import Trainer
from zoo.kernels.launch import PLAIN, telling
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.tools.arms import Bench, frozen_of
from zoo.tools.synthetic import SIZES, Geometry

PASSES = "forward, backward"
PARTS = (PASSES, "gradients", "optimiser", "masks")
"""The parts of a step."""
CHUNK, BLOCKS, LISTS = 65536, 320, {1: 110, 2: 64, 3: 48, 4: 36}
"""torch's multi-tensor kernels: entries of a chunk, chunks and (by lists) tensors of a launch."""
SEVERAL: Mapping[str, int] = {"sort": 8, "topk": 20, "cumsum": 2, "randperm": 8, "argsort": 8}
"""Usual launches of operations that make several."""
ALLOCATE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
COPY = {"copy_", "_foreach_copy_"}
"""Operations that write their first argument and do not read it."""
ASK = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
"""Operations whose result the host waits for."""


@dataclass
class Tally:
    """Launches, bytes and waits of a part, and launches by name."""

    launches: int = 0
    bytes: int = 0
    waits: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, launches: int, moved: int) -> None:
        """Count launches of one kind."""
        self.launches += launches
        self.bytes += moved
        self.names[name] += launches


def chunked(lists: Sequence[Sequence[Tensor]]) -> int:
    """Launches of a multi-tensor kernel over lists of tensors."""
    most, launches, tensors, blocks = LISTS[min(len(lists), 4)], 0, 0, 0
    for tensor in lists[0]:
        tensors += 1
        for _ in range(-(-tensor.numel() // CHUNK)):
            blocks += 1
            if blocks == BLOCKS:
                launches, blocks, tensors = launches + 1, 0, 1
        if tensors == most:
            launches, blocks, tensors = launches + 1, 0, 0
    return launches + (blocks > 0)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class Counting(TorchDispatchMode):
    """Counts the operations on the meta device. Operations on tensors of several devices raise, as
    on a GPU. Where the host asks for a number it gets 1."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {part: Tally() for part in PARTS}
        self.part = PASSES

    @property
    def now(self) -> Tally:
        """The tally of the part that is under way."""
        return self.parts[self.part]

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Inside, operations count for this part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = op._schema.name.removeprefix("aten::")
        if any(t.is_meta for t in given) and self._asks(name, kwargs, given):
            self.now.waits += 1
            kind = kwargs.get("dtype") or given[0].dtype
            return 1 if name == "_local_scalar_dense" else torch.ones(given[0].shape, dtype=kind)
        if name != "_to_copy" and len({t.device.type for t in given if t.ndim or t.is_meta}) > 1:
            raise RuntimeError(f"{op} works on tensors of several devices")
        found = op(*args, **kwargs)
        made = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        if any(t.is_meta for t in (*given, *made)) and not self._is_free(op, name, given, made):
            launches = SEVERAL.get(name, 1)
            if name.startswith("_foreach"):
                lists = [a for a in args if isinstance(a, list | tuple) and len(a)]
                launches = chunked(lists)
                made = made or list(lists[0])
            unread = len(tree_leaves(args[0])) if name in COPY else 0
            self.now.add(name, launches, _bytes(given[unread:]) + _bytes(made))
        return found

    @staticmethod
    def _asks(name: str, kwargs: Mapping[str, Any], given: Sequence[Tensor]) -> bool:
        if name == "_to_copy":
            return torch.device(kwargs.get("device") or given[0].device).type == "cpu"
        indexed = name == "index" and any(t.dtype == torch.bool for t in given[1:])
        return name in ASK or indexed

    @staticmethod
    def _is_free(op: Any, name: str, given: Sequence[Tensor], made: Sequence[Tensor]) -> bool:
        if name in ALLOCATE or name == "detach":
            return True
        held = {t.untyped_storage()._cdata for t in given}
        views = made and all(t.untyped_storage()._cdata in held for t in made)
        return bool(views) and not op._schema.is_mutable


@contextmanager
def on_meta() -> Iterator[None]:
    """What torch must be told to build and train on the meta device."""
    linear = torch.nn.functional.linear

    def cast(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(x, weight.to(x.dtype), bias)

    with ExitStack() as stack:
        for target, name, value in (
            (torch.__future__, "_swap_module_params_on_conversion", True),
            (torch.fx.experimental._config, "meta_nonzero_assume_all_nonzero", True),
            (torch, "autocast", lambda *_, **__: nullcontext()),  # meta has none
            (torch.nn.functional, "linear", cast),
            (torch.nn.utils.clip_grad, "_device_has_foreach_support", lambda device: True),
            (torch.nn.utils.clip_grad, "_has_foreach_support", lambda *_: True),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def _part(counting: Counting, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        with counting.within(part):
            return function(*args, **kwargs)

    return counted


META = torch.device("meta")
STEPS = 12
"""Steps of a run whose middle is looked at: every schedule fits them."""


def count(bench: Bench, name: str, distill: bool = False) -> dict[str, Tally]:
    """The tallies of a step of a method in the middle of its run, part by part; the bench is on the
    meta device."""
    with on_meta():
        run = bench.run(name, distill, steps=STEPS)
        counting = Counting()
        with counting, telling(lambda kernel, moved: counting.now.add(kernel, 1, moved)):
            trainer = Trainer(run, frozen_of(run))
            trainer.look_every, trainer.taken = 50, STEPS // 2 - 1
            optimizer: Any = trainer.optimizer
            optimizer.step = lambda: _adamw(counting.now, optimizer)
            _instrument(counting, trainer)
            trainer.step()
            for part in PARTS:
                counting.parts[part] = Tally()
            trainer.step()
    return counting.parts


def _instrument(counting: Counting, trainer: Any) -> None:
    """Let each part of a trainer's step count for itself."""
    masked, optimizer, update = trainer.run.masked, trainer.optimizer, trainer.update
    trainer._gradients = _part(counting, "gradients", trainer._gradients)
    masked.advance = _part(counting, "masks", masked.advance)
    optimizer.step = _part(counting, "optimiser", optimizer.step)
    if update:
        update.step = _part(counting, "optimiser", update.step)


def _adamw(tally: Tally, optimizer: Any) -> None:
    """Count torch's fused AdamW, which refuses the meta device."""
    for group in optimizer.param_groups:
        own = [p for p in group["params"] if p.grad is not None]
        if own:
            tally.add("_fused_adamw_", chunked([own] * 4), 7 * _bytes(own))
            tally.add("_foreach_add", 1, 0)


LAUNCH = 5e-6
"""Seconds that a launch takes of the host or the GPU, whichever is slower."""
GPUS = {"A100": (0.5 * 312e12, 0.8 * 2.04e12), "H100": (0.4 * 989e12, 0.8 * 3.35e12)}
"""What products in bfloat16 reach, in operations a second, and memory, in bytes a second: by
assumption, of the peaks that the makers name."""


def seconds(parts: Mapping[str, Tally], bandwidth: float) -> float:
    """What all parts but the forward and backward passes take: launches and bytes."""
    own = [parts[part] for part in PARTS[1:]]
    return sum(tally.launches * LAUNCH + tally.bytes / bandwidth for tally in own)


def prunable(bench: Bench) -> int:
    """How many scores a method has, one for each prunable weight."""
    return bench.planner.checkpoint.prunable_weights


def predicted(
    parts: Mapping[str, Tally], dense: Mapping[str, Tally], bench: Bench, gpu: str
) -> float:
    """The ratio of a method's step to the dense step on a GPU, in bfloat16: products alike, and
    `seconds` of each."""
    (speed, bandwidth), geometry = GPUS[gpu], bench.geometry
    products = 6 * prunable(bench) * geometry.batch * geometry.tokens / speed
    return (products + seconds(parts, bandwidth)) / (products + seconds(dense, bandwidth))


def table(found: Mapping[str, Mapping[str, Tally]], bench: Bench) -> str:
    """Tallies of methods that prune as a pipe table and, in bfloat16, predicted ratios to the dense
    step, which is the first."""
    gpus = GPUS if bench.planner.conditions.precision == "bfloat16" else {}
    header = ["Method"]
    header += [f"{what}: launches, passes" for what in PARTS[1:]]
    header += ["All launches", "All passes", "Waits", *gpus]
    body, dense = [], next(iter(found.values()))
    for name, parts in found.items():
        own = [parts[part] for part in PARTS[1:]]
        passes = [tally.bytes / 4 / prunable(bench) for tally in own]
        row = [name, *(f"{t.launches}, {p:.1f}" for t, p in zip(own, passes, strict=True))]
        row += [str(sum(t.launches for t in own)), f"{sum(passes):.1f}"]
        row += [str(sum(tally.waits for tally in parts.values()))]
        body.append([*row, *(f"{predicted(parts, dense, bench, gpu):.2f}" for gpu in gpus)])
    return tabulate(
        body,
        header,
        "pipe",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(header) - 1),
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    made = argparse.ArgumentParser(prog="python -m zoo.tools.counts", description=__doc__)
    made.add_argument("--model-size", choices=SIZES, default="base")
    made.add_argument("--batch", type=int, default=64, help="examples of a step")
    made.add_argument("--tokens", type=int, default=128, help="tokens of an example")
    made.add_argument("--precision", choices=PRECISIONS, default="bfloat16")
    made.add_argument("--methods", help="methods separated by commas (default: all that prune)")
    made.add_argument("--plain", action="store_true", help="the step without kernels")
    options = made.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        geometry = Geometry(options.model_size, options.batch, options.tokens, 0.1)
        conditions = Conditions(precision=options.precision)
        bench = Bench(geometry, Path(folder), 1, conditions, META)
        known = [entry.name for entry in methods if entry.facts.prunes]
        names = options.methods.split(",") if options.methods else known
        for name in names:
            methods[name]  # raises ConfigError for an unknown one
        with patch.dict(os.environ, {PLAIN: "1"} if options.plain else {}):
            found = {name: count(bench, name) for name in dict.fromkeys([methods.teacher, *names])}
        print(table(found, bench))
    return 0


if __name__ == "__main__":
    leave(main())
