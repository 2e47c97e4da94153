"""Distillation strategies of detectors against loops over cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from eightfold.compress.train.distill.detection import HeadMaps, cell_mask, detection_distillation
from eightfold.errors import UsageError

CLASSES, SIZE, BATCH = 2, (32, 48), 2
GRIDS = ((4, 6), (2, 3))
ANCHORS = [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[1.5, 1.5], [3.0, 2.0]])]


class Cells(NamedTuple):
    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor


def cells(*rows: tuple[int, int, int, int, tuple[float, float, float, float]]) -> Cells:
    return Cells(*(torch.tensor(column) for column in zip(*rows, strict=True)))


MATCHED = [
    cells((0, 1, 2, 3, (-0.5, 0.1, 1.2, 0.9)), (1, 0, 3, 5, (0.0, 0.0, 1.0, 2.0))),
    cells((1, 1, 1, 0, (-1.0, -0.5, 1.5, 1.0))),
]


def maps(seed: int) -> HeadMaps:
    generator = torch.Generator().manual_seed(seed)
    return HeadMaps([torch.randn(BATCH, 2 * (5 + CLASSES), *grid, generator=generator) for grid in GRIDS], ANCHORS)


def divergence(wanted: list[float], seen: list[float]) -> float:
    p, q = ([math.exp(v / 3) for v in row] for row in (wanted, seen))
    return 9 * sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))


def vector(head: HeadMaps, scale: int, image: int, anchor: int, row: int, column: int) -> list[float]:
    start = anchor * (5 + CLASSES)
    found: list[float] = head.maps[scale][image, start : start + 5 + CLASSES, row, column].tolist()
    return found


def box(values: list[float], anchor: list[float]) -> list[float]:
    sigmoid = [1 / (1 + math.exp(-v)) for v in values[:2]]
    return [*sigmoid, math.exp(values[2]) * anchor[0], math.exp(values[3]) * anchor[1]]


def slow(strategy: int, student: HeadMaps, teacher: HeadMaps, features: list[tuple[Tensor, Tensor]]) -> float:
    first = 0 if strategy == 1 else 4
    scores = boxes = attention = 0.0
    for scale, (rows, columns) in enumerate(GRIDS):
        for image in range(BATCH):
            for anchor in range(2):
                for row in range(rows):
                    for column in range(columns):
                        place = (scale, image, anchor, row, column)
                        scores += divergence(vector(teacher, *place)[first:], vector(student, *place)[first:])
        for image, anchor, row, column, true in zip(*(part.tolist() for part in MATCHED[scale]), strict=True):
            own, theirs = (
                box(vector(head, scale, image, anchor, row, column), ANCHORS[scale][anchor].tolist())
                for head in (student, teacher)
            )
            truth = [(true[0] + true[2]) / 2, (true[1] + true[3]) / 2, true[2] - true[0], true[3] - true[1]]
            near = sum((a - b) ** 2 for a, b in zip(own, truth, strict=True))
            other = sum((a - b) ** 2 for a, b in zip(theirs, truth, strict=True))
            apart = sum((a - b) ** 2 for a, b in zip(own, theirs, strict=True))
            boxes += apart if strategy > 2 else near if near > other else 0.0
    for mine, wanted in features:
        for image in range(BATCH):
            attended = []
            for each in (wanted, mine):
                sums = each[image].abs().sum(0)
                if strategy == 5:
                    for y in range(sums.shape[0]):
                        for x in range(sums.shape[1]):
                            sums[y, x] *= covered(image, y, x, sums.shape)
                attended.append(sums.flatten().tolist())
            attention += divergence(*attended)
    if strategy == 1:
        return 1e-3 * scores / BATCH
    found = (1e-3 if strategy > 3 else 1e-4) * scores + 1e-3 * boxes
    return (found + (1e-3 * attention if strategy > 3 else 0)) / BATCH


def covered(image: int, y: int, x: int, shape: torch.Size) -> bool:
    """True if the middle of a position lies in a matched cell that is not finer than the map."""
    py, px = (y + 0.5) / shape[0], (x + 0.5) / shape[1]
    return any(
        own == image and row / rows <= py < (row + 1) / rows and column / columns <= px < (column + 1) / columns
        for scale, (rows, columns) in enumerate(GRIDS)
        if rows <= shape[0]
        for own, _, row, column, _ in zip(*(part.tolist() for part in MATCHED[scale]), strict=True)
    )


@pytest.mark.parametrize("strategy", [1, 2, 3, 4, 5])
def test_strategies_are_those_of_loops(strategy: int) -> None:
    student, teacher = maps(1), maps(2)
    generator = torch.Generator().manual_seed(3)
    shapes = [((3, 8, 12), (5, 8, 12)), ((4, 2, 3), (4, 2, 3))]  # of other widths; twice as fine, and coarse
    features = [
        (torch.randn(BATCH, *a, generator=generator), torch.randn(BATCH, *b, generator=generator)) for a, b in shapes
    ]
    found = detection_distillation(strategy, student, teacher, MATCHED, features=features, size=SIZE)
    assert float(found) == pytest.approx(slow(strategy, student, teacher, features), rel=1e-4)


def test_a_cell_covers_its_whole_square_in_a_finer_map() -> None:
    mask = cell_mask(MATCHED, GRIDS, SIZE, BATCH, (8, 12))
    assert int(mask[0].sum()) == 4  # a cell of 8 pixels, in positions of 4
    assert mask[0, 4:6, 6:8].tolist() == [[1, 1], [1, 1]]
    assert int(mask[1].sum()) == 4 + 16


def test_what_a_strategy_lacks_is_one_line() -> None:
    with pytest.raises(UsageError, match="strategy 2 with matched cells of 0 scales"):
        detection_distillation(2, maps(1), maps(2))
    with pytest.raises(UsageError, match="strategy 4 without features"):
        detection_distillation(4, maps(1), maps(2), MATCHED)
    with pytest.raises(UsageError, match="strategy 5 without the images' size"):
        detection_distillation(5, maps(1), maps(2), MATCHED, features=[(torch.rand(2, 1, 4, 4),) * 2])
    with pytest.raises(UsageError, match="detection distillation strategy 6; allowed: 1 to 5"):
        detection_distillation(6, maps(1), maps(2))
