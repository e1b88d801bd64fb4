"""The forms in which a trained model can be used: their bytes, their speed, their metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.records.codec import Record, omitted

STOCK, ZEROS, COMPACT, SPARSE, PACKED = "stock", "zeros", "compact", "sparse", "packed"
SHALLOW, INT8, ONNX, ONNX_COMPACT = "shallow", "int8", "onnx", "onnx_compact"
FORMS = {
    STOCK: "the dense model: random numbers for its zeros, and all layers of its base",
    SHALLOW: "the stock model with fewer layers than its base",
    ZEROS: "the stock model with its pruned weights zero, in dense kernels",
    COMPACT: "the smaller model without dead rows and columns, in dense kernels",
    SPARSE: "the compact model, its sparsest matrices put in CSR when it is loaded",
    PACKED: "what is needed beside the base model: the mask, and values that training changed",
    INT8: "the stock or shallow model in dynamic int8, its bytes in memory",
    ONNX: "the stock or shallow model in onnxruntime",
    ONNX_COMPACT: "the compact model in onnxruntime",
}
"""Names of forms, and what each is."""


ATTENTION_HEADS, KEYS, VALUES, NEURONS = "attention heads", "queries and keys", "values", "neurons"
UNITS = (ATTENTION_HEADS, KEYS, VALUES, NEURONS)
"""Kinds of units that a compact model can lose: dimensions of queries and keys and those of values
are counted over all attention heads of a layer."""
MOST_LAYERS = 500
"""Layers or attention heads for which figures have room."""


def label_of(name: str, least: int = 0) -> str:
    """'compact', or 'compact, ≥ 10 a row' without the rows that had fewer than 10 weights."""
    name = name.replace("_", " ")
    return f"{name}, ≥ {least} a row" if least else name


@dataclass(frozen=True)
class Timing(Record):
    """Seconds of a call on `batch` examples of `tokens` tokens each with `threads` CPU threads.

    `dense_seconds` and `seconds` are medians over rounds, in each of which the dense model and the
    form ran side by side; `speedup` is the median ratio of the two, above 1 where the form is
    faster, and `low` to `high` its 99 % interval. `device` is the kind of processor, `packages` the
    versions that the time depends on. `macs` are the form's multiply-accumulates for an example, in
    the products of linear maps and of attention; None where they were not counted.
    """

    batch: int
    tokens: int
    threads: int
    dense_seconds: float
    seconds: float
    speedup: float
    low: float
    high: float
    device: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    macs: int | None = omitted(None)

    def __post_init__(self) -> None:
        if min(self.batch, self.tokens, self.threads) < 1:
            raise ValueError("batch, tokens and threads must be at least 1")
        if not 0 < self.low <= self.speedup <= self.high:
            raise ValueError(f"speedup {self.speedup} is not in its interval, or not positive")
        if self.macs is not None and self.macs < 0:
            raise ValueError(f"macs must not be negative, got {self.macs}")

    @property
    def tells(self) -> bool:
        """Whether the interval leaves out 1: whether the form is faster or slower at all."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True)
class Units(Record):
    """Units of one kind in a compact model: those `left` in each of its layers, of the `total` that
    a layer of the base model has. `kind` is one of UNITS; the zeros that pad attention heads to one
    width are not counted."""

    kind: str
    total: int
    left: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.total < 1 or not all(0 <= number <= self.total for number in self.left):
            raise ValueError(f"left must be in [0, total], and total, {self.total}, at least 1")
        if len(self.left) > MOST_LAYERS:
            raise ValueError(f"there are more than {MOST_LAYERS} layers")


@dataclass(frozen=True)
class Form(Record):
    """One form of a trained model.

    `name` is one of FORMS; `least` is N for a form without the rows that had fewer than N weights,
    which is not exact; `bytes` on disk, without the tokeniser; `metrics` by name in percent, those
    of the trial for an exact form; `units` of a compact form, a kind each.
    """

    name: str
    bytes: int
    least: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    units: tuple[Units, ...] = omitted(())

    def __post_init__(self) -> None:
        if self.bytes < 0 or self.least < 0:
            raise ValueError("bytes and least must not be negative")
        counted = {(timing.tokens, timing.macs) for timing in self.timings}
        if len(counted) > len({tokens for tokens, _ in counted}):
            raise ValueError("macs of an example must be equal where its tokens are")
        if len({units.kind for units in self.units}) < len(self.units):
            raise ValueError("units must be of different kinds")
        if len({len(units.left) for units in self.units}) > 1:
            raise ValueError("units must be of equally many layers")

    @property
    def label(self) -> str:
        """Its name for people."""
        return label_of(self.name, self.least)
