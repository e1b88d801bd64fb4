"""A trained model as a folder that stock transformers loads, without this project.

The stock model that computes the same depends on the head: zoo/engine/stock.py.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.engine.build import Run
from zoo.engine.cards import card
from zoo.engine.stock import ABOUT, BARE, Reading, StockNetwork, load_stock, stock_model
from zoo.errors import TrialError
from zoo.inputs.batches import collate
from zoo.inputs.tokeniser import load_tokenizer
from zoo.parts.heads import LabelWords
from zoo.records.codec import to_json
from zoo.records.mask_file import encode
from zoo.records.result import Result
from zoo.records.storage import whole_folder

MASK_FILE = "mask.zmsk"
CLOSE = 1e-4
"""Largest difference of logits between the trial's model and the saved one that is rounding."""


def save_model(run: Run, result: Result, folder: Path) -> Path:
    """Save the model of a trial that has ended in `folder`/ID, whole or not at all, and load it
    again to compare its logits.

    Raises StorageError, and TrialError if the logits differ by more than rounding.
    """
    target = folder / run.trial.id
    with whole_folder(target) as half, torch.no_grad():
        reading = _write(run, result, half)
        _compare(run, reading, half)
    return target


def _write(run: Run, result: Result, folder: Path) -> Reading:
    model, reading = stock_model(run)
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(run.checkpoint)
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.save_pretrained(folder)
    if reading.loader == BARE:
        save_file(_tensors_of(run.network.head), folder / "head.safetensors")
    masks = {n: (g != 0).cpu().numpy() for n, g in run.masked.test_gates().items()}
    if masks:
        (folder / MASK_FILE).write_bytes(encode(masks, run.trial.model_sha))
    about = {
        "trial": to_json(run.trial),
        "loader": reading.loader,
        "label_words": dict(zip(run.task.words, reading.words, strict=False)),
        "labels": list(run.task.labels),
        "words": list(run.task.words) if isinstance(run.network.head, LabelWords) else [],
        "per_token": reading.per_token,
        "packages": dict(result.environment.packages),
        "notes": list(result.notes),
        "metrics": dict(result.metrics),
        "remaining": {
            "prunable": result.remaining.density,
            "with_biases_and_norms": result.remaining.encoder_density,
        },
        "digests": dict(result.digests),
        "linear_head": reading.loader == BARE and isinstance(run.network.head, LabelWords),
        "has_mask": bool(masks),
        "mask_is_all": result.parameters.values == result.parameters.other == 0,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card(about, result), encoding="utf-8")
    return reading


def _tensors_of(head: nn.Module) -> dict[str, Tensor]:
    """A head's tensors; of label words the rows and the bias of their last layer."""
    state = dict(head.state_dict())
    if isinstance(head, LabelWords):
        rows, bias = head.matrix()
        state = {"weight": rows, "bias": bias}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _compare(run: Run, reading: Reading, folder: Path) -> None:
    """Raise TrialError unless the model in a folder, loaded as anybody would, gives the trial's
    logits for some examples of the evaluation set."""
    if reading.loader == BARE:
        return
    pad = run.network.pad
    theirs = StockNetwork(load_stock(folder)[0].to(run.device), reading, pad)
    data = next(iter(run.data.evaluation.values()))
    batch = collate(data, np.arange(min(8, len(data))), pad, run.device)
    run.network.eval()
    with run.masked.evaluating():
        difference = run.network(batch)[0] - theirs(batch)[0]
    worst = float(difference[batch.attention if reading.per_token else slice(None)].abs().max())
    if not worst <= CLOSE:
        raise TrialError(f"the saved model's logits differ by {worst:.2g} from the trial's")
