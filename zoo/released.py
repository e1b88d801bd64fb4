"""python -m zoo.released: judge a task with a mask file of the SMP authors; read and write them.

A mask file is a one-dimensional uint8 array in NumPy's format: one bit per prunable weight, the
first in the highest bit, matrices in lexicographic order of their names ("layer.10" before
"layer.2"), each row by row. Their MNLI masks belong to label words in another order than the
paper's, which is forced here and nowhere else.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.checkpoint import find_checkpoint
from zoo.compact import compact, without_thin_rows
from zoo.errors import BenchmarkError, ConfigError
from zoo.heads import mlm_label_words
from zoo.masked import MaskedModel, export
from zoo.masks import MaskFn
from zoo.method import Method, nothing
from zoo.outputs import outputs
from zoo.registry import BUILT_IN, find_plugin, load_plugin, tasks
from zoo.schedules import constant
from zoo.scores import magnitude
from zoo.task import Source, Task, TaskData, prepare
from zoo.trial import write_whole

WORDS = {"mnli": ("Maybe", "No", "Yes")}
"""Label words of the released runs where they are not the task's own, in the task's order of
classes. The authors' code sorts MNLI as contradiction, entailment, neutral and leaves the words at
Yes, Maybe, No; the released masks were learned with it."""


def read_masks(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The masks of a file, by matrix name, in the order of `shapes`. Raises ConfigError."""
    try:
        packed = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"masks {path}: not a NumPy array without objects: {error}") from None
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


def write_masks(masks: Mapping[str, Tensor], path: Path) -> None:
    """Write masks by matrix name as the authors' files have them. Raises StorageError."""
    bits = [masks[name].flatten().cpu().numpy().astype(bool) for name in sorted(masks)]
    with tempfile.TemporaryFile() as stream:
        np.save(stream, np.packbits(np.concatenate(bits)), allow_pickle=False)
        stream.seek(0)
        write_whole(path, stream.read())


THIN = 10
"""Remaining weights below which SMP's lossy compaction drops a row."""


def as_released(task: Task) -> Task:
    """The task with the label words that the released masks belong to."""
    return replace(task, words=WORDS.get(task.name, task.words))


def method_of(masks: MaskFn) -> Method:
    """Frozen weights under fixed masks, with the head of the released code."""
    return Method(
        score=magnitude,
        mask=masks,
        level=constant(1.0),
        budget=None,
        trains=nothing,
        head=mlm_label_words,
    )


def judge(path: Path, model: str, task: Task, source: Source, data: TaskData) -> list[str]:
    """Lines that say what the masks keep and what the masked model scores."""
    checkpoint = find_checkpoint(model)
    network = mlm_label_words.build(checkpoint, task)
    masked = MaskedModel(
        network.encoder,
        method_of(
            lambda scores, level: read_masks(path, {name: s.shape for name, s in scores.items()})
        ),
        torch.Generator(),
    )
    masked.refresh(1.0)
    words = task.words
    if task.labels:
        words = tuple(f"{name} = {word}" for name, word in zip(task.labels, words, strict=True))
    stock, state = mlm_label_words.build(checkpoint, task).encoder, export(network.encoder, masked)
    entries = sum(masked.sizes.values())
    exact, lossy = (
        compact(stock, weights).matrix_entries / entries
        for weights in (state, without_thin_rows(state, THIN))
    )
    lines = [
        f"remaining weights {masked.remaining().density:.4%}",
        f"matrices without what is dead {exact:.2%} of their size, the scores stay;"
        f" {lossy:.2%} without rows of fewer than {THIN} weights, the scores change",
        f"label words {', '.join(words)}",
        *task.notes(source),
    ]
    for split, encoded in data.evaluation.items():
        scores = task.score(split, outputs(network, encoded)["logits"], encoded).metrics
        lines += [f"{name} {value:.2f}" for name, value in scores.items() if value is not None]
    return lines


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.released", description=__doc__)
    parser.add_argument("masks", type=Path, help="a .npy file of packed bits")
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", default="bert-base-uncased", help="folder or hub name")
    parser.add_argument("--data-dir", help="a folder with glue/ and squad/")
    options = parser.parse_args()
    try:
        for name in BUILT_IN:
            load_plugin(find_plugin(name))
        task = as_released(tasks[options.task].make())
        source = task.locate(options.data_dir)
        length = 384 if task.output.per_token else 128
        with tempfile.TemporaryDirectory() as cache:
            data = prepare(task, source, find_checkpoint(options.model), length, Path(cache))
            print("\n".join(judge(options.masks, options.model, task, source, data)))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
