"""python -m tests.certify: train beside the authors' own code, entry by entry.

Needs a checkout of that code, of which nothing is copied here: `--movement` names the folder
movement-pruning of huggingface/transformers-research-projects, `--smp` that of kongds/SMP. Their
masked layers, penalties, schedules and shares are loaded from the files as they are; the model
around them is a small stock BERT, trained by stock AdamW for 50 steps with the same start, batches,
noise and clipped gradients as ours. Masks are compared at every step. `--wanda`, `--sparsegpt`,
`--admm` and `--obert` name checkouts of what prunes at once (tests/certify_one_shot.py).
"""

import argparse
import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from tests.authors import patched, pieces
from tests.certify_obert import LEVELS, compare_obert
from tests.certify_one_shot import Match, OneShot, compare, of_admm, of_sparsegpt, of_wanda
from zoo.engine.masked import MaskedModel
from zoo.errors import BenchmarkError, ConfigError
from zoo.parts.gates import BETA
from zoo.parts.method import Method
from zoo.plugins import load_built_in
from zoo.registry import methods

PRECISIONS = (torch.float64, torch.float32)
STEPS, CLIP, SEED = 50, 0.05, 0
RATES = {"weights": 1e-3, "head": 1e-3, "scores": 3e-2}
RAMP = {"start": 0.1, "stop": 0.8}
UNIFORM = {"score_start": "uniform", "score_scale": 0.1}


@dataclass(frozen=True)
class Case:
    """A method of ours and the name of the authors' masks: `mode` of their penalty, "" for none;
    `temperature` of SMP-S's shares, 0 where every matrix has the same."""

    name: str
    method: str
    hyper: Mapping[str, Any]
    theirs: str
    mode: str = ""
    temperature: float = 0.0


MOVEMENT = (
    Case("magnitude", "magnitude", RAMP, "magnitude"),
    Case("movement", "movement", RAMP, "topK"),
    Case("movement, scores uniform", "movement", RAMP | UNIFORM, "topK"),
    Case("movement, scores kaiming", "movement", RAMP | {"score_start": "kaiming"}, "topK"),
    Case("movement, from 80 %", "movement", RAMP | UNIFORM | {"first": 0.8}, "topK"),
    Case("movement with l1", "movement", RAMP | {"penalty": 3.0}, "topK", "l1"),
    Case(
        "soft movement, other tau",
        "soft_movement",
        RAMP | UNIFORM | {"penalty": 30.0, "tau": 0.6, "first": 0.4},
        "sigmoied_threshold",
        "l1",
    ),
    Case("soft movement", "soft_movement", RAMP | {"penalty": 30.0}, "sigmoied_threshold", "l1"),
    Case("L0, with the same noise", "l0", {"penalty": 30.0}, "l0", "l0"),
)
SMP = (
    Case("SMP-L", "smp_l", {"stop": 0.8, "penalty": 30.0}, "topK", "l1"),
    Case("SMP-L, linear", "smp_l", {"stop": 0.8, "penalty": 30.0, "power": 1}, "topK", "l1"),
    *(
        Case(
            f"SMP-S, p = {p:g}",
            "smp_s",
            {"stop": 0.8, "penalty": 30.0, "score_temperature": p},
            "topK",
            "l1",
            temperature=p,
        )
        for p in (1.0, 4.0)
    ),
)


@dataclass(frozen=True)
class Authors:
    """What is used of a checkout: the class of masked layers, its module, and functions by name."""

    layer: Any
    module: ModuleType
    functions: Mapping[str, Callable[..., Any]]


def load(folder: Path, script: str, names: Sequence[str]) -> Authors:
    """Load emmental/modules and single functions of a script, whose imports are not run. Raises
    ConfigError."""
    modules = folder / "emmental" / "modules"
    if not (modules / "masked_nn.py").is_file() or not (folder / script).is_file():
        raise ConfigError(f"{folder} has no emmental/modules/masked_nn.py and {script}")
    alias = f"authors_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(
        alias, modules / "__init__.py", submodule_search_locations=[str(modules)]
    )
    assert spec and spec.loader
    package = importlib.util.module_from_spec(spec)
    sys.modules[alias] = package
    spec.loader.exec_module(package)
    functions = pieces(folder / script, names, {"torch": torch, "np": np, "nn": nn})
    return Authors(package.MaskedLinear, sys.modules[f"{alias}.masked_nn"], functions)


