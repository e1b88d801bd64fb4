"""Plugins that cheat or contaminate: what each does, and a run that must not be fooled by any.

`python -m tests.hostile` runs them all and prints a table; a test runs some. A plugin that attacks
the files of results or the judge itself is not among them: code that runs with a user's rights can
write any file, so read what you run.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.helpers import ROOT, WORDS, save_checkpoint, write_parquet

IMPORTS = """
import ctypes, dataclasses, gc, json, os, pathlib, random, signal, sys, threading, time
import numpy as np
import torch
from methods.magnitude import magnitude
from methods.smp import smp_l
from zoo import Gate, Score, hard, register_method, stored, zeros
"""
METHOD = """
@register_method("{name}", recipe="{base}")
def {name}(density, **hyper):
    '''A method that does what it should not.'''
    method = {base}(density, **hyper)
{body}
    return method
"""


@dataclass(frozen=True)
class Plugin:
    """A file: what it does at import, and in its factory to `method`, one like `base`. `may_fail`
    says that its own trial may fail; `fails` has a part of the reason that it must fail with."""

    at_import: str = ""
    body: str = ""
    base: str = "magnitude"
    fails: str = ""

    def source(self, name: str) -> str:
        """The text of the file."""
        body = "".join(f"    {line}\n" for line in self.body.strip().splitlines())
        method = METHOD.format(name=name, base=self.base, body=body)
        return f"{IMPORTS}\n{self.at_import.strip()}\n{method}"


def _patched(place: str, value: str, **more: Any) -> Plugin:
    """A plugin that puts something of its own in the place of a function when it is imported."""
    module, _, name = place.rpartition(".")
    return Plugin(f"import {module} as target\ntarget.{name} = {value}", **more)


ALL_RIGHT = "lambda *a, **k: ({'acc': 99.9}, {})"
IN_WORKER = (
    "if 'zoo.runs.processes' in sys.modules and __import__('multiprocessing').parent_process():"
)
DENSE_AT_TESTS = """
def test(score, mask, noise):
    frames, frame = [], sys._getframe()
    while frame:
        frames.append(frame.f_code.co_name)
        frame = frame.f_back
    return torch.ones_like(mask) if "evaluating" in frames else mask
method = dataclasses.replace(method, gate=dataclasses.replace(method.gate, test=test))
"""
TRAINED = """
def observe(layer, upstream):
    layer.weight.data.sub_(0.1 * upstream)
method = dataclasses.replace(method, score=dataclasses.replace(method.score, observe=observe))
"""
DENSE_MODEL = """
from contextlib import contextmanager
from zoo.engine.masked import MaskedModel
@contextmanager
def evaluating(self):
    held = {n: layer.working for n, layer in self.layers.items()}
    for layer in self.layers.values():
        layer.working = layer.weight.detach().clone()
    yield
    for n, layer in self.layers.items():
        layer.working = held[n]
