"""Triton kernels of a training step over all matrices at once: working weights, the norm of the
gradients, AdamW.

Gradients of scores and weights are computed where they are needed, from G = dL/dW', and never
stored. Gates are the mask (GATE 0) or hard concrete (GATE 1), whose noise is drawn anew from its
seed wherever it is needed: Philox counts entries, so every kernel draws the same. Grids are (blocks
of the longest matrix, matrices); tables hold the addresses of matrices.
"""

import triton
import triton.language as tl

from zoo.kernels.ranking import block_of, place_of, read, start_of

GAMMA, ZETA, BETA = tl.constexpr(-0.1), tl.constexpr(1.1), tl.constexpr(2 / 3)
"""As in zoo/parts/gates.py."""


@triton.jit
def sigmoid(x):
    """The sigmoid, from an exponential that cannot overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


@triton.jit
def hard_concrete(score, seed, counter):
    """Sampled gates of scores; `counter` numbers the entries of all matrices."""
    u = tl.rand(seed, counter)
    u = tl.minimum(tl.maximum(u, 1e-4), 1.0 - 1e-4)
    s = sigmoid((tl.log(u / (1.0 - u)) + score) / BETA)
    return tl.minimum(tl.maximum(s * (ZETA - GAMMA) + GAMMA, 0.0), 1.0)


@triton.jit
def sum_sigmoids(scores, sizes, temperature, sums, ROWS, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of sigmoid(S / temperature) of each block, (matrices, ROWS)."""
    matrix = tl.program_id(1)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    total = 0.0
    if some:
        score = read(scores, matrix, tl.float32, offsets, inside, EVEN)
        total = tl.sum(tl.where(inside, sigmoid(score / temperature), 0.0), axis=0)
    tl.store(sums + matrix * ROWS + tl.program_id(0), total)


@triton.jit
def make_above(
    scores, sizes, places, level, masks, kept, EVEN: tl.constexpr, BLOCK: tl.constexpr
):
    """1 where sigmoid(S) > level, and how many there are in each matrix."""
    matrix = tl.program_id(1)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    if some:
        score = read(scores, matrix, tl.float32, offsets, inside, EVEN)
        mask = (sigmoid(score) > level) & inside
        place = place_of(places, matrix, EVEN)
        tl.store(masks + place + offsets, mask.to(tl.uint8), mask=inside)
        tl.atomic_add(kept + matrix, tl.sum(mask.to(tl.int32), axis=0), sem="relaxed")


@triton.jit
def make_working(
    weights, scores, masks, working, sizes, places, seed, GATE: tl.constexpr, KIND: tl.constexpr,
    EVEN: tl.constexpr, BLOCK: tl.constexpr
):
    """W' = W * gate."""
    matrix = tl.program_id(1)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    if some:
        weight = read(weights, matrix, tl.float32, offsets, inside, EVEN)
        if GATE == 1:
            score = read(scores, matrix, tl.float32, offsets, inside, EVEN)
            counter = (tl.load(places + matrix) + offsets).to(tl.int32)
            product = weight * hard_concrete(score, seed, counter)
        else:
            mask = read(masks, matrix, tl.uint8, offsets, inside, EVEN)
            product = weight * mask.to(tl.float32)
        tl.store(start_of(working, matrix, KIND, EVEN) + offsets, product.to(KIND), mask=inside)


@triton.jit
def gradients(
    upstream, weights, scores, masks, sizes, places, penalties, strength, shift, seed, matrix,
    offsets, inside, SCORES: tl.constexpr, WEIGHTS: tl.constexpr, PENALTY: tl.constexpr,
    GATE: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr
):
    """Gradients of scores and weights in a block, from G; zero where they do not train.

    PENALTY adds strength * penalties[matrix] * sigmoid'(S - shift) to those of scores.
    """
    above = read(upstream, matrix, KIND, offsets, inside, EVEN)
    above = above.to(tl.float32)
    of_scores = tl.zeros_like(above)
    of_weights = tl.zeros_like(above)
    if SCORES and (PENALTY or GATE == 1):
        score = read(scores, matrix, tl.float32, offsets, inside, EVEN)
    if GATE == 1:
        counter = (tl.load(places + matrix) + offsets).to(tl.int32)
        gate = hard_concrete(score, seed, counter)
    elif WEIGHTS:
        gate = read(masks, matrix, tl.uint8, offsets, inside, EVEN)
        gate = gate.to(tl.float32)
    if SCORES:
        weight = read(weights, matrix, tl.float32, offsets, inside, EVEN)
        of_scores = above * weight
        if GATE == 1:
            s = (gate - GAMMA) / (ZETA - GAMMA)
            slope = s * (1.0 - s) * ((ZETA - GAMMA) / BETA)
            of_scores = of_scores * tl.where((gate > 0.0) & (gate < 1.0), slope, 0.0)
        if PENALTY:
            p = sigmoid(score - shift)
            of_scores += strength * tl.load(penalties + matrix) * p * (1.0 - p)
        of_scores = tl.where(inside, of_scores, 0.0)
    if WEIGHTS:
        of_weights = above * gate
    return of_scores, of_weights


