"""The k largest of float32 scores on a GPU, in all matrices at once and without asking the host."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from zoo.inputs.batches import sent
from zoo.kernels.launch import BLOCK, Shapes, available, fit, launch, matrices_of, shapes_of

RANKING, STEPPING = "ranking", "stepping"
SAMPLE = 32
"""One block of so many is read to guess the first digit."""
STEPS = 6
"""Counts of digits: the sample's, the second, the first and second again, the third, the fourth."""


def fits(scores: Sequence[Tensor]) -> bool:
    """Whether these scores can be ranked here."""
    if not scores or not available(scores[0].device):
        return False
    return fit(scores) and all(s.dtype == torch.float32 and 0 < s.numel() < 2**31 for s in scores)


class Ranking:
    """A selection in groups of matrices, `wanted` numbers of each group. All state is on the
    device.

    `bounds` (groups + 1,) says where the matrices of each group begin, `groups` (matrices,) to
    which each belongs, `wanted` (groups,) how many are kept; all int32. `run` and `write` take
    `todo`, 1 for each group that they work on.
    """

    def __init__(self, scores: Sequence[Tensor], bounds: Tensor, groups: Tensor, wanted: Tensor):
        self.device = scores[0].device
        self.shapes = shapes_of(tuple(s.numel() for s in scores), self.device)
        self.scores = matrices_of(scores, self.shapes)
        self.bounds, self.groups, self.wanted = bounds, groups, wanted
        many, self.many = len(scores), len(bounds) - 1
        zeros = torch.zeros(STEPS * many * 256 + 7 * many, dtype=torch.int32, device=self.device)
        self.counts = zeros[: STEPS * many * 256].view(STEPS, many, 256)
        state = zeros[STEPS * many * 256 :].view(7, many)
        self.higher, self.found, self.left, self.again, self.ties, self.need, self.kept = state

    def _count(
        self,
        step: int,
        shift: int,
        todo: Tensor,
        part: float = 1.0,
        stride: int = 1,
        check: int = 0,
    ) -> None:
        """Count a digit; `part` of all numbers is read."""
        rows, many = self.shapes.grid
        launch(
            RANKING,
            "count_digit",
            (-(-rows // stride), many),
            [
                *(self.scores.table, self.shapes.sizes, self.groups, todo, self.found),
                *(self.counts[step], self.higher),
            ],
            int(self.scores.bytes * part),
            SHIFT=shift,
            STRIDE=stride,
            CHECK=check,
            EVEN=self.scores.even,
            BLOCK=BLOCK,
        )

    def _pick(self, step: int, todo: Tensor, *, first: int = 0, but: int = 0) -> None:
        launch(
            RANKING,
            "pick_digit",
            (self.many,),
            [
                *(self.counts[step], self.higher, self.bounds, self.left, todo),
                *(self.again, self.found),
            ],
            0,
            FIRST=first,
            BUT=but,
        )

    def run(self, todo: Tensor, part: float = 1.0) -> None:
        """Find the threshold of each group that is to do, `part` of all numbers."""
        one = (self.many,)
        self._count(0, 24, todo, part / SAMPLE, stride=SAMPLE)
        sample = [self.counts[0], self.bounds, self.shapes.sizes, self.wanted, self.found, todo]
        launch(RANKING, "guess_digit", one, sample, 0)
        self._count(1, 16, todo, part, check=1)
        guess = [self.counts[1], self.higher, self.bounds, self.wanted, self.left, todo, self.again]
        launch(RANKING, "check_guess", one, guess, 0)
        self._pick(1, todo, but=1)
        self._count(2, 24, self.again, 0)
        self._pick(2, self.again, first=1)
        self._count(3, 16, self.again, 0)
        self._pick(3, self.again)
        self._count(4, 8, todo, part)
        self._pick(4, todo)
        self._count(5, 0, todo, part)
        self._pick(5, todo)
        launch(
            RANKING,
            "share_ties",
            one,
            [
                *(self.counts[5], self.higher, self.bounds, self.left, todo, self.found),
                *(self.ties, self.need, self.kept),
            ],
            0,
        )

    def write(self, masks: Tensor, todo: Tensor, part: float = 1.0) -> None:
        """Write the masks of groups that are to do, one after another."""
        rows, many = self.shapes.grid
        starts = torch.empty(many, rows, dtype=torch.int32, device=self.device)
        common = [self.scores.table, self.shapes.sizes, self.groups, todo, self.found]
        fixed = {"EVEN": self.scores.even, "BLOCK": BLOCK}
        ranked = [*common, self.ties, self.need, starts, rows]
        launch(RANKING, "count_ties", (rows, many), ranked, 0, **fixed)
        width = 1 << (rows - 1).bit_length()
        launch(RANKING, "start_ties", (many,), [starts, self.shapes.blocks, rows], 0, WIDTH=width)
        launch(
            RANKING,
            "make_mask",
            (rows, many),
            [*ranked[:-1], masks, self.shapes.places, rows],
            int(part * (self.scores.bytes + self.shapes.whole)),
            **fixed,
        )


def _empty(shapes: Shapes, device: torch.device) -> Tensor:
    return torch.empty(shapes.whole, dtype=torch.uint8, device=device)


def _views(masks: Tensor, scores: Sequence[Tensor]) -> list[Tensor]:
    parts = masks.view(torch.bool).split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def _alone(scores: Sequence[Tensor], wanted: Tensor) -> tuple[Ranking, Tensor]:
    """A ranking of each matrix by itself, and a 1 for each."""
    bounds, ones = _counted(len(scores), scores[0].device)
    return Ranking(scores, bounds, bounds[:-1], wanted), ones


@lru_cache(maxsize=64)
def _counted(many: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The numbers from 0 to `many`, and as many ones."""
    return _whole(range(many + 1), device), _whole([1] * many, device)


def _whole(numbers: Sequence[int], device: torch.device) -> Tensor:
    return sent(np.array(numbers, np.int32), device)


def keep_each(scores: Sequence[Tensor], counts: Sequence[int] | Tensor) -> list[Tensor]:
    """The masks of the counts[i] largest of scores[i]; ties go to the lowest flat index, NaN is the
    smallest. `counts` may be a tensor (int32) on the device of the scores."""
    if not isinstance(counts, Tensor):
        counts = _whole(counts, scores[0].device)
    ranking, todo = _alone(scores, counts)
    masks = _empty(ranking.shapes, ranking.device)
    ranking.run(todo)
    ranking.write(masks, todo)
    return _views(masks, scores)


def counts_by_type(
    scores: Sequence[Tensor], types: Sequence[str], level: float, temperature: float
) -> Tensor:
    """How many weights of each matrix SMP's Eq. 4 keeps, int32 on the device: as `allot` in
    zoo/parts/masks.py, in float64."""
    device, shapes = scores[0].device, shapes_of(tuple(s.numel() for s in scores), scores[0].device)
    given, (rows, many) = matrices_of(scores, shapes), shapes.grid
    sums = torch.empty(many, rows, device=device)
    launch(
        STEPPING,
        "sum_sigmoids",
        shapes.grid,
        [given.table, shapes.sizes, temperature, sums, rows],
        given.bytes,
        EVEN=given.even,
        BLOCK=BLOCK,
    )
    means = sums.sum(1, dtype=torch.float64) / shapes.sizes
    members, numbers = _members(tuple(types), device)
    total = torch.cat([means, means.new_zeros(1)])[members].sum(1)
    unit = (level * (members < many).sum(1)) / total
    wanted = (unit[numbers] * means * shapes.sizes).long()
    return torch.minimum(wanted.clamp_(min=1), shapes.sizes).int()


@lru_cache(maxsize=64)
def _members(types: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The matrices of each type, padded with the number of all; the type of each matrix."""
    kinds = list(dict.fromkeys(types))
    groups = [[n for n, kind in enumerate(types) if kind == one] for one in kinds]
    longest = max(map(len, groups))
    padded = [[*g, *[len(types)] * (longest - len(g))] for g in groups]
    numbers = np.array([kinds.index(kind) for kind in types])
    return sent(np.array(padded), device), sent(numbers, device)


def keep_among(
    scores: Sequence[Tensor], k: int, least: Sequence[int] | None = None
) -> list[Tensor]:
    """The masks of the k largest of all scores together, ties in the order of the matrices; then,
    where a matrix keeps fewer than `least`, of so many of its own."""
    many, device = len(scores), scores[0].device
    groups, (_, todo) = _whole([0] * many, device), _counted(1, device)
    every = Ranking(scores, _whole([0, many], device), groups, _whole([k], device))
    masks = _empty(every.shapes, device)
    every.run(todo)
    every.write(masks, todo)
    if least is not None:
        lowest = _whole(least, device)
        ranking, _ = _alone(scores, lowest)
        few = (every.kept < lowest).to(torch.int32)
        ranking.run(few, 0)
        ranking.write(masks, few, 0)
    return _views(masks, scores)


def keep_above(scores: Sequence[Tensor], level: float, least: Sequence[int]) -> list[Tensor]:
    """The masks of sigmoid(S) > level; where one keeps fewer than `least`, that many highest
    scores."""
    device, lowest = scores[0].device, _whole(least, scores[0].device)
    ranking, _ = _alone(scores, lowest)
    masks, shapes = _empty(ranking.shapes, device), ranking.shapes
    kept = torch.zeros(len(scores), dtype=torch.int32, device=device)
    launch(
        STEPPING,
        "make_above",
        shapes.grid,
        [ranking.scores.table, shapes.sizes, shapes.places, level, masks, kept],
        ranking.scores.bytes + shapes.whole,
        EVEN=ranking.scores.even,
        BLOCK=BLOCK,
    )
    few = (kept < lowest).to(torch.int32)
    ranking.run(few, 0)
    ranking.write(masks, few, 0)
    return _views(masks, scores)
