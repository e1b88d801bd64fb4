"""Texts to tokens: what the tasks share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo import ConfigError, Encoded

NUMBERS = (int, float, np.integer, np.floating)


def encode_text(
    texts: Sequence[str],
    labels: str,
    check: range | tuple[float, float],
    columns: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int,
    training: bool,
) -> Encoded:
    """Tokenise one text column or a pair, cut to `max_length` tokens. Labels must be classes in the
    range `check`, or numbers from its first to its second value. Raises ConfigError that names the
    column, the row and the value."""
    values = columns[labels]
    whole = isinstance(check, range)
    low, high = (check.start, check.stop - 1) if isinstance(check, range) else check
    for row, value in enumerate(values):
        if not isinstance(value, NUMBERS) or not low <= value <= high or (whole and value % 1):
            expected = f"{low} to {high}" if whole else f"a number from {low:g} to {high:g}"
            got = f"column {labels!r}, row {row}: got {value!r:.80}"
            raise ConfigError(f"{got}; expected {expected}")
    given = [texts_of(columns, text) for text in texts]
    encoded = tokenizer(*given, truncation=True, max_length=max_length, return_attention_mask=False)
    return flattened(encoded, np.asarray(values, dtype=np.int64 if whole else np.float32))


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
