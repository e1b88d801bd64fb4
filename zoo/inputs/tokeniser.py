"""A checkpoint's own tokeniser: loaded, and checked against the model that reads its tokens."""

from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, cause_of
from zoo.inputs.checkpoint import Checkpoint, quiet
from zoo.inputs.model_files import read_json

PROBES = [
    "The Cat, RAN: don't!",
    "na\u00efve \u00dcbung \ufb01n \uff21b\u2460",
    "cat,dog (x)\t two  spaces\nline",
    "\u7b2c\u4e00 \u041f\u0440\u0438\u0432\u0435\u0442 12.5 $3 a/b",
]
"""Texts that differently made tokenisers read differently: case, accents, compatibility characters,
punctuation, spaces, scripts."""
SPARE = 256
"""Rows of embeddings without a token that are usual: models round their vocabulary up."""


@lru_cache
def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own tokeniser, which gives segment ids if the model tells them apart.

    Raises ConfigError if it cannot be loaded, or does not fit the model: tokens without an
    embedding, no special tokens around texts, another padding token where positions count from it.
    """
    from transformers import AutoTokenizer

    quiet()
    lower = guessed_casing(checkpoint)
    casing = {} if lower is None else {"do_lower_case": lower}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, **casing
        )
        tokenizer = _of_file(checkpoint, tokenizer) or tokenizer
    except BaseException as error:  # transformers raises anything for a broken file, Rust panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ConfigError(
            f"model {checkpoint.name}: its tokeniser cannot be loaded: {cause_of(error)}"
        ) from error
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    segments = ["token_type_ids"] if checkpoint.segments > 1 else []
    tokenizer.model_input_names = [*names[:1], *segments, *names[1:]]
    try:
        _check(checkpoint, tokenizer)
    except ConfigError as error:
        raise ConfigError(f"model {checkpoint.name}: its tokeniser {error}") from None
    return tokenizer


def _of_file(checkpoint: Checkpoint, tokenizer: Any) -> Any:
    """The tokeniser that tokenizer.json describes, if the loaded one reads some texts otherwise:
    its class makes normaliser and pre-tokeniser anew, whatever the file says. Else None."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = Path(checkpoint.folder) / "tokenizer.json"
    if not file.is_file() or not tokenizer.is_fast:
        return None
    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    loaded = tokenizer(PROBES, add_special_tokens=False)["input_ids"]
    if loaded == [own.encode(text, add_special_tokens=False).ids for text in PROBES]:
        return None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(file), model_max_length=tokenizer.model_max_length, **special
    )
    made.follows_file = True
    return made


def read_as(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tokens depend on beside the text and the task: files, the model that reads them, and the
    libraries."""
    versions = {name: metadata.version(name) for name in ("tokenizers", "transformers")}
    segments = checkpoint.segments > 1
    return {
        "files": checkpoint.tokenizer_sha,
        "kind": checkpoint.model_type,
        "segments": segments,
        **versions,
    }


def _check(checkpoint: Checkpoint, tokenizer: Any) -> None:
    """Raise ConfigError where the tokeniser does not fit the model."""
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= checkpoint.vocabulary:
        raise ConfigError(
            f"has a token of number {largest:,}, but the model has {checkpoint.vocabulary:,} rows"
            " of embeddings: it belongs to another model"
        )
    pair = tokenizer("a", "b")
    ids, (first, last) = pair["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if not ids or ids[0] != first or ids[-1] != last or last not in ids[1:-1]:
        raise ConfigError(
            "does not put special tokens around texts and between them, as [CLS] a [SEP] b [SEP];"
            " its tokenizer.json lacks a post-processor, or its special tokens are not those that"
            " it adds"
        )
    pad = tokenizer.pad_token_id
    if checkpoint.architecture.offset_positions and pad not in (None, checkpoint.pad):
        raise ConfigError(
            f"has the padding token {pad}, but config.json says pad_token_id {checkpoint.pad}, from"
            " which positions count"
        )


def guessed_casing(checkpoint: Checkpoint) -> bool | None:
    """Whether to lower-case, judged by capitals in vocab.txt where no file says it; None where one
    does."""
    folder = Path(checkpoint.folder)
    vocabulary, config = folder / "vocab.txt", folder / "tokenizer_config.json"
    if (folder / "tokenizer.json").exists() or not vocabulary.exists():
        return None
    if config.exists() and "do_lower_case" in read_json(config):
        return None
    words = vocabulary.read_text(encoding="utf-8", errors="replace").split("\n")
    return not any(word != word.lower() for word in words if not word.startswith("["))


def tokeniser_notes(checkpoint: Checkpoint) -> list[str]:
    """What a reader should know about a tokeniser: casing that was guessed, embeddings without a
    token."""
    notes, lower, tokenizer = [], guessed_casing(checkpoint), load_tokenizer(checkpoint)
    if lower is not None:
        what = "no capitals, so it does" if lower else "capitals, so it does not"
        notes.append(f"no file says whether the tokeniser lower-cases; its vocabulary has {what}")
    if checkpoint.segments > 1 and 1 not in tokenizer("a", "b")["token_type_ids"]:
        notes.append("its tokeniser gives both texts of a pair the same segment id")
    if getattr(tokenizer, "follows_file", False):
        notes.append("its tokenizer.json is followed, which its class would read otherwise")
    tokens = len(tokenizer)
    if checkpoint.vocabulary - tokens > SPARE:
        notes.append(
            f"the tokeniser has {tokens:,} tokens, the model {checkpoint.vocabulary:,} rows of"
            " embeddings: is it the model's own?"
        )
    return [f"{checkpoint.name}: {note}" for note in (*checkpoint.notes, *notes)]


@lru_cache
def word_ids(checkpoint: Checkpoint, task: str, words: tuple[str, ...]) -> list[int]:
    """The token id of each label word, written with a leading space; raises ConfigError unless
    each is one token."""
    tokenizer = load_tokenizer(checkpoint)
    ids = []
    for word in words:
        pieces = tokenizer.tokenize(" " + word)
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token:
            raise ConfigError(
                f"task {task}: label word {word!r} is {pieces or 'nothing'} for the tokeniser of"
                f" {checkpoint.name}; a label word must be one token: choose another word or head"
            )
        ids.append(tokenizer.convert_tokens_to_ids(pieces[0]))
    return ids
