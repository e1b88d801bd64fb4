"""Texts to tokens: what the tasks share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo import ConfigError, Encoded


def encode_text(
    texts: Sequence[str],
    labels: str,
    check: range | None,
    columns: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int,
    training: bool,
) -> Encoded:
    """Tokenise one text column or a pair, cut to `max_length` tokens. Labels must be in `check`;
    None allows any number. Raises ConfigError that names the column and the row."""
    values = columns[labels]
    for row, value in enumerate(values):
        if value is None or (check is not None and value not in check):
            expected = f"{check.start} to {check.stop - 1}" if check else "a number"
            raise ConfigError(f"column {labels!r}, row {row}: got {value!r}; expected {expected}")
    given = [texts_of(columns, text) for text in texts]
    encoded = tokenizer(*given, truncation=True, max_length=max_length, return_attention_mask=False)
    return flattened(encoded, np.asarray(values, dtype=np.int64 if check else np.float32))


def texts_of(columns: Mapping[str, Sequence[Any]], name: str) -> list[str]:
    """A column of texts; raises ConfigError for the first row that is not a text."""
    for row, text in enumerate(columns[name]):
        if not isinstance(text, str):
            raise ConfigError(f"column {name!r}, row {row}: got {text!r:.80}; expected a text")
    return list(columns[name])


def flattened(encoded: Mapping[str, Any], labels: np.ndarray, **more: Any) -> Encoded:
    """A tokeniser's lists as one split of flat arrays."""
    ids = encoded["input_ids"]
    types = encoded.get("token_type_ids") or [[0] * len(row) for row in ids]
    lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter((t for row in ids for t in row), np.int32, bounds[-1])
    flat_types = np.fromiter((t for row in types for t in row), np.uint8, bounds[-1])
    return Encoded(tokens, flat_types, bounds, labels, **more)
