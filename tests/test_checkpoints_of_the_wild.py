"""Checkpoints as people have them: what works and is right, or one line before the first trial."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tasks.glue import mrpc
from tasks.text import encode_text
from tests.helpers import save_checkpoint, write_parquet, write_sst2
from zoo import ConfigError, Encoded, trained
from zoo.engine.rehearse import rehearse
from zoo.inputs.batches import collate
from zoo.inputs.checkpoint import find_checkpoint, load_encoder
from zoo.inputs.model_files import TOKENIZER_FILES
from zoo.inputs.tokenised import tokenise
from zoo.inputs.tokeniser import load_tokenizer, tokeniser_notes
from zoo.parts import heads

Spoil = Callable[[Path], object]


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """A copy of the small BERT with an MLM head, to be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "mine"))


@pytest.fixture
def plan(run, folder, tmp_path):
    """Plans a suite on the changed checkpoint; returns exit code, output and errors."""
    write_sst2(tmp_path / "data")
    return lambda *more: run(
        *("--suite", "smoke", "--model", str(folder), "--data-dir", str(tmp_path / "data")),
        *("--tasks", "sst2", "--methods", "dense", "--seeds", "0", "--dry-run", *more),
    )


def refused(plan, message: str, *more: str) -> None:
    """One line on stderr with this message, exit 2, nothing planned."""
    code, out, err = plan(*more)
    assert code == 2, out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: model "), err
    assert message in lines[0]
    assert "Traceback" not in out + err


def config(**changes: Any) -> Spoil:
    """Changes entries of config.json."""
    return lambda folder: write_json(folder / "config.json", changes)


def write_json(file: Path, changes: dict[str, Any]) -> None:
    """Change entries of a JSON file, which may not exist."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    """Changes the tensors in the file of weights."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """One change after the other."""
    return lambda folder: [spoil(folder) for spoil in spoils]


def sharded(folder: Path) -> None:
    """The weights in two files with an index."""
    found = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for number, names in enumerate((list(found)[:9], list(found)[9:])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: found[name] for name in names}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def without(name: str) -> Spoil:
    """Removes a file."""
    return lambda folder: (folder / name).unlink()


def content(name: str, text: bytes) -> Spoil:
    """Puts a content in the place of a file's."""
    return lambda folder: (folder / name).write_bytes(text)


