"""A step of every method on a device that is not the CPU, without one: torch's meta device, where
tensors have no numbers. What works there on a GPU stays there."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tasks.scales import base
from tests.helpers import save_checkpoint
from zoo import Cell, MaskedModel
from zoo.engine.build import Resources, build
from zoo.engine.train import Trainer
from zoo.registry import methods
from zoo.runs.plan import Planner
from zoo.tools.arms import frozen_of

aten = torch.ops.aten


class OneDevice(TorchDispatchMode):
    """Operations on tensors of several devices raise, as they do on a GPU; the meta device itself
    lets many pass. The host reads ones; `copies` counts what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        devices = {x.device.type for x in given if x.ndim or x.is_meta}
        if op is aten._local_scalar_dense.default and given[0].is_meta:
            return 1
        if op is aten._to_copy.default:
            to = torch.device(kwargs.get("device") or given[0].device).type
            if to == "cpu" and given[0].is_meta:
                return torch.ones(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
            self.copies += to == "meta" and not given[0].is_meta
        elif len(devices) > 1:
            raise RuntimeError(f"{op} on {' and '.join(sorted(devices))}")
        return op(*args, **kwargs)


def test_a_step_of_every_method_stays_on_its_device(tmp_path, sst2, monkeypatch):
    """And masks, gates and noise are made without sending it anything."""
    monkeypatch.setattr("zoo.engine.build.usual_device", lambda: torch.device("meta"))
    monkeypatch.setattr("torch.fx.experimental._config.meta_nonzero_assume_all_nonzero", True)
    monkeypatch.setattr("torch.__future__._swap_module_params_on_conversion", True)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    device, plain = OneDevice(), MaskedModel.refresh

    def refresh(masked: MaskedModel, level: float | None) -> None:
        before = device.copies
        plain(masked, level)
        assert device.copies == before

    monkeypatch.setattr(MaskedModel, "refresh", refresh)
    model, data = str(save_checkpoint(tmp_path / "small", layers=1)), str(sst2)
    planner = Planner(base(), "released", model, data)
    for entry in methods:
        drives, prunes = entry.facts.drives == "penalty", entry.facts.prunes
        given = (("penalty", 100.0),) if drives else ()
        cell = Cell(entry.name, "sst2", 0.3 if prunes else 1.0, prunes, 0, given)
        run = build(planner.jobs([cell])[-1].trial, Resources(model, data, str(tmp_path / "cache")))
        frozen, run.steps = frozen_of(run), 2  # masks of the second step are in mid-schedule
        with device:
            trainer = Trainer(run, frozen)
            trainer.optimizer.step = lambda: None  # torch's own; fused AdamW refuses meta
            trainer.step()
            run.masked.remaining()
