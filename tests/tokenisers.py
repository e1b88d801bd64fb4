"""Small tokenisers of every kind of checkpoint: word pieces, byte pairs and unigrams."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OF_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
"""RoBERTa's padding token is number 1, and positions count from there."""


def tokeniser_of(kind: str, words: Sequence[str], folder: Path) -> Any:
    """A tokeniser of the class that the hub's checkpoints of a kind have, in which each word, also
    with a capital, is one token; saved in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = MAKERS.get(kind, word_pieces)(kind, list(words), folder)
    made.save_pretrained(folder)
    return made


def word_pieces(kind: str, words: list[str], folder: Path) -> Any:
    """Whole words, in lower case."""
    import transformers as stock

    special = [*OF_ROBERTA[:3], "[UNK]", "<mask>"] if kind == "mpnet" else SPECIAL
    vocabulary = [*special, *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    numbers = {word: number for number, word in enumerate(vocabulary)}
    if kind == "mpnet":
        return stock.MPNetTokenizer(numbers)
    segments = ["token_type_ids"] if kind in ("bert", "electra") else []
    names = ["input_ids", *segments, "attention_mask"]
    return stock.BertTokenizer(str(folder / "vocab.txt"), model_input_names=names)


def byte_pairs(kind: str, words: list[str], folder: Path) -> Any:
    """Byte pairs that were merged until each word with its space is one token."""
    import transformers as stock
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    special = SPECIAL if kind == "modernbert" else OF_ROBERTA
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind != "roberta")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([f" {w} {w.capitalize()}" for w in words], trainer)
    if kind == "roberta":
        model = json.loads(trained.to_str())["model"]
        merges = [tuple(pair) for pair in model["merges"]]
        return stock.RobertaTokenizer(vocab=model["vocab"], merges=merges)
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, trained.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    tokens = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)}
    return stock.PreTrainedTokenizerFast(tokenizer_object=trained, **tokens)


def unigrams(kind: str, words: list[str], folder: Path) -> Any:
    """Words with their space, and letters."""
    import transformers as stock

    makers = {
        "xlm-roberta": (stock.XLMRobertaTokenizer, ["<s>", "<pad>", "</s>", "<unk>"], "<mask>"),
        "camembert": (stock.CamembertTokenizer, ["<s>", "<pad>", "</s>", "<unk>"], "<mask>"),
        "deberta-v2": (stock.DebertaV2Tokenizer, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[MASK]"),
    }
    maker, first, mask = makers[kind]
    both = [form for word in words for form in (word, word.capitalize())]
    pieces = [(token, 0.0) for token in first]
    pieces += [(f"▁{word}", -1.0) for word in dict.fromkeys(both)]
    pieces += [(letter, -5.0) for letter in sorted({*"▁", *"".join(both)})]
    more = {"unk_id": 1} if kind == "deberta-v2" else {}
    return maker(vocab=[*pieces, (mask, 0.0)], **more)


MAKERS = dict.fromkeys(("roberta", "modernbert"), byte_pairs)
MAKERS |= dict.fromkeys(("xlm-roberta", "camembert", "deberta-v2"), unigrams)
