"""Heads and checkpoints: what is loaded is what the checkpoint holds."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from tasks.glue import sst2
from tasks.squad import squad
from tests.helpers import save_checkpoint
from zoo import ConfigError, label_words, mlm_label_words, trained
from zoo.inputs.batches import Batch
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.kinds import ARCHITECTURES
from zoo.inputs.tokeniser import load_tokenizer, word_ids
from zoo.parts.heads import HIDDEN_PADDING, LabelWords

TOKENS = torch.tensor([[2, 9, 12, 3], [2, 15, 3, 0]])
ATTENTION = TOKENS != 0


def batch() -> Batch:
    """Two sentences, the second one shorter."""
    return Batch(torch.arange(2), TOKENS, torch.zeros_like(TOKENS), ATTENTION, torch.tensor([0, 1]))


@pytest.mark.parametrize("task", [sst2(), squad()])
def test_mlm_label_words_equal_the_masked_language_model(checkpoint, task):
    """Logits equal the stock masked language model's, at the label words alone."""
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


def test_heads_are_checked_without_loading_tensors(checkpoint, headless, tmp_path):
    """As they are built, so that a plan fails before anything runs."""
    whole, bare = find_checkpoint(str(checkpoint)), find_checkpoint(str(headless))
    for head in (trained, label_words, mlm_label_words):
        head.check(whole, sst2())
    label_words.check(bare, sst2())
    with pytest.raises(ConfigError, match=r"headless has no MLM head.*use the head label_words"):
        mlm_label_words.check(bare, sst2())
    odd = find_checkpoint(str(save_checkpoint(tmp_path / "odd", words=["cat"])))
    for head in (label_words, mlm_label_words):
        with pytest.raises(ConfigError, match="label word 'terrible' is"):
            head.check(odd, sst2())
    trained.check(odd, sst2())


def test_label_words_are_products_with_their_embeddings(headless):
    found = find_checkpoint(str(headless))
    network = label_words.build(found, sst2()).eval()
    with torch.no_grad():
        logits, representation = network(batch())
    table = load_file(headless / "model.safetensors")["embeddings.word_embeddings.weight"]
    ids = word_ids(found, "sst2", ("terrible", "great"))
    assert torch.allclose(logits, representation @ table[ids].T, atol=1e-6)


def test_heads_of_label_words_have_no_fresh_parameters_and_do_not_train(checkpoint):
    for head in (label_words, mlm_label_words):
        network = head.build(find_checkpoint(str(checkpoint)), sst2())
        assert not network.fresh
        assert not any(p.requires_grad for p in network.head.parameters())


def test_a_checkpoint_without_mlm_head_is_rejected_with_the_head_to_use(headless):
    with pytest.raises(ConfigError, match="no MLM head.*use the head label_words"):
        mlm_label_words.build(find_checkpoint(str(headless)), sst2())


def test_the_parameters_of_a_trained_head_are_fresh(checkpoint):
    network = trained.build(find_checkpoint(str(checkpoint)), sst2())
    assert {name for name in network.fresh if name.startswith("head.")} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }
    assert {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"} <= network.fresh


def test_span_logits_hide_padding(headless):
    network = trained.build(find_checkpoint(str(headless)), squad())
    logits, _ = network(batch())
    assert (logits[1, 3] == HIDDEN_PADDING).all()
    assert (logits[ATTENTION] != HIDDEN_PADDING).all()


def test_a_label_word_of_several_tokens_is_rejected(checkpoint):
    found = find_checkpoint(str(checkpoint))
    with pytest.raises(ConfigError, match=r"task t: label word 'banana' is .* tokeniser of small"):
        word_ids(found, "t", ("banana",))


def test_the_fingerprint_changes_with_a_single_weight(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "small")
    before = find_checkpoint(str(checkpoint))
    assert find_checkpoint(str(copy)).sha == before.sha
    other = shutil.copytree(checkpoint, tmp_path / "other" / "small")
    tensors = load_file(other / "model.safetensors")
    tensors["bert.encoder.layer.0.output.dense.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    changed = find_checkpoint(str(other))
    assert changed.sha != before.sha and changed.tokenizer_sha == before.tokenizer_sha


def test_a_file_that_changed_is_read_again(checkpoint, tmp_path):
    """A checkpoint is looked up once, as long as its files stay as they are."""
    copy = shutil.copytree(checkpoint, tmp_path / "small")
    before = find_checkpoint(str(copy))
    assert find_checkpoint(str(copy)) is before
    tensors = load_file(copy / "model.safetensors")
    tensors["bert.encoder.layer.0.output.dense.weight"][0, 0] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert find_checkpoint(str(copy)).sha != before.sha


def test_an_untied_decoder_moves_with_the_network(tmp_path):
    """Where the decoder is not the embedding, it is the head's own, whatever the device."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        tie_word_embeddings=False,
    )
    model = BertForMaskedLM(config).eval()
    decoder = model.cls.predictions.decoder
    assert decoder.weight is not model.bert.embeddings.word_embeddings.weight
    lm = ARCHITECTURES["bert"].mlm_head(model)
    head = LabelWords([4, 7], False, lm.transform, lm.decoder, lm.bias, tied=False)
    hidden = torch.randn(3, 5, 8)
    expected = model.cls(hidden)[:, 0, [4, 7]]
    assert torch.allclose(head(hidden, None)[0], expected, atol=1e-6)
    assert head.double()(hidden.double(), None)[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'; supported: bert, roberta, xlm-roberta"),
        ({"auto_map": {"AutoModel": "x.py"}}, "auto_map"),
        ({"hidden_size": None}, "config.json says hidden_size None; expected a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers True; expected a whole number"),
        ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id None; expected a whole"),
    ],
)
def test_unsupported_checkpoints_are_rejected(checkpoint, tmp_path, change, message):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        find_checkpoint(str(copy))


def test_a_folder_that_lacks_a_file_is_rejected(tmp_path, checkpoint):
    with pytest.raises(ConfigError, match="no such folder"):
        find_checkpoint(str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"no model\.safetensors in it"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match="no tokeniser in it; expected tokenizer.json, vocab.txt"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(ConfigError, match=r"cannot read model\.safetensors"):
        find_checkpoint(str(tmp_path))


def test_a_checkpoint_that_lacks_a_matrix_is_rejected(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"layer\.1\.output\.dense\.weight is not in the file"):
        trained.build(find_checkpoint(str(copy)), sst2())


def test_files_in_half_precision_are_loaded_as_float32(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "half")
    tensors = {k: v.half() for k, v in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    network = trained.build(find_checkpoint(str(copy)), sst2())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert load_tokenizer(find_checkpoint(str(copy)))("great")["input_ids"] == [2, 8, 3]