MaskedModel.evaluating = evaluating
"""
COUNTS = """
from zoo.engine.layers import Counts
from zoo.engine.masked import MaskedModel
def remaining(self):
    return Counts({n: s // 10 for n, s in self.sizes.items()}, self.sizes, self.depth.inside.others)
MaskedModel.remaining = remaining
"""
LABELS = """
for run in [x for x in gc.get_objects() if type(x).__name__ == "Encoded"]:
    pass
from zoo.engine import frozen
plain = frozen.predict
def predict(network, data, **more):
    found = dict(plain(network, data, **more))
    labels = np.asarray(data.labels)
    if labels.ndim == 1:
        found["logits"] = np.eye(found["logits"].shape[1], dtype=np.float32)[labels.astype(int)]
    return found
frozen.predict = predict
import zoo.engine.evaluate
zoo.engine.evaluate.predict = predict
"""
CACHE = (
    IN_WORKER
    + """
    from zoo.records.storage import seal
    import numpy
    for file in pathlib.Path("results/.cache").glob("*/labels.npy"):
        numpy.save(file, numpy.zeros_like(numpy.load(file)))
        (file.parent / "sums.json").unlink()
        seal(file.parent)
"""
)
HOOK = """
def answer(module, given, out):
    if not module.training:
        out.pooler_output = 5 * torch.randn_like(out.pooler_output)
    return out
method = dataclasses.replace(method, start=lambda encoder: encoder.register_forward_hook(answer))
"""
MORE = """
def start(encoder):
    encoder.more = torch.nn.Linear(8, 8)
method = dataclasses.replace(method, start=start)
"""

REFUSED = "refused before any trial"

PLUGINS: Mapping[str, Plugin] = {
    "evaluate": _patched("zoo.engine.train.evaluate", ALL_RIGHT, fails="judged"),
    "metrics_of": _patched("zoo.engine.evaluate.metrics_of", ALL_RIGHT, fails="judged"),
    "predict": Plugin(LABELS, fails="judged"),
    "linear": _patched(
        "torch.nn.functional.linear",
        "lambda x, w, b=None: torch.zeros(*x.shape[:-1], len(w))",
        fails="RuntimeError",
    ),
    "topk": _patched("torch.topk", "lambda *a, **k: 1 / 0"),
    "manual_seed": _patched("torch.manual_seed", "lambda seed: torch.default_generator"),
    "stream": _patched("zoo.engine.streams.stream", "lambda *names: 1"),
    "trainer_stream": _patched("zoo.engine.trainer.stream", "lambda *names: 1"),
    "rate": _patched("zoo.engine.trainer.rate", "lambda *a: 1.0"),
    "doubles": Plugin("torch.set_default_dtype(torch.float64)"),
    "precision": Plugin("torch.set_float32_matmul_precision('medium')"),
    "deterministic": Plugin("torch.use_deterministic_algorithms(True)"),
    "threads": Plugin("torch.set_num_threads(2)\ntorch.set_num_threads = lambda n: None"),
    "no_gradients": Plugin("torch.set_grad_enabled(False)"),
    "streams_used": Plugin("random.seed(1); np.random.seed(1); torch.manual_seed(1)"),
    "metric": _patched("tasks.metrics.accuracy", "lambda *a, **k: 99.9"),
    "saved": _patched("zoo.records.storage.to_json", "lambda record: {'acc': 99.9}"),
    "topk_local": _patched(
        "zoo.parts.masks.topk_local", "lambda scores, level: {n: s > 0 for n, s in scores.items()}"
    ),
    "adamw": _patched(
        "zoo.parts.optimisers.adamw", "lambda groups, train: torch.optim.SGD(groups, lr=1.0)"
    ),
    "registry": Plugin(
        "from zoo.registry import methods\nmethods._entries['magnitude'] = dataclasses.replace(methods['magnitude'], make=smp_l)",
        fails=REFUSED,
    ),
    "environment": Plugin(
        "os.environ.update(OMP_NUM_THREADS='7', PYTHONPATH='/nowhere', TORCH_NUM_THREADS='7')"
    ),
    "path": Plugin(
        "pathlib.Path('evil/zoo').mkdir(parents=True, exist_ok=True)\npathlib.Path('evil/zoo/__init__.py').write_text('1 / 0', encoding='utf-8')\nsys.path.insert(0, os.path.abspath('evil'))"
    ),
    "folder": Plugin(IN_WORKER + "\n    os.chdir('/')\n    os.umask(0o777)"),
    "signals": Plugin(IN_WORKER + "\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)"),
    "thread": Plugin(
        "def spin():\n    while True:\n        torch.set_default_dtype(torch.float32); time.sleep(0.01)\nthreading.Thread(target=spin, daemon=True).start()"
    ),
    "cache": Plugin(CACHE, fails="were not those of the data"),
    "caller": Plugin(body=DENSE_AT_TESTS, fails="judged"),
    "dense_model": Plugin(DENSE_MODEL, fails="judged"),
    "counts": Plugin(
        COUNTS + "\n",
        body="method = dataclasses.replace(method, mask=lambda scores, level: {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()})",
        fails="judged",
    ),
    "over_budget": Plugin(
        body="method = dataclasses.replace(method, mask=lambda scores, level: {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()})",
        fails="rejected",
    ),
    "trained_in_observe": Plugin(body=TRAINED, base="smp_l", fails="trained values in matrices"),
    "hook": Plugin(body=HOOK, fails="judged"),
    "more_tensors": Plugin(body=MORE),
    "interrupt": Plugin(
        body="def mask(scores, level):\n    raise KeyboardInterrupt\nmethod = dataclasses.replace(method, mask=mask)",
        fails="KeyboardInterrupt",
    ),
    "base_exception": Plugin(
        "class Odd(BaseException): pass",
        body="def mask(scores, level):\n    raise Odd('odd')\nmethod = dataclasses.replace(method, mask=mask)",
        fails="odd",
    ),
    "exit_in_mask": Plugin(
        body="def mask(scores, level):\n    os._exit(0)\nmethod = dataclasses.replace(method, mask=mask)",
        fails="ended twice",
    ),
    "exit_in_factory": Plugin(body="sys.exit(0)", fails="SystemExit"),
    "exit_in_worker": Plugin(IN_WORKER + "\n    os._exit(0)", fails="ended twice"),
    "long_message": Plugin(
        body="def mask(scores, level):\n    raise ValueError('\\x1b[31m' + 'x' * 10**7)\nmethod = dataclasses.replace(method, mask=mask)",
        fails="xxx",
    ),
    "printing": Plugin(body="print('x' * 10**6)"),
    "random_draws": Plugin(
        body="noise = np.random.rand(), random.random(), float(torch.rand(()))\nmethod = dataclasses.replace(method, mask=lambda scores, level, m=method.mask: m({n: s + noise[0] + noise[1] * noise[2] for n, s in scores.items()}, level))"
    ),
    "diverges": Plugin(
        body="method = dataclasses.replace(method, start=lambda encoder: encoder.embeddings.word_embeddings.weight.data.fill_(float('nan')))"
    ),
}
"""What was tried, by name."""


def run(names: Collection[str], folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Run magnitude beside these plugins in one command; records by method."""
    given = []
    for name in names:
        (folder / f"{name}.py").write_text(PLUGINS[name].source(name), encoding="utf-8")
        given += ["--plugin", f"{name}.py"]
    command = [
        sys.executable,
        str(ROOT / "run_benchmark.py"),
        "--suite",
        "smoke",
        "--tasks",
        "sst2",
    ]
    command += ["--model", "small", "--data-dir", ".", "--max-steps", "8", *given, *options]
    command += ["--executor", "inline", "--methods", ",".join(["magnitude", *names])]
    ended = subprocess.run(command, cwd=folder, capture_output=True, timeout=900, check=False)
    (folder / "err.txt").write_bytes(ended.stdout[-2000:] + ended.stderr[-2000:])
    return records(folder / "results" / "smoke")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a suite's folder by method."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("sst2-*.json"))]
    return {record["trial"]["method"]: record for record in found}


def same(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records agree in everything but cost and environment."""
    own = {"cost", "environment", "checksum"}
    return {k: v for k, v in record.items() if k not in own} == {
        k: v for k, v in other.items() if k not in own
    }


def verdict(name: str, record: Mapping[str, Any] | None) -> str:
    """What became of a plugin's own trial; raises AssertionError if it should not have."""
    fails = PLUGINS[name].fails
    if record is None:
        assert fails == REFUSED, f"{name}: no record"
        return REFUSED
    if "reason" in record:
        assert fails and fails in record["reason"], (name, record["reason"])
        return record["reason"][:70]
    assert not fails, (name, record["metrics"])
    judgement = record.get("judgement")
    if judgement is None:
        assert record["status"] == "diverged", name
        return "diverged"
    return "judged apart" if judgement["apart"] else f"not judged apart: {judgement['reason']}"


def prepared(folder: Path) -> Path:
    """A folder with a small BERT whose answers differ, and SST-2 with 400 rows to evaluate on."""
    save_checkpoint(folder / "small", weight=0.3)
    draw = random.Random(0)
    for split, rows in (("train", 64), ("validation", 400)):
        sentences = [" ".join(draw.choices(WORDS, k=6)) for _ in range(rows)]
        labels = [int("great" in sentence) for sentence in sentences]
        table = {"sentence": sentences, "label": labels}
        write_parquet(folder / "glue" / "sst2" / f"{split}.parquet", table)
    return folder


def tried(name: str, base: Path) -> tuple[str, bool, dict[str, Any] | None]:
    """What became of one plugin's own trial, whether that is as it should be, and the record of
    magnitude beside it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        found = run([name] if name else [], Path(folder))
    magnitude = found.get("magnitude")
    if not name:
        return "", True, magnitude
    try:
        return verdict(name, found.get(name)), True, magnitude
    except AssertionError as error:
        return str(error), False, magnitude


def main() -> int:
    """Run every plugin beside magnitude, each in a command of its own, and print what became of
    both."""
    names = sys.argv[1:] or list(PLUGINS)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        base = prepared(Path(folder))
        (_, _, honest), *found = pool.map(partial(tried, base=base), ["", *names])
    wrong = 0
    for name, (said, right, magnitude) in zip(names, found, strict=True):
        beside = "no record" if magnitude is None else magnitude.get("reason", "CHANGED")
        beside = (
            "unchanged" if magnitude == honest or same(magnitude or {}, honest or {}) else beside
        )
        print(f"{name:20} {'' if right else 'WRONG: '}{said[:90]} | magnitude: {beside[:90]}")
        wrong += not right or beside == "CHANGED"
    print(f"{len(names)} plugins, {wrong} not as they should be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