class Theirs(nn.Module):
    """A masked layer of the authors in the place of a linear one; keeps what multiplied W."""

    def __init__(self, authors: Authors, linear: nn.Linear, kind: str):
        super().__init__()
        outputs, inputs = linear.weight.shape
        self.inner = authors.layer(inputs, outputs, pruning_method=kind).to(linear.weight.dtype)
        self.inner.weight, self.inner.bias = linear.weight, linear.bias
        self.authors = authors
        self.level: float | None = 1.0
        self.noise: Tensor | None = None
        self.working = linear.weight.detach()

    @property
    def mask_scores(self) -> Tensor:
        """Their name for the scores."""
        found: Tensor = self.inner.mask_scores
        return found

    @property
    def local_threshold(self) -> float:
        """SMP-S's share of the matrix."""
        return float(self.inner.local_threshold)

    @local_threshold.setter
    def local_threshold(self, value: float) -> None:
        self.inner.local_threshold = value

    def forward(self, x: Tensor) -> Tensor:
        """The authors' forward pass, with our noise for theirs."""

        def keep(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            self.working = weight.detach()
            return LINEAR(x, weight, bias)

        with noise_of(self.authors.module, self.noise), patched(F, "linear", keep):
            out: Tensor = self.inner(x, threshold=self.level)
        return out


LINEAR = F.linear


@contextmanager
def noise_of(module: ModuleType, noise: Tensor | None) -> Iterator[None]:
    """Inside, the uniform noise that the module draws is this one; None leaves it alone."""
    if noise is None:
        yield
        return
    drawn = SimpleNamespace(uniform_=lambda: noise)
    own = {**vars(torch), "zeros_like": lambda scores: drawn}
    with patched(module, "torch", SimpleNamespace(**own)):
        yield


@dataclass(frozen=True)
class Agreement:
    """How far two trainings agree: the fraction of equal mask entries over all steps, and the
    largest differences of scores, losses and final weights."""

    name: str
    precision: str
    masks: float
    scores: float
    loss: float
    weights: float


def train(case: Case, authors: Authors, dtype: torch.dtype) -> Agreement:
    """Train both for 50 steps."""
    torch.manual_seed(SEED)
    ours = small_model(dtype)
    theirs = copy.deepcopy(ours)
    method: Method = methods[case.method].make(0.1, **case.hyper)
    masked = MaskedModel(ours.bert, method, torch.Generator().manual_seed(SEED))
    layers = replace_layers(case, authors, theirs, ours, masked)
    our_scores = masked.trained_scores
    their_scores = [layer.mask_scores for layer in layers.values()] if our_scores else []
    optimisers = (optimiser(ours, our_scores), optimiser(theirs, their_scores))
    equal, entries, scores, loss = 0, 0, 0.0, 0.0
    for step, batch in enumerate(examples()):
        masked.advance(step, STEPS)
        for name, layer in masked.layers.items():
            layers[name].level = masked.level
            if layer.noise is not None:  # logit(u) / beta
                layers[name].noise = torch.sigmoid(layer.noise * BETA)
        if case.temperature:
            share_out(authors, theirs, case.temperature, masked.level)
        mine, own = ours(**batch).loss, theirs(**batch).loss
        mine.backward()
        masked.backward()
        penalty = 0.0
        if case.mode:
            penalty = authors.functions["regularization"](theirs, case.mode)
        (own + masked.penalty_weight * penalty).backward()
        for name, layer in masked.layers.items():
            same = (layer.working.detach() != 0) == (layers[name].working != 0)
            equal, entries = equal + int(same.sum()), entries + same.numel()
        loss = max(loss, abs(float(mine.detach() - own.detach())))
        for found in optimisers:
            nn.utils.clip_grad_norm_([p for g in found.param_groups for p in g["params"]], CLIP)
            found.step()
        for model in (ours, theirs):
            model.zero_grad(set_to_none=True)
        for tensor in our_scores:
            tensor.grad = None
        scores = max([scores, *map(difference, our_scores, their_scores)])
    weights = max(difference(masked.layers[n].weight, layers[n].inner.weight) for n in layers)
    precision = str(dtype).removeprefix("torch.")
    return Agreement(case.name, precision, equal / entries, scores, loss, weights)


def replace_layers(
    case: Case, authors: Authors, theirs: Any, ours: nn.Module, masked: MaskedModel
) -> dict[str, "Theirs"]:
    """Put the authors' layers into `theirs`, where ours are masked, with our scores; what does not
    train in ours does not train there."""
    layers = {}
    for name, layer in masked.layers.items():
        parent, _, child = name.rpartition(".")
        module = theirs.bert.get_submodule(parent)
        layers[name] = Theirs(authors, getattr(module, child), case.theirs)
        setattr(module, child, layers[name])
        if masked.trained_scores:
            layers[name].mask_scores.data.copy_(layer.score.detach())
    trained = {n: p.requires_grad for n, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(trained.get(name.replace(".inner.", "."), True))
    return layers


def small_model(dtype: torch.dtype) -> BertForSequenceClassification:
    """A BERT of 2 layers x 32 without dropout."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config).to(dtype)


def examples() -> Iterator[dict[str, Tensor]]:
    """Batches of 16: whether the first word is above the middle one of the vocabulary."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(STEPS):
        ids = torch.randint(1, 50, (16, 12), generator=generator)
        yield {"input_ids": ids, "labels": (ids[:, 1] > 25).long()}


def optimiser(model: nn.Module, scores: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Stock AdamW without decay."""
    apart = {id(tensor) for tensor in scores}
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in apart]
    head = [p for n, p in named if n.startswith("classifier")]
    rest = [p for n, p in named if not n.startswith("classifier") and "mask_scores" not in n]
    groups = [(rest, "weights"), (head, "head"), (list(scores), "scores")]
    parts = [{"params": found, "lr": RATES[name]} for found, name in groups if found]
    return torch.optim.AdamW(parts, weight_decay=0.0)


def share_out(authors: Authors, model: Any, temperature: float, level: float) -> None:
    """The authors' shares of SMP-S, set on their layers."""
    trainer = SimpleNamespace(args=SimpleNamespace(magnitude_topk_threshold_p=temperature))
    authors.functions["set_magnitude_topk_threshold"](trainer, model, level)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference."""
    return float((one.detach() - other.detach()).abs().max())


LENGTHS = {"mnli": (73_632, 12_000), "qqp": (113_710, 12_000), "squad": (55_330, 5_400)}
"""Steps and warm-up of the movement authors' runs, as their README gives them."""


def schedules(authors: Authors) -> float:
    """The largest relative difference of movement's density and lambda to the authors' over every
    step of their runs."""
    worst = 0.0
    for total, warmup in LENGTHS.values():
        ramp = {"start": warmup / total, "stop": 1 - 2 * warmup / total}
        method: Method = methods["movement"].make(0.03, penalty=400.0, first=0.9, **ramp)
        assert method.penalty is not None
        for step in range(total):
            theirs = authors.functions["schedule_threshold"](
                step, total, warmup, 0.9, 0.03, 1, 2, 400.0
            )
            ours = (method.level(step, total), method.penalty.weight(step, total))
            pairs = zip(ours, theirs, strict=True)
            worst = max([worst, *(abs((a or 0.0) - b) / b for a, b in pairs)])
    return worst


CHECKOUTS = {
    "movement": "the folder movement-pruning",
    "smp": "kongds/SMP",
    "wanda": "locuslab/wanda",
    "sparsegpt": "IST-DASLab/sparsegpt",
    "admm": "fmfi-compbio/admm-pruning",
    "obert": "neuralmagic/sparseml",
}
"""Options, and the checkouts that they name."""
AT_ONCE: Mapping[str, Callable[[Path], Iterator[OneShot]]] = {
    "wanda": of_wanda,
    "sparsegpt": of_sparsegpt,
    "admm": of_admm,
}
"""Cases of the solvers that prune a matrix at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if a mask that must be equal differs in
    float64."""
    parser = argparse.ArgumentParser(prog="python -m tests.certify", description=__doc__)
    for name, what in CHECKOUTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"a checkout of {what}")
    found = vars(parser.parse_args(argv))
    folders = {name: folder for name, folder in found.items() if folder is not None}
    try:
        if not folders:
            raise ConfigError(f"give the folder of a checkout: --{', --'.join(CHECKOUTS)}")
        load_built_in()
        return max(certify(folders), certify_at_once(folders))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def certify(folders: Mapping[str, Path]) -> int:
    """Print how far the trainings and the schedules agree."""
    wanted = (
        ("movement", "masked_run_glue.py", ("regularization", "schedule_threshold"), MOVEMENT),
        ("smp", "smp_trainer.py", ("regularization", "set_magnitude_topk_threshold"), SMP),
    )
    found: list[Agreement] = []
    for option, script, names, cases in wanted:
        if option not in folders:
            continue
        authors = load(folders[option], script, names)
        for dtype in PRECISIONS:
            found += [train(case, authors, dtype) for case in cases]
        if "schedule_threshold" in names:
            print(
                f"Density and lambda, every step of three runs: {schedules(authors):.1g} at most\n"
            )
    rows = [
        [
            a.name,
            a.precision,
            f"{a.masks:.6f}",
            *(f"{x:.1g}" for x in (a.scores, a.loss, a.weights)),
        ]
        for a in found
    ]
    show(rows, ["Code", "Float", "Mask entries equal", "Scores", "Loss", "Final weights"])
    return int(any(a.masks < 1 for a in found if a.precision == "float64"))


def certify_at_once(folders: Mapping[str, Path]) -> int:
    """Print how far what prunes at once agrees."""
    cases = [case for name, of in AT_ONCE.items() if name in folders for case in of(folders[name])]
    found: list[Match] = [compare(case, dtype) for case in cases for dtype in PRECISIONS]
    if "obert" in folders:
        found += [compare_obert(folders["obert"], a, d) for a in LEVELS for d in PRECISIONS]
    rows = [[m.name, m.precision, f"{m.masks:.6f}", f"{m.weights:.1g}"] for m in found]
    show(rows, ["Code", "Float", "Mask entries equal", "Weights"])
    return int(any(m.masks < 1 for m in found if m.equal and m.precision == "float64"))


def show(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print a table, if it has rows."""
    if rows:
        print(tabulate(rows, header, "pipe", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
