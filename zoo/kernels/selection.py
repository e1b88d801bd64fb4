"""The k largest of float32 scores on a GPU, in all matrices at once and without asking the host."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from zoo.kernels.launch import BLOCK, Shapes, bytes_of, even, fit, launch, sent, shapes_of, table

ROOM = "ranking"
SAMPLE = 32
"""One block of so many is read to guess the first digit."""
STEPS = 6
"""Counts of digits: the sample's, the second, the first and second again, the third, the fourth."""


def fits(scores: Sequence[Tensor]) -> bool:
    """Whether these scores can be ranked here."""
    small = all(0 < score.numel() < 2**31 for score in scores)
    return (
        len(scores) > 0 and small and all(s.dtype == torch.float32 for s in scores) and fit(scores)
    )


class Ranking:
    """A selection in groups of matrices: `wanted` numbers of each group, those of the first `todo`
    groups alone. All state is on the device."""

    def __init__(self, scores: Sequence[Tensor], bounds: Tensor, groups: Tensor, wanted: Tensor):
        self.scores = [score.detach() for score in scores]
        self.device = self.scores[0].device
        self.shapes: Shapes = shapes_of(tuple(s.numel() for s in scores), self.device)
        self.table, self.read = table(self.scores), bytes_of(self.scores)
        self.even = even(self.scores)
        self.bounds, self.groups, self.wanted = bounds, groups, wanted
        many, self.many = len(scores), len(bounds) - 1
        zeros = torch.zeros(STEPS * many * 256 + 8 * many, dtype=torch.int32, device=self.device)
        self.counts = zeros[: STEPS * many * 256].view(STEPS, many, 256)
        state = zeros[STEPS * many * 256 :].view(8, many)
        self.higher, self.found, self.left, self.again, self.ties, self.need, self.kept, _ = state

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
            ROOM,
            "count_digit",
            (-(-rows // stride), many),
            [
                *(self.table, self.shapes.sizes, self.groups, todo, self.found),
                *(self.counts[step], self.higher),
            ],
            int(self.read * part),
            SHIFT=shift,
            STRIDE=stride,
            CHECK=check,
            EVEN=self.even,
            BLOCK=BLOCK,
        )

    def _pick(self, step: int, todo: Tensor, *, first: int = 0, but: int = 0) -> None:
        launch(
            ROOM,
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
        launch(ROOM, "guess_digit", one, sample, 0)
        self._count(1, 16, todo, part, check=1)
        guess = [self.counts[1], self.higher, self.bounds, self.wanted, self.left, todo, self.again]
        launch(ROOM, "check_guess", one, guess, 0)
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
            ROOM,
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
        common = [self.table, self.shapes.sizes, self.groups, todo, self.found]
        fixed = {"EVEN": self.even, "BLOCK": BLOCK}
        ranked = [*common, self.ties, self.need, starts, rows]
        launch(ROOM, "count_ties", (rows, many), ranked, 0, **fixed)
        width = 1 << (rows - 1).bit_length()
        launch(ROOM, "start_ties", (many,), [starts, self.shapes.blocks, rows], 0, WIDTH=width)
        launch(
            ROOM,
            "make_mask",
            (rows, many),
            [*ranked[:-1], masks, self.shapes.places, rows],
            int(part * (self.read + self.shapes.whole)),
            **fixed,
        )


def _empty(shapes: Shapes, device: torch.device) -> Tensor:
    return torch.empty(shapes.whole, dtype=torch.uint8, device=device)


def _views(masks: Tensor, scores: Sequence[Tensor]) -> list[Tensor]:
    parts = masks.view(torch.bool).split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def _alone(scores: Sequence[Tensor], wanted: Tensor) -> tuple[Ranking, Tensor]:
    """A ranking of each matrix by itself, and a 1 for each."""
    many, device = len(scores), scores[0].device
    ranking = Ranking(scores, _counted(many + 1, device), _counted(many, device), wanted)
    return ranking, _ones(many, device)


def _counted(many: int, device: torch.device) -> Tensor:
    return torch.arange(many, dtype=torch.int32, device=device)


def _ones(many: int, device: torch.device) -> Tensor:
    return torch.ones(many, dtype=torch.int32, device=device)


def keep_each(scores: Sequence[Tensor], counts: Sequence[int] | Tensor) -> list[Tensor]:
    """The masks of the counts[i] largest of scores[i]; ties go to the lowest flat index, NaN is the
    smallest. `counts` may be a tensor (int32) on the device of the scores."""
    if not isinstance(counts, Tensor):
        counts = sent(counts, torch.int32, scores[0].device)
    ranking, todo = _alone(scores, counts)
    masks = _empty(ranking.shapes, ranking.device)
    ranking.run(todo)
    ranking.write(masks, todo)
    return _views(masks, scores)


def counts_by_type(
    scores: Sequence[Tensor], types: Sequence[str], level: float, temperature: float
) -> Tensor:
    """How many weights of each matrix SMP's Eq. 4 keeps, int32 on the device: as `allot` in
    zoo/parts/masks.py, in float64 and in the same order."""
    device, shapes = scores[0].device, shapes_of(tuple(s.numel() for s in scores), scores[0].device)
    rows, many = shapes.grid
    sums = torch.empty(many, rows, device=device)
    launch(
        "stepping",
        "sum_sigmoids",
        (rows, many),
        [table(scores), shapes.sizes, temperature, sums, rows],
        bytes_of(scores),
        EVEN=even(scores),
        BLOCK=BLOCK,
    )
    means = sums.sum(1, dtype=torch.float64) / shapes.sizes
    members, numbers, longest = _members(tuple(types), device)
    padded = torch.cat([means, means.new_zeros(1)])[members]
    total = padded[:, 0]
    for column in range(1, longest):
        total = total + padded[:, column]
    unit = (level * (members < many).sum(1)) / total
    wanted = (unit[numbers] * means * shapes.sizes).long()
    return torch.minimum(wanted.clamp_(min=1), shapes.sizes).int()


@lru_cache(maxsize=64)
def _members(types: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor, int]:
    """The matrices of each type, padded with their number; the type of each matrix; the most
    matrices of a type."""
    kinds = list(dict.fromkeys(types))
    groups = [[n for n, kind in enumerate(types) if kind == one] for one in kinds]
    longest = max(map(len, groups))
    flat = [n for g in groups for n in (*g, *[len(types)] * (longest - len(g)))]
    members = sent(flat, torch.int64, device).view(len(groups), longest)
    return members, sent([kinds.index(kind) for kind in types], torch.int64, device), longest


def keep_among(
    scores: Sequence[Tensor], k: int, least: Sequence[int] | None = None
) -> list[Tensor]:
    """The masks of the k largest of all scores together, ties in the order of the matrices; then,
    where a matrix keeps fewer than `least`, of so many of its own."""
    many, device = len(scores), scores[0].device
    bounds = sent([0, many], torch.int32, device)
    groups = torch.zeros(many, dtype=torch.int32, device=device)
    every = Ranking(scores, bounds, groups, sent([k], torch.int32, device))
    masks, todo = _empty(every.shapes, device), _ones(1, device)
    every.run(todo)
    every.write(masks, todo)
    if least is not None:
        lowest = sent(least, torch.int32, device)
        ranking, _ = _alone(scores, lowest)
        few = (every.kept < lowest).to(torch.int32)
        ranking.run(few, 0)
        ranking.write(masks, few, 0)
    return _views(masks, scores)


def above(scores: Sequence[Tensor], level: float, least: Sequence[int]) -> list[Tensor]:
    """The masks of sigmoid(S) > level; where one keeps fewer than `least`, that many highest
    scores."""
    device, lowest = scores[0].device, sent(least, torch.int32, scores[0].device)
    ranking, _ = _alone(scores, lowest)
    masks, shapes = _empty(ranking.shapes, device), ranking.shapes
    kept = torch.zeros(len(scores), dtype=torch.int32, device=device)
    launch(
        "stepping",
        "make_above",
        shapes.grid,
        [ranking.table, shapes.sizes, shapes.places, level, masks, kept],
        ranking.read + shapes.whole,
        EVEN=ranking.even,
        BLOCK=BLOCK,
    )
    few = (kept < lowest).to(torch.int32)
    ranking.run(few, 0)
    ranking.write(masks, few, 0)
    return _views(masks, scores)