def cut(name: str, share: float) -> Spoil:
    """Keeps the first part of a file."""

    def spoil(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return spoil


def in_tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Changes the content of tokenizer.json."""

    def spoil(folder: Path) -> None:
        file = folder / "tokenizer.json"
        found = json.loads(file.read_text())
        change(found)
        file.write_text(json.dumps(found))

    return spoil


def no_segments(found: dict[str, Any]) -> None:
    """All type ids of the post-processor are 0."""
    text = json.dumps(found["post_processor"]).replace('"type_id": 1', '"type_id": 0')
    found["post_processor"] = json.loads(text)


def with_distances(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tables of distances, as BERT with relative positions has them."""
    name = "bert.encoder.layer.{}.attention.self.distance_embedding.weight"
    return found | {name.format(i): torch.randn(127, 8) for i in range(2)}


def with_nan(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One entry of one matrix is not a number."""
    found["bert.encoder.layer.1.output.dense.weight"][3, 5] = float("nan")
    return found


def as_integers(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One matrix in eight bits."""
    name = "bert.encoder.layer.0.output.dense.weight"
    return found | {name: (100 * found[name]).to(torch.int8)}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n"
TABLE = "bert.embeddings.word_embeddings.weight"
REFUSED: dict[str, tuple[Spoil, str]] = {
    "relative positions": (
        both(config(position_embedding_type="relative_key"), tensors(with_distances)),
        "config.json says position_embedding_type 'relative_key'; only absolute positions",
    ),
    "tables of distances that config.json does not name": (
        tensors(with_distances),
        "encoder.layer.0.attention.self.distance_embedding.weight is in the file, but no such part",
    ),
    "a decoder": (config(is_decoder=True), "config.json says is_decoder True"),
    "attention to another model": (config(add_cross_attention=True), "says add_cross_attention"),
    "pruned heads": (config(pruned_heads={"0": [1]}), "config.json says pruned_heads"),
    "fewer layers": (
        config(num_hidden_layers=1),
        "config.json says 1 layers, the weights have 2",
    ),
    "more layers": (config(num_hidden_layers=3), "is not in the file (and"),
    "another vocabulary": (
        config(vocab_size=40),
        "embeddings.word_embeddings.weight is (21, 32) in the file, (40, 32) by config.json",
    ),
    "other positions": (
        config(max_position_embeddings=32),
        "embeddings.position_embeddings.weight is (64, 32) in the file, (32, 32) by config.json",
    ),
    "another type table": (config(type_vocab_size=3), "(2, 32) in the file, (3, 32) by config"),
    "another width inside": (
        config(intermediate_size=48),
        "(64,) in the file, (48,) by config.json",
    ),
    "a width that its heads do not divide": (config(num_attention_heads=5), "cannot be loaded"),
    "an unknown activation": (config(hidden_act="gellu"), "cannot be loaded"),
    "quantised by its configuration": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "config.json says quantization_config",
    ),
    "quantised weights": (
        tensors(as_integers),
        "bert.encoder.layer.0.output.dense.weight is of type I8; quantised weights",
    ),
    "not a number": (
        tensors(with_nan),
        "encoder.layer.1.output.dense.weight has entries that are not finite",
    ),
    "a prefix of torch.compile": (
        tensors(lambda found: {f"_orig_mod.{name}": t for name, t in found.items()}),
        "all its tensors' names begin with _orig_mod.; save them without it",
    ),
    "a prefix of data parallel training": (
        tensors(lambda found: {f"module.{name}": t for name, t in found.items()}),
        "all its tensors' names begin with module.",
    ),
    "a missing tensor": (
        tensors(lambda found: {n: t for n, t in found.items() if n != TABLE}),
        "embeddings.word_embeddings.weight is not in the file",
    ),
    "a missing shard": (
        both(sharded, without("model-00002-of-00002.safetensors")),
        "model-00002-of-00002.safetensors is missing, which model.safetensors.index.json names",
    ),
    "an index without its files": (
        both(sharded, *(without(f"model-0000{i}-of-00002.safetensors") for i in (1, 2))),
        "model-00001-of-00002.safetensors is missing",
    ),
    "an index that leads outside": (
        both(
            without("model.safetensors"),
            content("model.safetensors.index.json", b'{"weight_map": {"a": "../a.safetensors"}}'),
        ),
        "../a.safetensors is missing, which",
    ),
    "truncated weights": (cut("model.safetensors", 0.7), "its header speaks of"),
    "a truncated header": (cut("model.safetensors", 0.001), "cannot read model.safetensors: it is"),
    "weights that are a pointer": (content("model.safetensors", LFS), "is a pointer of git-LFS"),
    "a configuration that is a pointer": (content("config.json", LFS), "is a pointer of git-LFS"),
    "a tokeniser that is a pointer": (content("tokenizer.json", LFS), "is a pointer of git-LFS"),
    "empty weights": (content("model.safetensors", b""), "model.safetensors is empty; download"),
    "an empty configuration": (content("config.json", b""), "config.json is empty; download"),
    "a configuration that is a list": (content("config.json", b"[]"), "is not a JSON object"),
    "an empty tokeniser": (content("tokenizer.json", b""), "tokenizer.json is empty; download"),
    "weights under another name": (
        lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"),
        "no model.safetensors in it; convert the checkpoint to safetensors first; weights.saf",
    ),
    "an adapter": (content("adapter_config.json", b"{}"), "it holds an adapter"),
    "a tokeniser cut in the middle": (cut("tokenizer.json", 0.5), "its tokeniser cannot be loaded"),
    "a tokeniser of another version": (
        in_tokenizer(lambda found: found.update(pre_tokenizer={"type": "NotYetInvented"})),
        "its tokeniser cannot be loaded",
    ),
    "a tokeniser of a larger model": (
        in_tokenizer(
            lambda found: found["model"]["vocab"].update({f"w{i}": i for i in range(21, 40)})
        ),
        "its tokeniser has a token of number 39, but the model has 21 rows of embeddings",
    ),
    "code of its own": (config(auto_map={"AutoModel": "x.Y"}), "config.json says auto_map"),
    "shared layers": (config(model_type="albert"), "'albert': all its layers share one set"),
    "an unknown kind": (config(model_type="gpt2"), "says model_type 'gpt2'; supported: bert,"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(case, plan, folder):
    spoil, message = REFUSED[case]
    spoil(folder)
    refused(plan, message)


def test_a_wrong_checkpoint_is_looked_at_once(plan, folder, monkeypatch):
    """However many trials are planned on it."""
    config(vocab_size=40)(folder)
    loads: list[int] = []
    monkeypatch.setattr(
        heads, "load_encoder", lambda *a, **k: loads.append(1) or load_encoder(*a, **k)
    )
    refused(plan, "(21, 32) in the file", "--seeds", "0,1,2,3", "--methods", "dense,movement")
    assert len(loads) == 1


# Tokenisers --------------------------------------------------------------------------------------


def plain_class(folder: Path) -> None:
    """tokenizer.json alone says how texts are read, and nothing which inputs a model takes."""
    write = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    write |= {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask")}
    (folder / "tokenizer_config.json").write_text(json.dumps(write))


def test_segment_ids_are_asked_for_where_the_model_tells_them_apart(folder, plan):
    plain_class(folder)
    found = find_checkpoint(str(folder))
    tokenizer = load_tokenizer(found)
    assert type(tokenizer).__name__ not in ("BertTokenizer", "BertTokenizerFast")
    first, second = ["a cat", "the dog runs fast"], ["the old dog", "yes"]
    data = encode_text(
        ("a", "b"), "l", range(2), {"a": first, "b": second, "l": [0, 1]}, tokenizer, 64, True
    )
    words = [len(text.split()) for text in second]  # each word is a token; [SEP] ends the text
    assert int(data.types.sum()) == sum(words) + 2
    assert data.types.tolist() == [*[0] * 4, *[1] * 4, *[0] * 6, *[1] * 2]
    assert plan()[0] == 0


NO_PAIRS = {
    "no special tokens": (
        lambda found: found.update(post_processor=None),
        "does not put special tokens around texts and between them",
    ),
    "other special tokens than it adds": (
        lambda found: None,
        "does not put special tokens around texts and between them",
    ),
}


@pytest.mark.parametrize("case", NO_PAIRS)
def test_a_tokeniser_that_does_not_mark_texts_is_refused(case, folder, plan):
    change, message = NO_PAIRS[case]
    plain_class(folder)
    if case.startswith("other"):
        write_json(folder / "tokenizer_config.json", {"cls_token": "[MASK]"})
    in_tokenizer(change)(folder)
    refused(plan, f"model mine: its tokeniser {message}")


def test_segment_ids_are_not_asked_for_where_there_is_one(tmp_path):
    """A BERT with a type table of one row, and a tokeniser that would give the ids 0 and 1."""
    config(type_vocab_size=1)(save_checkpoint(tmp_path / "one"))
    tensors(lambda found: {n: t[:1].clone() if "token_type" in n else t for n, t in found.items()})(
        tmp_path / "one"
    )
    found = find_checkpoint(str(tmp_path / "one"))
    assert found.segments == 1
    rehearse(found, mrpc(), trained, 32)
    assert "token_type_ids" not in load_tokenizer(found)("a cat", "a dog")


def test_another_padding_token_is_refused_where_positions_count_from_it(tmp_path):
    save_checkpoint(tmp_path / "mine", kind="roberta")
    config(pad_token_id=0)(tmp_path / "mine")
    with pytest.raises(ConfigError, match="has the padding token 1, but config.json says pad_tok"):
        load_tokenizer(find_checkpoint(str(tmp_path / "mine")))


@pytest.mark.parametrize("capitals", [True, False])
def test_casing_that_no_file_tells_is_read_from_the_vocabulary(capitals, tmp_path):
    words = ["Cat", "cat", "dog", "Yes", "No"] if capitals else ["cat", "dog", "yes", "no"]
    folder = save_checkpoint(tmp_path / "mine", words=words)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    found = find_checkpoint(str(folder))
    tokens = load_tokenizer(found).tokenize("Cat cat")
    assert tokens == (["Cat", "cat"] if capitals else ["cat", "cat"])
    (note,) = tokeniser_notes(found)
    assert ("capitals, so it does not" in note) == capitals
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    assert tokeniser_notes(find_checkpoint(str(folder))) == []


# Files --------------------------------------------------------------------------------------------


def test_what_is_not_loaded_is_not_read(headless, checkpoint, tmp_path):
    """A second file of weights, with an MLM head."""
    folder = Path(shutil.copytree(headless, tmp_path / "mine"))
    before = find_checkpoint(str(folder))
    shutil.copy(checkpoint / "model.safetensors", folder / "old.safetensors")
    (folder / "README.md").write_text("words")
    after = find_checkpoint(str(folder))
    assert not after.has_mlm_head and after.sha == before.sha


@pytest.mark.parametrize(
    "name", ["special_tokens_map.json", "added_tokens.json", "bpe.codes", "tokenizer.9.0.0.json"]
)
def test_all_that_the_tokeniser_reads_is_in_the_fingerprint(name, folder):
    before = find_checkpoint(str(folder))
    write_json(folder / name, {"cls_token": "[MASK]"} if "map" in name else {"[NEW]": 20})
    after = find_checkpoint(str(folder))
    assert after.sha != before.sha and after.tokenizer_sha != before.tokenizer_sha


def test_no_other_file_is_opened(tmp_path):
    """While configuration, tokeniser and model are loaded: all that Python opens is in the
    fingerprint, or says nothing of what is computed."""
    folder = save_checkpoint(tmp_path / "mine")
    for name in ("special_tokens_map.json", "added_tokens.json", "generation_config.json"):
        write_json(folder / name, {})
    code = (
        "import sys, os\n"
        "seen = set()\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).startswith(sys.argv[1] + os.sep):\n"
        "        seen.add(os.path.basename(str(args[0])))\n"
        "import transformers\n"
        "sys.addaudithook(hook)\n"
        "transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "transformers.AutoModel.from_pretrained(sys.argv[1])\n"
        "print(*sorted(seen))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened = set(done.stdout.split())
    assert {"tokenizer.json", "special_tokens_map.json", "config.json"} <= opened
    assert opened <= {*TOKENIZER_FILES, "config.json"}


def test_shards_are_the_same_model(folder):
    whole, _ = load_encoder(find_checkpoint(str(folder)), pooler=False)
    sharded(folder)
    parts, _ = load_encoder(find_checkpoint(str(folder)), pooler=False)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True)
    )


def test_saved_buffers_are_no_tensors_of_another_model(folder, plan):
    name = "bert.embeddings.position_ids"
    tensors(lambda found: found | {name: torch.arange(64)[None]})(folder)
    assert plan()[0] == 0


def test_what_is_not_used_is_said(folder, plan):
    """Once, before the run: a head of another task, entries of config.json that nothing reads."""
    tensors(lambda found: found | {"classifier.weight": torch.zeros(2, 32)})(folder)
    config(use_alibi=True, rotary_base=5, directionality="bidi", pooler_type="first")(folder)
    code, out, err = plan()
    assert code == 0, err
    assert out.count("the checkpoint's own classifier is not used") == 1
    assert out.count("config.json has use_alibi, rotary_base: nothing reads it") == 1
    assert "directionality" not in out


def test_an_ordinary_checkpoint_has_no_notes(checkpoint):
    assert tokeniser_notes(find_checkpoint(str(checkpoint))) == []


def test_tokens_are_cached_for_the_model_that_reads_them(tmp_path, sst2):
    """A BERT and a DistilBERT with the same tokeniser, of which one tells segments apart."""
    folders = [save_checkpoint(tmp_path / kind, kind=kind) for kind in ("bert", "distilbert")]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(folders[0] / name, folders[1] / name)
    texts = ["a cat", "the dog"] * 4
    rows = {"sentence1": texts, "sentence2": texts[::-1], "label": [0, 1] * 4}
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"glue/mrpc/{split}.parquet", rows)
    task, sums = mrpc(), []
    for folder in (folders[1], folders[0], folders[1]):
        found = find_checkpoint(str(folder))
        source = task.locate(str(tmp_path))
        sums.append(int(tokenise(task, source, found, 32, tmp_path / "cache").train.types.sum()))
    assert sums == [0, 8 * 3, 0]


def cased(found: dict[str, Any]) -> None:
    """A normaliser that keeps capitals."""
    found["normalizer"]["lowercase"] = False
    found["model"]["vocab"] |= {"Cat": 20}


def test_tokenizer_json_is_followed_where_its_class_would_read_otherwise(folder):
    before = load_tokenizer(find_checkpoint(str(folder)))
    assert before.tokenize("Cat") == ["cat"]
    in_tokenizer(cased)(folder)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True})
    found = find_checkpoint(str(folder))
    after = load_tokenizer(found)
    assert after.tokenize("Cat cat") == ["Cat", "cat"]
    assert after("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    (note,) = tokeniser_notes(found)
    assert "its tokenizer.json is followed" in note


def test_a_tokeniser_without_segment_ids_is_noted(folder):
    plain_class(folder)
    in_tokenizer(no_segments)(folder)
    (note,) = tokeniser_notes(find_checkpoint(str(folder)))
    assert "gives both texts of a pair the same segment id" in note


def test_a_link_to_nothing_is_no_matter(folder, plan):
    (folder / "README.md").symlink_to(folder / "gone")
    assert plan()[0] == 0


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(name, folder, plan):
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(plan, name)


def test_mpnet_counts_positions_from_one(tmp_path):
    folder = save_checkpoint(tmp_path / "mine", kind="mpnet")
    config(pad_token_id=0)(folder)
    with pytest.raises(ConfigError, match="pad_token_id 0; models of this kind count positions f"):
        find_checkpoint(str(folder))


def test_a_pooling_of_another_kind_of_model_changes_nothing(folder):
    config(classifier_pooling="mean")(folder)
    network = trained.build(find_checkpoint(str(folder)), mrpc()).eval()
    out = network.encoder(torch.tensor([[2, 12, 3]]))
    seen = torch.ones(1, 3, dtype=torch.bool)
    assert network.architecture.pooled(network.encoder, out, seen) is out.pooler_output


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("modernbert", "inner.weight", "head.dense.weight"),
        ("modernbert", "norm.weight", "head.norm.weight"),
        ("deberta-v2", "inner.bias", "pooler.dense.bias"),
    ],
)
def test_what_stock_classification_takes_from_a_checkpoint_is_taken(kind, ours, theirs, tmp_path):
    folder = save_checkpoint(tmp_path / "mine", kind=kind)
    if kind == "deberta-v2":
        more = {"pooler.dense.weight": torch.randn(32, 32), "pooler.dense.bias": torch.randn(32)}
        tensors(lambda found: found | more)(folder)
    network = trained.build(find_checkpoint(str(folder)), mrpc())
    auto = transformers.AutoModelForSequenceClassification
    stock = auto.from_pretrained(folder)
    assert torch.equal(network.head.get_parameter(ours), stock.get_parameter(theirs))
    assert f"head.{ours}" not in network.fresh and "head.classifier.weight" in network.fresh


def test_a_text_that_names_the_padding_token_is_not_packed(tmp_path):
    """RoBERTa's positions leave that token out; several examples in a row would not."""
    found = find_checkpoint(str(save_checkpoint(tmp_path / "mine", kind="roberta", weight=0.3)))
    network = trained.build(found, mrpc()).eval()
    lengths = [20, 3, 3, 3, 3]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(5, 5 + bounds[-1]).astype(np.int32)
    data = Encoded(tokens, np.zeros_like(tokens), bounds, np.zeros(5, np.int64))
    device = torch.device("cpu")
    assert collate(data, np.arange(5), network.pad, device).packing is not None
    tokens[21] = network.pad
    together, alone = (collate(data, rows, network.pad, device) for rows in (np.arange(5), [1]))
    assert together.packing is None
    with torch.no_grad():
        torch.testing.assert_close(network(together)[0][1], network(alone)[0][0])
