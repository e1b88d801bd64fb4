"""python -m zoo.tools.released: evaluate a task with a mask file of the SMP authors.

A mask file is a one-dimensional uint8 array in NumPy's format: one bit per prunable weight, the
first in the highest bit, matrices in lexicographic order of their names ("layer.10" before
"layer.2"), each row by row; or a .pt file, which holds a dictionary of masks by the names of the
authors' parameters ("bert.encoder.layer.0.output.dense.mask_scores"). The MNLI masks were learned
with label words in another order than the paper's; that order is used here and nowhere else.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from zoo.ends import command, leave
from zoo.engine.build import usual_device
from zoo.engine.compact import THIN, compact, matrix_entries, without_thin_rows
from zoo.engine.evaluation_set import EvaluationSet
from zoo.engine.export import export
from zoo.engine.masked import MaskedModel
from zoo.errors import ConfigError, one_line
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.kinds import prunable
from zoo.inputs.task import Source, Task
from zoo.parts.heads import mlm_label_words
from zoo.parts.method import Method, nothing
from zoo.parts.schedules import Constant
from zoo.parts.scores import magnitude
from zoo.plugins import load_built_in
from zoo.registry import tasks

WORDS = {"mnli": ("Maybe", "No", "Yes")}
"""Label words of the released runs where they differ from the task's, in the task's order of
classes. The authors' code sorts MNLI as contradiction, entailment, neutral and leaves the words at
Yes, Maybe, No; the released masks were learned with it."""

UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, TokenError)
"""What NumPy may raise for a file that is not an array in its format."""


def read_masks(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The masks of a file by matrix name, in the order of `shapes`. Raises ConfigError."""
    if path.suffix == ".pt":
        return _read_dictionary(path, shapes)
    try:
        packed = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        raise ConfigError(
            f"masks {path}: not a NumPy array (.npy): {one_line(error, 80)}"
        ) from None
    entries = sum(shape.numel() for shape in shapes.values())
    if packed.dtype != np.uint8 or packed.shape != (-(-entries // 8),):
        raise ConfigError(
            f"masks {path}: expected {-(-entries // 8):,} bytes (uint8) for the {entries:,} weights"
            f" of this model, got {packed.dtype} of shape {packed.shape}"
        )
    bits = torch.from_numpy(np.unpackbits(packed, count=entries)).bool()
    names = sorted(shapes)
    parts = bits.split([shapes[name].numel() for name in names])
    masks = {n: part.view(shapes[n]) for n, part in zip(names, parts, strict=True)}
    return {name: masks[name] for name in shapes}


def _read_dictionary(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The masks of a .pt file; nothing but tensors is read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ConfigError(
            f"masks {path}: not a dictionary of tensors (.pt): {one_line(error, 80)}"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"masks {path}: holds a {type(found).__name__}, not masks by name")
    named = {_matrix_of(str(key)): value for key, value in found.items()}
    for name, shape in shapes.items():
        mask = named.get(name)
        if not isinstance(mask, Tensor) or mask.shape != shape:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else "nothing"
            raise ConfigError(f"masks {path}: {name} should be of shape {tuple(shape)}, got {got}")
        if not ((mask == 0) | (mask == 1)).all():
            raise ConfigError(f"masks {path}: {name} must hold only 0 and 1")
    if unknown := sorted(set(named) - set(shapes)):
        raise ConfigError(f"masks {path}: this model has no matrix {unknown[0]}")
    return {name: named[name].bool() for name in shapes}


def _matrix_of(key: str) -> str:
    """'encoder.layer.0.output.dense' of 'bert.encoder.layer.0.output.dense.mask_scores'."""
    before, mark, after = key.partition("encoder.")
    return (mark + after).removesuffix(".mask_scores") if mark else before


def as_released(task: Task) -> Task:
    """The task with the label words that the released masks were learned with."""
    return replace(task, words=WORDS.get(task.name, task.words))


def method_of(masks: Mapping[str, Tensor]) -> Method:
    """Frozen weights under fixed masks, with the head of the released code."""
    return Method(
        score=magnitude,
        mask=lambda scores, level: {n: masks[n].to(s.device) for n, s in scores.items()},
        level=Constant(1.0),
        budget=None,
        trains=nothing,
        head=mlm_label_words,
    )


def evaluate_masks(path: Path, checkpoint: Checkpoint, task: Task, source: Source) -> Iterator[str]:
    """Lines for the user: how much the masks keep, and the masked model's metrics."""
    network = mlm_label_words.build(checkpoint, task).to(usual_device())
    linears = prunable(network.encoder)
    masks = read_masks(path, {name: linear.weight.shape for name, linear in linears.items()})
    masked = MaskedModel(network.encoder, method_of(masks), torch.Generator())
    masked.refresh(1.0)
    yield f"remaining weights {masked.remaining().density:.4%}"
    stock = mlm_label_words.build(checkpoint, task).encoder
    state, entries = export(network.encoder, masked), sum(masked.sizes.values())
    exact, lossy = (
        matrix_entries(compact(stock, weights)) / entries
        for weights in (state, without_thin_rows(state, checkpoint.architecture, THIN))
    )
    yield (
        f"entries of the matrices without dead rows and columns {exact:.2%}, without rows of fewer"
        f" than {THIN} weights either {lossy:.2%} (a layer's heads padded to its widest)"
    )
    words = task.words
    if task.labels:
        words = tuple(f"{name} = {word}" for name, word in zip(task.labels, words, strict=True))
    yield f"label words {', '.join(words)}"
    yield from task.notes(source)
    length = min(384 if task.output.per_token else 128, checkpoint.positions)  # the released runs'
    found = EvaluationSet(task, source, checkpoint, length).metrics(network)
    yield from (f"{name} {value:.2f}" for name, value in found.items() if value is not None)


@command
def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.tools.released", description=__doc__)
    parser.add_argument("masks", type=Path, help="a .npy file of packed bits, or a .pt file")
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", default="bert-base-uncased", help="folder or hub name")
    parser.add_argument("--data-dir", help="a folder with glue/ and squad/")
    options = parser.parse_args()
    load_built_in()
    task = as_released(tasks[options.task].make())
    checkpoint = find_checkpoint(options.model)
    for line in evaluate_masks(options.masks, checkpoint, task, task.locate(options.data_dir)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    leave(main())
