"""Heads and checkpoints: what is loaded is what the checkpoint holds."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, RobertaConfig, RobertaForMaskedLM

from tasks.glue import sst2
from tasks.squad import squad
from zoo.checkpoint import find_checkpoint, load_tokenizer, word_ids
from zoo.errors import ConfigError
from zoo.heads import HIDDEN_PADDING, label_words, mlm_label_words, trained
from zoo.masked import prunable
from zoo.task import Batch

TOKENS = torch.tensor([[2, 9, 12, 3], [2, 15, 3, 0]])
ATTENTION = TOKENS != 0


def batch() -> Batch:
    return Batch(torch.arange(2), TOKENS, torch.zeros_like(TOKENS), ATTENTION, torch.tensor([0, 1]))


@pytest.mark.parametrize("task", [sst2(), squad()])
def test_mlm_label_words_are_the_masked_lm(checkpoint, task):
    """P-21: logits equal the stock masked language model's at the place, for the words alone."""
    found = find_checkpoint(str(checkpoint))
    network = mlm_label_words.build(found, task).eval()
    stock = AutoModelForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = word_ids(found, task.name, task.words)
    with torch.no_grad():
        logits, _ = network(batch())
        whole = stock(input_ids=TOKENS, attention_mask=ATTENTION.long()).logits[..., ids]
    expected = whole if task.output.per_token else whole[:, 0]
    shown = ATTENTION if task.output.per_token else slice(None)
    assert torch.allclose(logits[shown], expected[shown], atol=1e-5)


def test_roberta_has_the_same_heads(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "great", "terrible"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=7,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        type_vocab_size=1,
    )
    stock = RobertaForMaskedLM(config).eval()
    for name, parameter in stock.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    stock.save_pretrained(tmp_path)
    found = find_checkpoint(str(tmp_path))
    assert found.model_type == "roberta" and found.has_mlm_head
    tokens = torch.tensor([[0, 5, 6, 2]])
    one = Batch(torch.arange(1), tokens, torch.zeros_like(tokens), tokens >= 0, torch.tensor([0]))
    with torch.no_grad():
        logits, _ = mlm_label_words.build(found, sst2()).eval()(one)
        expected = stock(input_ids=tokens).logits[:, 0, [6, 5]]
        assert torch.allclose(logits, expected, atol=1e-6)
        assert label_words.build(found, sst2()).eval()(one)[0].shape == (1, 2)
        assert trained.build(found, sst2()).eval()(one)[0].shape == (1, 2)
    assert len(prunable(trained.build(found, sst2()).encoder)) == 12


def test_label_words_are_products_with_embeddings(headless):
    found = find_checkpoint(str(headless))
    network = label_words.build(found, sst2()).eval()
    with torch.no_grad():
        logits, representation = network(batch())
    table = load_file(headless / "model.safetensors")["embeddings.word_embeddings.weight"]
    ids = word_ids(found, "sst2", ("terrible", "great"))
    assert torch.allclose(logits, representation @ table[ids].T, atol=1e-6)


def test_label_words_add_nothing_new_and_do_not_train(checkpoint):
    for head in (label_words, mlm_label_words):
        network = head.build(find_checkpoint(str(checkpoint)), sst2())
        assert not network.fresh
        assert not any(p.requires_grad for p in network.head.parameters())


def test_a_checkpoint_without_mlm_head_names_the_other_head(headless):
    with pytest.raises(ConfigError, match="no MLM head.*use the head label_words"):
        mlm_label_words.build(find_checkpoint(str(headless)), sst2())


def test_a_trained_head_is_fresh(checkpoint):
    network = trained.build(find_checkpoint(str(checkpoint)), sst2())
    assert {name for name in network.fresh if name.startswith("head.")} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }
    assert {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"} <= network.fresh


def test_padding_is_hidden_from_spans(headless):
    network = trained.build(find_checkpoint(str(headless)), squad())
    logits, _ = network(batch())
    assert (logits[1, 3] == HIDDEN_PADDING).all()
    assert (logits[ATTENTION] != HIDDEN_PADDING).all()


def test_a_label_word_must_be_one_token(checkpoint):
    found = find_checkpoint(str(checkpoint))
    with pytest.raises(ConfigError, match=r"task t: label word 'banana' is .* tokeniser of small"):
        word_ids(found, "t", ("banana",))


def test_the_fingerprint_changes_with_one_weight(checkpoint, tmp_path):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "small")
    before = find_checkpoint(str(checkpoint))
    assert find_checkpoint(str(copy)).sha == before.sha
    other = shutil.copytree(checkpoint, tmp_path / "other" / "small")
    tensors = load_file(other / "model.safetensors")
    tensors["bert.encoder.layer.0.output.dense.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    changed = find_checkpoint(str(other))
    assert changed.sha != before.sha and changed.tokenizer_sha == before.tokenizer_sha


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'; supported: bert, roberta"),
        ({"auto_map": {"AutoModel": "x.py"}}, "auto_map"),
    ],
)
def test_other_checkpoints_are_refused(checkpoint, tmp_path, change, message):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        find_checkpoint(str(copy))


def test_a_folder_that_is_not_there_and_one_without_weights(tmp_path, checkpoint):
    with pytest.raises(ConfigError, match="no such folder"):
        find_checkpoint(str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"no \.safetensors file"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match=r"cannot read model\.safetensors"):
        find_checkpoint(str(tmp_path))


def test_a_checkpoint_that_lacks_a_matrix_is_refused(checkpoint, tmp_path):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 tensors are missing.*layer\.1\.output\.dense"):
        trained.build(find_checkpoint(str(copy)), sst2())


def test_half_precision_files_load_as_float32(checkpoint, tmp_path):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "half")
    tensors = {k: v.half() for k, v in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    network = trained.build(find_checkpoint(str(copy)), sst2())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert load_tokenizer(find_checkpoint(str(copy)))("great")["input_ids"] == [2, 8, 3]
