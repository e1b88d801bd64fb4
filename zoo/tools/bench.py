"""How fast a masked step is: every method beside the dense step, in one process.

    python -m zoo.tools.bench --model-size base --batch 8 --tokens 32

Blocks of steps alternate, dense / method / dense / method, over the same batches. A ratio is the
median over pairs of blocks, its interval a bootstrap over them. Weights are random and scores
normal: a step takes as long whatever they are. `METHOD:distilled` adds distillation from cached
logits. `METHOD:as_written` takes the step the way the authors of SMP wrote theirs, without and
(`METHOD:as_written_distilled`) with a teacher, always in float32.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from zoo.ends import command, leave
from zoo.engine.evaluate import evaluate
from zoo.engine.measure import environment, peak_memory
from zoo.engine.trainer import Trainer
from zoo.errors import ConfigError, ResourceError, unknown
from zoo.kernels.launch import available
from zoo.records.codec import to_json
from zoo.records.trial import Conditions, condition_fields
from zoo.registry import methods
from zoo.runs.command import add_conditions, conditions_of
from zoo.tools.arms import DISTILLED, STEPS, Bench, check_same
from zoo.tools.synthetic import SIZES, Geometry
from zoo.tools.timing import mean_seconds


@dataclass(frozen=True)
class Timing:
    """An arm beside dense: seconds of a step of both, their ratio with its 95 % interval, seconds
    of a mask refresh, the ratio of evaluation passes, peak bytes of a process with this arm alone
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


def compare(bench: Bench, dense: Any, name: str, pairs: int, steps: int) -> Timing:
    """Time blocks of the dense arm and another in turn; the first pair is dropped."""
    arm, device = bench.arm(name), dense.run.device
    found = []
    for pair in range(pairs + 1):
        order = (dense, arm) if pair % 2 else (arm, dense)  # neither is always the first
        taken = {id(one): mean_seconds(one.step, steps, device) for one in order}
        found.append((taken[id(dense)], taken[id(arm)]))
    base, own = (np.array(side) for side in zip(*found[1:], strict=True))
    ratios = own / base
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    masked, level = arm.run.masked, arm.run.method.level(STEPS // 2, STEPS)
    refresh, evaluation = 0.0, 1.0
    if isinstance(arm, Trainer) and masked.layers:
        refresh = median(mean_seconds(lambda: masked.refresh(level), 1, device) for _ in range(5))
        each = [
            [mean_seconds(partial(evaluate, one.run, None), 1, device) for one in (arm, dense)]
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


def measured_alone(options: argparse.Namespace, name: str, folder: Path) -> int:
    """Peak bytes of a process that takes three steps of one arm and nothing else."""
    own = ["--model-size", options.model_size, "--density", str(options.density)]
    own += ["--batch", str(options.batch), "--tokens", str(options.tokens)]
    own += ["--threads", str(options.threads), "--alone", name, "--folder", str(folder)]
    own += conditions_of(options, CONDITIONS).options
    own += ["--device", options.device] if options.device else []
    command = [sys.executable, "-m", "zoo.tools.bench", *own]
    return int(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)


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


CONDITIONS = [f for f in condition_fields() if f.name in ("precision", "compile")]
"""Conditions that change a step."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m zoo.tools.bench", description=__doc__)
    made.add_argument("--model-size", choices=SIZES, default="tiny")
    made.add_argument("--batch", type=int, default=8, help="examples of a step")
    made.add_argument("--tokens", type=int, default=32, help="tokens of an example")
    made.add_argument("--density", type=float, default=0.1, help="target of the methods")
    made.add_argument("--threads", type=int, default=1, help="CPU threads")
    add_conditions(made, CONDITIONS)
    made.add_argument("--methods", help="arms separated by commas (default: all)")
    made.add_argument("--pairs", type=int, default=10, help="pairs of blocks that count")
    made.add_argument("--steps", type=int, default=4, help="steps of a block")
    made.add_argument("--memory", action="store_true", help="peak memory too, a process per arm")
    made.add_argument("--json", type=Path, help="write the timings there too")
    made.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    report = "write the timings to docs/runs/bench, under the device's name"
    made.add_argument("--report", action="store_true", help=report)
    made.add_argument("--alone", help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made


def device_of(name: str | None) -> torch.device | None:
    """The device that was asked for. Raises ResourceError if torch sees none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda, but torch sees no GPU; leave the option out")
    return torch.device(name) if name else None


def report_path(device: str, geometry: Geometry, conditions: Conditions) -> Path:
    """Where a report is kept: docs/runs/bench/nvidia-h100-80gb-hbm3_base_64x128_bfloat16.json."""
    kind = re.sub(r"[^a-z0-9]+", "-", device.removeprefix("cuda ").lower()).strip("-")
    shape = f"{geometry.size}_{geometry.batch}x{geometry.tokens}_{conditions.precision}"
    return Path("docs/runs/bench") / f"{kind}_{shape}{'_compiled' * conditions.compile}.json"


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        return run_bench(options, options.folder or Path(temporary))


def names_of(options: argparse.Namespace, bench: Bench) -> list[str]:
    """The arms that were asked for. Raises ConfigError for one that there is not."""
    known = bench.arms()
    names = options.methods.split(",") if options.methods else known
    for name in names:
        if name not in known and name.removesuffix(f":{DISTILLED}") not in known:
            raise ConfigError(unknown("arm", name, known))
    return names


def run_bench(options: argparse.Namespace, folder: Path) -> int:
    """Check, time and print."""
    torch.set_num_threads(options.threads)
    geometry = Geometry(options.model_size, options.batch, options.tokens, options.density)
    conditions = conditions_of(options, CONDITIONS)
    device = device_of(options.device)
    bench = Bench(geometry, folder / "timed", options.threads, conditions, device)
    if options.alone:
        arm = bench.arm(options.alone)
        for _ in range(3):
            arm.step()
        print(peak_memory(arm.run.device))
        return 0
    names = names_of(options, bench)
    check_same(folder / "same", device)
    dense = bench.arm(methods.teacher)
    about = environment(dense.run.device, options.threads)
    where = f"{about.device}, {options.threads} threads, torch {about.packages['torch']}"
    shape = f"{geometry.size}, batch {geometry.batch} x {geometry.tokens} tokens"
    print(f"{shape}, {', '.join(conditions.words) or 'float32'}, {where}", flush=True)
    timings = []
    for name in names:
        timing = compare(bench, dense, name, options.pairs, options.steps)
        if options.memory:
            timing = replace(timing, peak_bytes=measured_alone(options, name, folder))
        timings.append(timing)
        print(f"{name}: {timing.ratio:.2f} ({timing.low:.2f} to {timing.high:.2f})", flush=True)
    print("\n" + table(timings))
    if options.json or options.report:
        path = options.json or report_path(about.device, geometry, conditions)
        record = {
            "geometry": asdict(geometry),
            "conditions": to_json(conditions),
            "environment": to_json(about),
            "kernels": dense.run.device.type == "cuda" and available(dense.run.device),
            "pairs": options.pairs,
            "steps": options.steps,
            "timings": [asdict(timing) for timing in timings],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
        print(f"written to {path}")
    return 0


if __name__ == "__main__":
    leave(main())