@triton.jit
def sum_squares(
    upstream, weights, scores, masks, sizes, places, penalties, strength, shift, seed, sums, ROWS,
    SCORES: tl.constexpr, WEIGHTS: tl.constexpr, PENALTY: tl.constexpr, GATE: tl.constexpr,
    KIND: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr
):
    """The sum of the squares of all gradients of each block, (matrices, ROWS)."""
    matrix = tl.program_id(1)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    total = 0.0
    if some:
        of_scores, of_weights = gradients(
            upstream, weights, scores, masks, sizes, places, penalties, strength, shift, seed,
            matrix, offsets, inside, SCORES, WEIGHTS, PENALTY, GATE, KIND, EVEN
        )
        total = tl.sum(of_scores * of_scores + of_weights * of_weights, axis=0)
    tl.store(sums + matrix * ROWS + tl.program_id(0), total)


@triton.jit
def adamw(
    parameter, first, second, offsets, inside, gradient, matrix, values, beta1, beta2, rest1,
    rest2, epsilon, EVEN: tl.constexpr
):
    """One step of AdamW; `values`: learning rate over the first correction, root of the second, and
    what decay leaves. `rest1` and `rest2` are 1 - beta, which float32 would round."""
    step_size, root, left = values
    where = start_of(parameter, matrix, tl.float32, EVEN) + offsets
    of_first = start_of(first, matrix, tl.float32, EVEN) + offsets
    of_second = start_of(second, matrix, tl.float32, EVEN) + offsets
    m = tl.load(of_first, mask=inside, other=0.0)
    v = tl.load(of_second, mask=inside, other=0.0)
    m = beta1 * m + rest1 * gradient
    v = beta2 * v + rest2 * gradient * gradient
    value = tl.load(where, mask=inside, other=0.0) * left
    value -= step_size * m / (tl.sqrt(v) / root + epsilon)
    tl.store(of_first, m, mask=inside)
    tl.store(of_second, v, mask=inside)
    tl.store(where, value, mask=inside)


@triton.jit
def update(
    upstream, weights, scores, masks, sizes, places, penalties, strength, shift, seed, factor,
    first_scores, second_scores, first_weights, second_weights, rate_scores, root_scores,
    left_scores, rate_weights, root_weights, left_weights, beta1, beta2, rest1, rest2, epsilon,
    SCORES: tl.constexpr, WEIGHTS: tl.constexpr, PENALTY: tl.constexpr, GATE: tl.constexpr,
    KIND: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradients, scaled by `factor`, and AdamW of scores and weights."""
    matrix = tl.program_id(1)
    offsets, inside, some = block_of(sizes, matrix, tl.program_id(0), EVEN, BLOCK)
    if some:
        of_scores, of_weights = gradients(
            upstream, weights, scores, masks, sizes, places, penalties, strength, shift, seed,
            matrix, offsets, inside, SCORES, WEIGHTS, PENALTY, GATE, KIND, EVEN
        )
        scale = tl.load(factor)
        if SCORES:
            values = (rate_scores, root_scores, left_scores)
            adamw(
                scores, first_scores, second_scores, offsets, inside, of_scores * scale, matrix,
                values, beta1, beta2, rest1, rest2, epsilon, EVEN
            )
        if WEIGHTS:
            values = (rate_weights, root_weights, left_weights)
            adamw(
                weights, first_weights, second_weights, offsets, inside, of_weights * scale,
                matrix, values, beta1, beta2, rest1, rest2, epsilon, EVEN
            )
