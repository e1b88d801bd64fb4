"""The arms of the bench: runs of methods in the middle of their training, on synthetic data."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.engine.build import Resources, Run, build
from zoo.engine.frozen import Frozen
from zoo.engine.trainer import Trainer
from zoo.errors import TrialError
from zoo.parts.losses import Bank
from zoo.plugins import BUILT_IN, find_plugin, load_plugin
from zoo.records.trial import Conditions
from zoo.registry import methods, scales
from zoo.runs.plan import Planner
from zoo.runs.suites import Cell
from zoo.tools.as_written import AsWritten, fits
from zoo.tools.synthetic import Geometry, write_data, write_model

DISTILLED, WRITTEN, WRITTEN_DISTILLED = "distilled", "as_written", "as_written_distilled"
"""Variants of an arm, written METHOD:VARIANT."""
STEPS = 1_000_000
"""Length of the runs; the timed steps are in the middle, where the level hardly moves."""
SAME_STEPS = 20
"""Steps after which the engine's and the written step must still agree."""


class Bench:
    """Makes the arms on one geometry, with the planner and the builder of the benchmark."""

    def __init__(
        self,
        geometry: Geometry,
        folder: Path,
        threads: int,
        conditions: Conditions | None = None,
        device: torch.device | None = None,
    ):
        self.geometry, self.folder, self.threads = geometry, folder, threads
        self.device = device
        if not (folder / "model").exists():
            write_model(folder / "model", geometry.size)
            write_data(folder / "data", geometry)
        plugins = tuple(find_plugin(name) for name in BUILT_IN)
        for plugin in plugins:
            load_plugin(plugin)
        model, data, base = str(folder / "model"), str(folder / "data"), scales["base"].make()
        self.planner = Planner(
            *(base, "released", model, data, plugins), conditions=conditions or Conditions()
        )
        self.resources = Resources(model, data, str(folder / "cache"), plugins, threads=threads)

    def run(self, method: str, distill: bool = False, steps: int = STEPS) -> Run:
        """A run of a method whose scores look as if they had been learned."""
        facts = methods[method].facts
        given: dict[str, Any] = {
            "batch": self.geometry.batch,
            "max_length": self.geometry.tokens,
            "steps": steps,
        }
        if facts.drives == "penalty":
            given["penalty"] = 1.0
        if methods[method].may_retrain:
            given["retrain"] = True
        density = self.geometry.density if facts.prunes else 1.0
        cell = Cell(method, "sst2", density, distill, 0, tuple(given.items()))
        run = build(self.planner.jobs([cell])[-1].trial, self.resources, self.device)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for score in run.masked.trained_scores:
                score.copy_(torch.randn(score.shape, generator=generator))
        return run

    def arm(self, name: str) -> Any:
        """What takes the steps of an arm, in the middle of a run."""
        method, _, variant = name.partition(":")
        if variant in (WRITTEN, WRITTEN_DISTILLED):
            teacher = AsWritten(self.run(method)) if variant == WRITTEN_DISTILLED else None
            arm: Any = AsWritten(self.run(method), teacher)
        else:
            run = self.run(method, variant == DISTILLED)
            arm = Trainer(run, frozen_of(run))
        arm.taken = STEPS // 2
        return arm

    def arms(self) -> list[str]:
        """All methods, and the variants of those that can be run as written."""
        found = [entry.name for entry in methods]
        for name in self.written():
            found += [f"{name}:{variant}" for variant in (DISTILLED, WRITTEN, WRITTEN_DISTILLED)]
        return found

    def written(self) -> list[str]:
        """Methods whose step can also be taken as the authors of SMP wrote theirs."""
        cells = {
            entry.name: Cell(entry.name, "sst2", self.geometry.density, False, 0)
            for entry in methods
            if entry.facts.prunes and entry.facts.drives == "density"
        }
        planned = {name: self.planner.plan(cell).method for name, cell in cells.items()}
        return [name for name, method in planned.items() if method and fits(method)]


def frozen_of(run: Run) -> Frozen:
    """Random frozen outputs in the shapes that the losses read."""
    rng, examples = np.random.default_rng(0), len(run.data.train)
    logits = rng.normal(size=(examples, run.task.logits)).astype(np.float32)
    hidden = run.network.encoder.config.hidden_size
    drawn = torch.from_numpy(rng.normal(size=(examples, hidden)))
    vectors = torch.nn.functional.normalize(drawn, dim=-1).half()
    needs = run.method.needs
    banks = {name: Bank(vectors.to(run.device)) for name in ("pretrained", "finetuned")}
    classes = torch.from_numpy(np.array(run.data.train.labels)).to(run.device)
    return Frozen(
        logits if "teacher" in needs else None,
        {name: bank for name, bank in banks.items() if name in needs},
        classes,
    )


def check_same(folder: Path, device: torch.device | None = None) -> None:
    """Raise TrialError unless the engine's step and the step as written give the same masks, bit
    for bit, and the same scores to 1e-5, after some steps on the smallest model in float64."""
    bench = Bench(Geometry("tiny", 8, 16, 0.3), folder, 1, device=device)
    for name in bench.written():
        _check_same(*(bench.run(name, steps=2 * SAME_STEPS) for _ in range(2)))


def _check_same(ours: Run, theirs: Run) -> None:
    for run in (ours, theirs):
        run.network.double()
        for layer in run.masked.layers.values():
            layer.working = layer.weight.detach().clone().requires_grad_()
            layer.score = layer.score.detach().double().requires_grad_()
    trainer, written = Trainer(ours, frozen_of(ours)), AsWritten(theirs)
    for _ in range(SAME_STEPS):
        trainer.step()
        written.step()
    for name, layer in ours.masked.layers.items():
        score = written.layers[name].score
        order = score.flatten().sort(descending=True, stable=True).indices
        mask = torch.zeros_like(layer.mask).flatten()
        mask[order[: int((ours.masked.level or 1.0) * score.numel())]] = True
        close = torch.allclose(layer.score, score, rtol=1e-5, atol=1e-9)
        if not close or not torch.equal(layer.mask.flatten(), mask):
            raise TrialError(f"the engine's step and the step as written differ at {name}")
