"""Mask files of the SMP authors: the order of bits, faults, and the label words they belong to."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from tasks.glue import mnli
from tests.helpers import write_parquet
from zoo import ConfigError
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.tokeniser import load_tokenizer, word_ids
from zoo.tools.released import as_released, main, read_masks

LAYERS = (0, 1, 2, 10, 11)
KINDS = ("attention.self.query", "attention.self.key", "attention.output.dense", "output.dense")
SHAPES = {f"encoder.layer.{i}.{kind}": torch.Size((3, 5)) for i in LAYERS for kind in KINDS}


def some_masks() -> dict[str, torch.Tensor]:
    """Random masks of the shapes."""
    draw = torch.Generator().manual_seed(0)
    return {n: torch.rand(shape, generator=draw) < 0.3 for n, shape in SHAPES.items()}


def test_bits_are_in_lexicographic_order_with_the_first_in_the_highest_bit(tmp_path):
    """By hand: layer 0, 1, 10, 11, 2; inside a layer O, K, Q, D; row by row."""
    masks = some_masks()
    order = [
        f"encoder.layer.{layer}.{kind}"
        for layer in ("0", "1", "10", "11", "2")
        for kind in (
            "attention.output.dense",
            "attention.self.key",
            "attention.self.query",
            "output.dense",
        )
    ]
    bits = [int(bit) for name in order for row in masks[name].tolist() for bit in row]
    packed = [
        sum(bit << (7 - place) for place, bit in enumerate(bits[at : at + 8]))
        for at in range(0, len(bits), 8)
    ]
    np.save(tmp_path / "m.npy", np.array(packed, np.uint8))
    found = read_masks(tmp_path / "m.npy", SHAPES)
    assert list(found) == list(SHAPES)
    assert all(torch.equal(found[name], masks[name]) for name in SHAPES)


def test_masks_of_bert_base_have_10_616_832_bytes():
    kinds = dict.fromkeys(("q", "k", "v", "o"), 768 * 768) | dict.fromkeys(("u", "d"), 3072 * 768)
    assert 12 * sum(kinds.values()) / 8 == 10_616_832


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(37, np.uint8), r"expected 38 bytes \(uint8\) for the 300 weights"),
        (np.zeros(38, np.float32), "got float32 of shape"),
        (np.zeros((2, 19), np.uint8), "got uint8 of shape"),
        (None, r"not a NumPy array \(.npy\)"),
        (b"PK\x03\x04", r"not a NumPy array \(.npy\)"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': (", r"not a NumPy array \(.npy\)"),
    ],
)
def test_files_that_hold_no_masks_are_rejected(tmp_path, content, message):
    path = tmp_path / "m.npy"
    if content is None:
        path.write_text("not an array")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ConfigError, match=message):
        read_masks(path, SHAPES)


def test_a_mask_file_is_evaluated_on_a_task(checkpoint, tmp_path, capsys, monkeypatch):
    """With all weights kept: the stock model's accuracy with the label words that the released
    masks of MNLI belong to."""
    texts = ["the cat runs", "a dog barks", "the old dog", "cat"]
    columns = {"premise": texts, "hypothesis": texts[::-1], "label": [0, 1, 2, 1]}
    for split in ("train", "validation_matched"):
        write_parquet(tmp_path / "glue" / "mnli" / f"{split}.parquet", columns)
    size = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    np.save(tmp_path / "m.npy", np.full(size // 8, 255, np.uint8))
    arguments = [str(tmp_path / "m.npy"), "--task", "mnli", "--model", str(checkpoint)]
    monkeypatch.setattr("sys.argv", ["released", *arguments, "--data-dir", str(tmp_path)])
    assert main() == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "remaining weights 100.0000%"
    assert said[1].startswith("entries of the matrices without dead rows and columns 100.00%")
    assert said[2] == "label words entailment = Maybe, neutral = No, contradiction = Yes"
    found = find_checkpoint(str(checkpoint))
    model = AutoModelForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = word_ids(found, "mnli", as_released(mnli()).words)
    right = 0
    for premise, hypothesis, label in zip(*columns.values(), strict=True):
        batch = load_tokenizer(found)(premise, hypothesis, return_tensors="pt")
        right += int(model(**batch).logits[0, 0, ids].argmax()) == label
    assert said[-1] == f"acc_m {100 * right / 4:.2f}"


def test_an_unknown_task_is_an_error_on_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    arguments = [str(tmp_path / "absent.npy"), "--task", "mnl", "--model", str(checkpoint)]
    monkeypatch.setattr("sys.argv", ["released", *arguments])
    assert main() == 2
    error = capsys.readouterr().err.strip()
    assert "did you mean 'mnli'" in error and "\n" not in error


def test_a_dictionary_of_masks_is_read(tmp_path):
    """As their to_mask.py names them; as bool, uint8 or float."""
    masks = some_masks()
    for kind in (torch.bool, torch.uint8, torch.float32):
        named = {f"bert.{name}.mask_scores": mask.to(kind) for name, mask in masks.items()}
        torch.save(named, tmp_path / "m.pt")
        found = read_masks(tmp_path / "m.pt", SHAPES)
        assert list(found) == list(SHAPES)
        assert all(torch.equal(found[name], masks[name]) for name in SHAPES)


def test_a_bad_dictionary_is_one_line(tmp_path):
    path, masks = tmp_path / "m.pt", some_masks()
    first = next(iter(masks))

    def written(changes, message: str) -> None:
        torch.save(changes, path)
        with pytest.raises(ConfigError, match=message):
            read_masks(path, SHAPES)

    written(
        {n: m for n, m in masks.items() if n != first}, f"{first} should be of shape .* nothing"
    )
    written(masks | {first: torch.zeros(2, 2)}, f"{first} should be of shape")
    written(masks | {first: torch.full((3, 5), 0.5)}, "must hold only 0 and 1")
    written(
        masks | {"encoder.layer.99.output.dense": masks[first]}, "has no matrix encoder.layer.99"
    )
    written([1, 2], "holds a list, not masks by name")
    written({"a": ConfigError}, r"not a dictionary of tensors")
    path.write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"not a dictionary of tensors"):
        read_masks(path, SHAPES)
