"""Triton kernels that find the k largest of float32 scores in all matrices at once.

A radix selection with digits of 8 bits, from the top: count a digit's values among the numbers that
share the digits found so far, pick the value that holds the k-th largest, go on with the next. A
sample guesses the first digit; the count of the second digit proves it or not, and matrices where
it does not hold are counted again. Grids are (blocks of the longest matrix, matrices), or (groups,)
where matrices of a group are ranked together. Tables hold the addresses of matrices.
"""

import triton
import triton.language as tl

DIGIT = tl.constexpr(256)
"""Values of a digit."""


@triton.jit
def ordered(x):
    """float32 as int32 in the same order: NaN is minus infinity, -0.0 is 0.0."""
    bits = x.to(tl.int32, bitcast=True)
    bits = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, -8388608, bits)
    bits = tl.where((bits & 0x7FFFFFFF) == 0, 0, bits)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def block_of(sizes, matrix, number, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """A block of a matrix: offsets of its entries, which of them are inside the matrix, and whether
    any is. EVEN says that sizes and addresses are multiples of 16, so that loads may be wide."""
    size = tl.load(sizes + matrix)
    if EVEN:
        size = tl.multiple_of(size, 16)
    offsets = number * BLOCK + tl.arange(0, BLOCK)
    return offsets, offsets < size, number * BLOCK < size


@triton.jit
def start_of(table, matrix, kind: tl.constexpr, EVEN: tl.constexpr):
    """Where a matrix begins."""
    start = tl.load(table + matrix).to(tl.pointer_type(kind))
    if EVEN:
        start = tl.multiple_of(start, 16)
    return start


@triton.jit
def place_of(places, matrix, EVEN: tl.constexpr):
    """Where a matrix begins among all masks."""
    place = tl.load(places + matrix)
    if EVEN:
        place = tl.multiple_of(place, 16)
    return place


@triton.jit
def read(table, matrix, kind: tl.constexpr, offsets, inside, EVEN: tl.constexpr):
    """Entries of a matrix, 0 outside it."""
    return tl.load(start_of(table, matrix, kind, EVEN) + offsets, mask=inside, other=0)


@triton.jit
def keys_of(table, matrix, offsets, inside, EVEN: tl.constexpr):
    """Ordered numbers of a block."""
    return ordered(read(table, matrix, tl.float32, offsets, inside, EVEN))


@triton.jit
def count_digit(
    table, sizes, groups, todo, found, counts, higher, SHIFT: tl.constexpr, STRIDE: tl.constexpr,
    CHECK: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr
):
    """Count the values of the digit at SHIFT among numbers that begin as `found` says, in every
    STRIDE-th block; with CHECK also the numbers that begin higher."""
    matrix = tl.program_id(1)
    group = tl.load(groups + matrix)
    number = tl.program_id(0) * STRIDE
    offsets, inside, some = block_of(sizes, matrix, number, EVEN, BLOCK)
    if some & (tl.load(todo + group) != 0):
        key = keys_of(table, matrix, offsets, inside, EVEN)
        if SHIFT == 24:
            among = inside
            digit = (key >> 24) + 128
        else:
            begins = key >> (SHIFT + 8)
            start = tl.load(found + group)
            among = inside & (begins == start)
            digit = (key >> SHIFT) & 255
            if CHECK:
                over = tl.sum((inside & (begins > start)).to(tl.int32), axis=0)
                tl.atomic_add(higher + matrix, over, sem="relaxed")
        found_here = tl.histogram(digit, DIGIT, mask=among)
        bins = counts + matrix * DIGIT + tl.arange(0, DIGIT)
        tl.atomic_add(bins, found_here, mask=found_here > 0, sem="relaxed")


@triton.jit
def total_of(counts, start, stop):
    """Counts of a digit's values in all matrices of a group."""
    bins = tl.arange(0, DIGIT)
    total = tl.zeros((DIGIT,), dtype=tl.int32)
    for matrix in range(start, stop):
        total += tl.load(counts + matrix * DIGIT + bins)
    return total


@triton.jit
def value_at(total, wanted):
    """The highest value of a digit that, with all above it, occurs at least `wanted` times."""
    bins = tl.arange(0, DIGIT)
    return tl.max(tl.where(tl.cumsum(total, 0, reverse=True) >= wanted, bins, 0), axis=0)


@triton.jit
def guess_digit(counts, bounds, sizes, wanted, found, todo):
    """Guess the first digit from the counts of a sample."""
    group = tl.program_id(0)
    start = tl.load(bounds + group)
    stop = tl.load(bounds + group + 1)
    if tl.load(todo + group) != 0:
        total = total_of(counts, start, stop)
        whole = tl.zeros((), dtype=tl.int64)
        for matrix in range(start, stop):
            whole += tl.load(sizes + matrix)
        share = tl.load(wanted + group).to(tl.float64) / whole.to(tl.float64)
        rank = (share * tl.sum(total, axis=0).to(tl.float64)).to(tl.int32)
        tl.store(found + group, value_at(total, tl.maximum(rank, 1)) - 128)


@triton.jit
def check_guess(counts, higher, bounds, wanted, left, todo, again):
    """Whether the guess holds: then the ranks left to find among the numbers that begin with it;
    else the group is to be counted again."""
    group = tl.program_id(0)
    start = tl.load(bounds + group)
    stop = tl.load(bounds + group + 1)
    if tl.load(todo + group) != 0:
        over = tl.zeros((), dtype=tl.int32)
        for matrix in range(start, stop):
            over += tl.load(higher + matrix)
        number = tl.load(wanted + group)
        inside = tl.sum(total_of(counts, start, stop), axis=0)
        holds = (over < number) & (number <= over + inside)
        tl.store(left + group, tl.where(holds, number - over, number))
        tl.store(again + group, tl.where(holds, 0, 1))
        for matrix in range(start, stop):
            tl.store(higher + matrix, tl.where(holds, tl.load(higher + matrix), 0))


@triton.jit
def pick_digit(
    counts, higher, bounds, left, todo, but, found, FIRST: tl.constexpr, BUT: tl.constexpr
):
    """Pick the digit's value that holds the number of rank `left`, in groups to do; with BUT not in
    those to be counted again."""
    group = tl.program_id(0)
    start = tl.load(bounds + group)
    stop = tl.load(bounds + group + 1)
    active = tl.load(todo + group) != 0
    if BUT:
        active = active & (tl.load(but + group) == 0)
    if active:
        bins = tl.arange(0, DIGIT)
        total = total_of(counts, start, stop)
        rank = tl.load(left + group)
        value = value_at(total, rank)
        tl.store(left + group, rank - tl.sum(tl.where(bins > value, total, 0), axis=0))
        for matrix in range(start, stop):
            number = tl.load(counts + matrix * DIGIT + bins)
            over = tl.sum(tl.where(bins > value, number, 0), axis=0)
            tl.store(higher + matrix, tl.load(higher + matrix) + over)
        if FIRST:
            tl.store(found + group, value - 128)
        else:
            tl.store(found + group, (tl.load(found + group) << 8) | value)


@triton.jit
def share_ties(counts, higher, bounds, left, todo, found, ties, need, kept):
    """Numbers equal to the threshold in each matrix, and how many of them are kept: the first
    matrices of a group come first."""
    group = tl.program_id(0)
    start = tl.load(bounds + group)
    stop = tl.load(bounds + group + 1)
    if tl.load(todo + group) != 0:
        value = tl.load(found + group) & 255
        rank = tl.load(left + group)
        for matrix in range(start, stop):
            equal = tl.load(counts + matrix * DIGIT + value)
            taken = tl.minimum(equal, rank)
            tl.store(ties + matrix, equal)
            tl.store(need + matrix, taken)
            tl.store(kept + matrix, tl.load(higher + matrix) + taken)
            rank -= taken


@triton.jit
def count_ties(
    table, sizes, groups, todo, found, ties, need, starts, ROW, EVEN: tl.constexpr,
    BLOCK: tl.constexpr
):
    """Numbers equal to the threshold in each block, where only some of them are kept."""
    matrix = tl.program_id(1)
    group = tl.load(groups + matrix)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    ranked = tl.load(need + matrix) < tl.load(ties + matrix)
    if some & ranked & (tl.load(todo + group) != 0):
        key = keys_of(table, matrix, offsets, inside, EVEN)
        equal = (inside & (key == tl.load(found + group))).to(tl.int32)
        tl.store(starts + matrix * ROW + tl.program_id(0), tl.sum(equal, axis=0))


@triton.jit
def start_ties(starts, blocks, ROW, WIDTH: tl.constexpr):
    """Equal numbers in each block, as those in all blocks before it."""
    matrix = tl.program_id(0)
    columns = tl.arange(0, WIDTH)
    inside = columns < tl.load(blocks + matrix)
    number = tl.load(starts + matrix * ROW + columns, mask=inside, other=0)
    tl.store(starts + matrix * ROW + columns, tl.cumsum(number, 0) - number, mask=inside)


@triton.jit
def make_mask(
    table, sizes, groups, todo, found, ties, need, starts, masks, places, ROW, EVEN: tl.constexpr,
    BLOCK: tl.constexpr
):
    """1 above the threshold, and at as many of the numbers equal to it as are kept."""
    matrix = tl.program_id(1)
    group = tl.load(groups + matrix)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    if some & (tl.load(todo + group) != 0):
        key = keys_of(table, matrix, offsets, inside, EVEN)
        threshold = tl.load(found + group)
        equal = (key == threshold) & inside
        number = tl.load(need + matrix)
        if number < tl.load(ties + matrix):
            one = equal.to(tl.int32)
            before = tl.load(starts + matrix * ROW + tl.program_id(0))
            equal = equal & (before + tl.cumsum(one, 0) - one < number)
        mask = ((key > threshold) | equal).to(tl.uint8)
        tl.store(masks + place_of(places, matrix, EVEN) + offsets, mask, mask=inside)
