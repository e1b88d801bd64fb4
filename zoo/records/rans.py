"""Range coding with asymmetric numeral systems (rANS, Duda 2014), vectorised over lanes.

A sequence of symbols is cut into lanes of equal length, which are coded side by side; lane l holds
the symbols l * steps to (l + 1) * steps - 1. The model of each symbol is one of several tables of
16 frequencies that add up to 2^16. Tables, states and words are integers, so that all machines
agree.
"""

import numpy as np

SYMBOLS, BITS = 16, 16
"""Symbols of the alphabet; the logarithm of what the frequencies of a table add up to."""
LEAST = np.uint64(1 << 32)
"""Least state of a lane; a state is 64 bits wide and gives away 32 at a time."""
WORD = np.uint64(32)
FEW, STEPS = 20, 4096
"""Lanes from which on numpy codes them faster side by side; steps that are looked up at once."""
MASK = np.uint64((1 << BITS) - 1)
SHIFT = np.uint64(BITS)


def encode(symbols: np.ndarray, tables: np.ndarray, frequencies: np.ndarray, lanes: int) -> bytes:
    """Code `symbols` (n,) under the table `tables` (n,) of each; `frequencies` (tables, 16), each
    at least 1. Returns the last states and the words that were given away."""
    table, symbol, steps = _in_lanes(symbols, tables, lanes)
    wide = frequencies.astype(np.uint64)
    starts = np.cumsum(wide, 1) - wide
    flat, begin = wide.ravel(), starts.ravel()
    state, words = np.full(lanes, LEAST, np.uint64), []
    code = _in_few_lanes if lanes < FEW else _in_many_lanes
    for first in range((steps - 1) // STEPS * STEPS, -1, -STEPS):
        some = slice(first, first + STEPS)
        at = table[some].astype(np.int64) * SYMBOLS + symbol[some]
        state, own = code(flat[at], begin[at], state)
        words.append(own)
    stream = np.concatenate([*words[::-1], np.zeros(0, np.uint32)])
    return state.astype("<u8").tobytes() + stream.astype("<u4").tobytes()


def _in_many_lanes(
    frequencies: np.ndarray, starts: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The states (lanes,) before some steps, whose symbols have these frequencies and places
    (steps, lanes), from those behind them; and the words that were given away."""
    words, top = [np.zeros(0, np.uint32)], np.uint64(64 - BITS)
    for f, begin in zip(frequencies[::-1], starts[::-1], strict=True):
        full = (state >> top) >= f
        if full.any():
            words.append(state[full].astype(np.uint32))
            state[full] >>= WORD
        whole = state // f
        state = (whole << SHIFT) + (state - whole * f) + begin
    return state, np.concatenate(words[::-1])


def _in_few_lanes(
    frequencies: np.ndarray, starts: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same, one lane after another: for a few of them Python is faster than numpy."""
    last, words = [], []
    for lane, now in enumerate(state.tolist()):
        own = zip(frequencies[::-1, lane].tolist(), starts[::-1, lane].tolist(), strict=True)
        for step, (f, begin) in enumerate(own):
            if now >> 64 - BITS >= f:
                words.append((-step, lane, now & 0xFFFFFFFF))
                now >>= 32
            whole, rest = divmod(now, f)
            now = (whole << BITS) + rest + begin
        last.append(now)
    words.sort()
    return np.array(last, np.uint64), np.array([word for *_, word in words], np.uint32)


def decode(coded: bytes, tables: np.ndarray, frequencies: np.ndarray, lanes: int) -> np.ndarray:
    """The symbols (n,) that `encode` coded under the same tables. Raises ValueError for bytes that
    it cannot have written."""
    table, _, steps = _in_lanes(tables, tables, lanes)
    if len(coded) < 8 * lanes or (len(coded) - 8 * lanes) % 4:
        raise ValueError("the coded part has a wrong length")
    state = np.frombuffer(coded, "<u8", lanes).astype(np.uint64)
    stream = np.frombuffer(coded, "<u4", offset=8 * lanes).astype(np.uint64)
    wide = frequencies.astype(np.uint64)
    starts = (np.cumsum(wide, 1) - wide).ravel()
    flat, lookup = wide.ravel(), _lookup(frequencies)
    found, read = np.empty((steps, lanes), np.uint8), 0
    for step in range(steps):
        slot = state & MASK
        model = table[step].astype(np.int64)
        symbol = lookup[model, slot]
        found[step] = symbol
        at = model * SYMBOLS + symbol
        state = flat[at] * (state >> SHIFT) + slot - starts[at]
        low = state < LEAST
        many = int(np.count_nonzero(low))
        if many:
            if read + many > len(stream):
                raise ValueError("the coded part ends too early")
            state[low] = (state[low] << WORD) | stream[read : read + many]
            read += many
    if read != len(stream) or (state != LEAST).any():
        raise ValueError("the coded part does not end where it should")
    return found.T.ravel()[: len(tables)]


def _in_lanes(
    symbols: np.ndarray, tables: np.ndarray, lanes: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Tables and symbols (steps, lanes), and the number of steps. What fills the last lane up is
    symbol 0 under table 0."""
    steps = -(-len(tables) // lanes)

    def cut(values: np.ndarray) -> np.ndarray:
        padded = np.zeros(lanes * steps, values.dtype)
        padded[: len(values)] = values
        return np.ascontiguousarray(padded.reshape(lanes, steps).T)

    return cut(tables), cut(symbols), steps


def _lookup(frequencies: np.ndarray) -> np.ndarray:
    """The symbol at each of 2^16 places, by table."""
    numbers = np.arange(SYMBOLS, dtype=np.uint8)
    return np.stack([np.repeat(numbers, row) for row in frequencies])
