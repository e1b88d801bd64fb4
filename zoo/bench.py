"""How fast a masked step is: every method beside the dense step, in one process.

    python -m zoo.bench --model-size base --batch 8 --tokens 32

Blocks of steps alternate, dense / method / dense / method, over the same batches. A ratio is the
median over pairs of blocks, its interval a bootstrap over them. Weights are random and scores
normal: a step takes as long whatever they are. `as_written` and `as_written_taught` take SMP-L's
step the way its authors' code does, without and with a teacher, and always in float32.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from zoo.as_written import AsWritten
from zoo.build import FULL, PRECISIONS, Place, Run, build
from zoo.errors import BenchmarkError, ConfigError, TrialError
from zoo.losses import Bank
from zoo.measure import environment, peak_memory
from zoo.plan import Planner
from zoo.registry import BUILT_IN, find_plugin, load_plugin, methods, unknown
from zoo.suites import BASE, Cell
from zoo.train import Frozen, Trainer, evaluate

SIZES = {"tiny": (2, 128, 2, 512), "mini": (4, 256, 4, 1024), "base": (12, 768, 12, 3072)}
"""Layers, hidden size, attention heads and intermediate size."""
VOCABULARY = 30522
WRITTEN = ("as_written", "as_written_taught")
TAUGHT = "smp_l_taught"
"""SMP-L with distillation from cached logits."""
STEPS = 1_000_000
"""Length of the runs that the steps are taken from the middle of: the level hardly moves."""
SAME_STEPS = 20


@dataclass(frozen=True)
class Geometry:
    """What a step works on: size of the model, examples, tokens of each, target density."""

    size: str
    batch: int
    tokens: int
    density: float


@dataclass(frozen=True)
class Timing:
    """One arm beside dense: seconds of a step of both, the ratio with its 95 % interval, seconds of
    one mask refresh, the ratio of evaluation passes, peak bytes of a process with this arm alone
    (0: not measured)."""

    arm: str
    dense_seconds: float
    seconds: float
    ratio: float
    low: float
    high: float
    refresh_seconds: float
    evaluation_ratio: float
    peak_bytes: int = 0


class Bench:
    """Runs on one geometry, made through the same planner and builder as a benchmark's."""

    def __init__(
        self,
        geometry: Geometry,
        folder: Path,
        threads: int,
        precision: str = FULL,
        compiled: bool = False,
    ):
        self.geometry, self.folder, self.threads = geometry, folder, threads
        if not (folder / "model").exists():
            write_model(folder / "model", geometry.size)
            write_data(folder / "data", geometry)
        plugins = tuple(find_plugin(name) for name in BUILT_IN)
        for plugin in plugins:
            load_plugin(plugin)
        model, data = str(folder / "model"), str(folder / "data")
        self.planner = Planner(
            *(BASE, "released", model, data, plugins), precision=precision, compile=compiled
        )
        self.place = Place(model, data, str(folder / "cache"), plugins, threads=threads)

    def run(self, method: str, distill: bool = False, steps: int = STEPS) -> Run:
        """A run of a method with scores as if they had been learned."""
        given: dict[str, Any] = {
            "batch": self.geometry.batch,
            "max_length": self.geometry.tokens,
            "steps": steps,
        }
        if methods[method].facts.get("drives") == "penalty":
            given["penalty"] = 1.0
        prunes = methods[method].facts.get("prunes", True)
        density = self.geometry.density if prunes else 1.0
        cell = Cell(method, "sst2", density, distill, 0, tuple(given.items()))
        run = build(self.planner.jobs([cell])[-1].trial, self.place)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for score in run.masked.trained_scores:
                score.copy_(torch.randn(score.shape, generator=generator))
        return run

    def arm(self, name: str) -> Any:
        """What takes the steps of an arm, in the middle of a run."""
        if name in WRITTEN:
            teacher = AsWritten(self.run("smp_l")) if name == WRITTEN[1] else None
            arm: Any = AsWritten(self.run("smp_l"), teacher)
        else:
            method, taught = ("smp_l", True) if name == TAUGHT else (name, False)
            run = self.run(method, taught)
            arm = Trainer(run, frozen_of(run))
        arm.taken = STEPS // 2
        return arm


