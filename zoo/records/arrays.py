"""Arrays in results, as texts that zoo/records/packed.py writes: checked here, unpacked there."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from zoo.records.codec import LONG, Record

MOST_BINS, MOST_PLANES = 256, 8
"""Bins of a histogram at most, and bits of a class's number."""


def bytes_of(text: str, what: str) -> bytes:
    """The bytes of base64. Raises ValueError for another text, which it names as `what`."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{what} holds no base64: {text!r:.40}") from None


def planes_of(text: str, what: str, most: int = 1) -> tuple[int, list[bytes]]:
    """The number of examples in "<number>:<base64>:...", and at most so many planes of a bit for
    each. Raises ValueError for another text, and for planes of another length."""
    number, *planes = text.split(":")
    found = [bytes_of(plane, what) for plane in planes]
    right = number.isascii() and number.isdigit() and len(number) < 20
    if not right or not 1 <= len(found) <= most:
        raise ValueError(f"{what} holds no bits: {text!r:.40}")
    for plane in found:
        if len(plane) != -(-int(number) // 8):
            raise ValueError(f"{what} holds no bits: {len(plane)} bytes for {number} examples")
    return int(number), found


def right_of(text: str, what: str) -> tuple[int, int]:
    """How many examples a text of pack_bits has, and how many of them are right. Raises
    ValueError."""
    number, (plane,) = planes_of(text, what)
    bits = int.from_bytes(plane, "big") >> (8 * len(plane) - number)
    return number, bits.bit_count()


@dataclass(frozen=True)
class Answers(Record):
    """What was answered to each example of a split, so that metrics can be computed on others.

    `kind`: "classes" with `said` from packed.pack_classes; "values" with `said` and `truth` from
    packed.pack_values; "overlap" with `said`, the F1 of each answer in [0, 1], from pack_values.
    """

    kind: str
    said: str = field(metadata=LONG)
    truth: str = field(default="", metadata=LONG)

    def __post_init__(self) -> None:
        if self.kind == "values" and self.number != len(bytes_of(self.truth, "truth")) // 2:
            raise ValueError("said and truth have other lengths")
        _ = self.number

    @property
    def number(self) -> int | None:
        """The examples; None for a kind that this program does not know."""
        if self.kind == "classes":
            return planes_of(self.said, "said", MOST_PLANES)[0]
        if self.kind in ("values", "overlap"):
            return _many(self.said, "said", 2)
        return None


@dataclass(frozen=True)
class Distribution(Record):
    """Histograms of the prunable weights (Sanh 2020, Figure 4).

    `all` and `kept` count all weights and remaining weights in equal bins over `range`, which is
    four standard deviations on each side of the mean; what lies outside is in the outer bins.
    `scores` is the plane of weights and learned scores, scores over `score_range`, as base64 of
    bytes round(8 log2(1 + count)) with one row per bin of weights; "" without learned scores.
    """

    range: tuple[float, ...]
    all: tuple[int, ...]
    kept: tuple[int, ...]
    score_range: tuple[float, ...] = ()
    scores: str = field(default="", metadata=LONG)

    def __post_init__(self) -> None:
        if not 1 <= len(self.all) == len(self.kept) <= MOST_BINS:
            raise ValueError(f"all and kept must have as many bins, 1 to {MOST_BINS}")
        if not all(0 <= k <= a for k, a in zip(self.kept, self.all, strict=True)):
            raise ValueError("kept must be in [0, all] in every bin")
        _check_range("range", self.range)
        plane = len(bytes_of(self.scores, "scores"))
        if plane:
            _check_range("score_range", self.score_range)
        if plane % len(self.all) or plane > MOST_BINS * len(self.all):
            raise ValueError(f"scores have {plane} bytes for {len(self.all)} bins of weights")


def _check_range(name: str, ends: Sequence[float]) -> None:
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"{name} must be two numbers, the smaller first, got {ends!r:.40}")


def check_sketch(text: str) -> None:
    """Raise ValueError for a text that pack_sketch does not write."""
    _many(text, "sketch", 4)


def _many(text: str, what: str, size: int) -> int:
    """How many values of so many bytes a text has."""
    number, rest = divmod(len(bytes_of(text, what)), size)
    if rest:
        raise ValueError(f"{what} holds no whole number of values")
    return number