def frozen_of(run: Run) -> Frozen:
    """Frozen outputs of the right shapes for what the losses read."""
    rng, examples = np.random.default_rng(0), len(run.data.train)
    logits = rng.normal(size=(examples, run.task.outputs)).astype(np.float32)
    hidden = run.network.encoder.config.hidden_size
    vectors = torch.nn.functional.normalize(torch.randn(examples, hidden), dim=-1).half()
    needs = run.method.needs
    banks = {name: Bank(vectors.to(run.device)) for name in ("pretrained", "finetuned")}
    classes = torch.from_numpy(np.array(run.data.train.labels)).to(run.device)
    return Frozen(
        logits if "teacher" in needs else None,
        {name: bank for name, bank in banks.items() if name in needs},
        classes,
    )


def seconds_of(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Wall time of one call, over several."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / times


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare(bench: Bench, dense: Any, name: str, pairs: int, steps: int) -> Timing:
    """Blocks of the dense arm and another in turn; the first pair is dropped."""
    arm, device = bench.arm(name), dense.run.device
    found = []
    for pair in range(pairs + 1):
        order = (dense, arm) if pair % 2 else (arm, dense)  # neither is always the first
        taken = {id(one): seconds_of(one.step, steps, device) for one in order}
        found.append((taken[id(dense)], taken[id(arm)]))
    base, own = (np.array(side) for side in zip(*found[1:], strict=True))
    ratios = own / base
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    masked, level = arm.run.masked, arm.run.method.level(STEPS // 2, STEPS)
    refresh, evaluation = 0.0, 1.0
    if name not in WRITTEN and masked.layers:
        refresh = median(seconds_of(lambda: masked.refresh(level), 1, device) for _ in range(5))
        each = [
            [seconds_of(partial(evaluate, one.run, None), 1, device) for one in (arm, dense)]
            for _ in range(3)
        ]
        evaluation = median(a / b for a, b in each)
    return Timing(
        arm=name,
        dense_seconds=float(np.median(base)),
        seconds=float(np.median(own)),
        ratio=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        refresh_seconds=refresh,
        evaluation_ratio=evaluation,
    )


def check_same(folder: Path) -> None:
    """Raise TrialError unless SMP-L's step and the step as written give the same masks, bit for
    bit, and the same scores to 1e-5, after some steps on the smallest model in float64."""
    bench = Bench(Geometry("tiny", 8, 16, 0.3), folder, 1)
    ours, theirs = (bench.run("smp_l", steps=2 * SAME_STEPS) for _ in range(2))
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


def write_model(folder: Path, size: str) -> None:
    """A BERT of random weights with an MLM head, and its vocabulary."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    layers, hidden, heads, intermediate = SIZES[size]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "great", "terrible"]
    words = [*known, *(f"w{number}" for number in range(VOCABULARY - len(known)))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def write_data(folder: Path, geometry: Geometry) -> None:
    """Sentences of random words that fill the tokens exactly, in SST-2's columns."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    (folder / "glue" / "sst2").mkdir(parents=True)
    for split, rows in (("train", 64 * geometry.batch), ("validation", 4 * geometry.batch)):
        words = rng.integers(0, 20000, (rows, geometry.tokens - 2))
        columns = {
            "sentence": [" ".join(f"w{word}" for word in row) for row in words],
            "label": [row % 2 for row in range(rows)],
        }
        path = folder / "glue" / "sst2" / f"{split}.parquet"
        parquet.write_table(pyarrow.table(columns), path)


def measured_alone(options: argparse.Namespace, name: str, folder: Path) -> int:
    """Peak bytes of a process that takes three steps of one arm and nothing else."""
    own = ["--model-size", options.model_size, "--density", str(options.density)]
    own += ["--batch", str(options.batch), "--tokens", str(options.tokens)]
    own += ["--threads", str(options.threads), "--alone", name, "--folder", str(folder)]
    own += ["--precision", options.precision, *(["--compile"] if options.compile else [])]
    command = [sys.executable, "-m", "zoo.bench", *own]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(timings: Sequence[Timing]) -> str:
    """Timings as a pipe table."""
    header = ["Arm", "Ratio to dense", "95 %", "ms", "dense ms", "Refresh ms", "Evaluation ratio"]
    header += ["Peak MiB"]
    body = [
        [
            t.arm,
            f"{t.ratio:.2f}",
            f"{t.low:.2f} to {t.high:.2f}",
            f"{1000 * t.seconds:.0f}",
            f"{1000 * t.dense_seconds:.0f}",
            f"{1000 * t.refresh_seconds:.0f}" if t.refresh_seconds else "-",
            f"{t.evaluation_ratio:.2f}" if t.refresh_seconds else "-",
            f"{t.peak_bytes / 2**20:.0f}" if t.peak_bytes else "-",
        ]
        for t in timings
    ]
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=["left"] + ["right"] * 7)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m zoo.bench", description=__doc__)
    made.add_argument("--model-size", choices=SIZES, default="tiny")
    made.add_argument("--batch", type=int, default=8, help="examples of a step")
    made.add_argument("--tokens", type=int, default=32, help="tokens of an example")
    made.add_argument("--density", type=float, default=0.1, help="target of the methods")
    made.add_argument("--threads", type=int, default=1, help="CPU threads")
    made.add_argument("--precision", choices=PRECISIONS, default=FULL)
    made.add_argument("--compile", action="store_true", help="steps by torch.compile")
    made.add_argument("--methods", help="arms separated by commas (default: all)")
    made.add_argument("--pairs", type=int, default=10, help="pairs of blocks that count")
    made.add_argument("--steps", type=int, default=4, help="steps of a block")
    made.add_argument("--memory", action="store_true", help="peak memory too, a process per arm")
    made.add_argument("--json", type=Path, help="write the timings there too")
    made.add_argument("--alone", help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            return run_bench(options, options.folder or Path(temporary))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def run_bench(options: argparse.Namespace, folder: Path) -> int:
    """Check, time and print."""
    torch.set_num_threads(options.threads)
    geometry = Geometry(options.model_size, options.batch, options.tokens, options.density)
    bench = Bench(geometry, folder / "timed", options.threads, options.precision, options.compile)
    if options.alone:
        arm = bench.arm(options.alone)
        for _ in range(3):
            arm.step()
        print(peak_memory(arm.run.device))
        return 0
    every = [entry.name for entry in methods]
    names = options.methods.split(",") if options.methods else [*every, TAUGHT, *WRITTEN]
    for name in names:
        if name not in (*every, TAUGHT, *WRITTEN):
            raise ConfigError(unknown("arm", name, [*every, TAUGHT, *WRITTEN]))
    check_same(folder / "same")
    dense = bench.arm("dense")
    about = environment(dense.run.device, options.threads)
    where = f"{about['device']}, {options.threads} threads, torch {about['packages']['torch']}"
    how = f"{options.precision}{', compiled' if options.compile else ''}"
    shape = f"{geometry.size}, batch {geometry.batch} x {geometry.tokens} tokens"
    print(f"{shape}, {how}, {where}", flush=True)
    timings = []
    for name in names:
        timing = compare(bench, dense, name, options.pairs, options.steps)
        if options.memory:
            alone = measured_alone(options, name, folder)
            timing = replace(timing, peak_bytes=alone)
        timings.append(timing)
        print(f"{name}: {timing.ratio:.2f} ({timing.low:.2f} to {timing.high:.2f})", flush=True)
    print("\n" + table(timings))
    if options.json:
        record = {
            "geometry": asdict(geometry),
            "precision": options.precision,
            "compiled": options.compile,
            "environment": about,
            "pairs": options.pairs,
            "steps": options.steps,
            "timings": [asdict(timing) for timing in timings],
        }
        options.json.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
