"""Ultralytics networks with raw outputs. Imports torch; theirs is imported by `ultralytics.py` alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RawYolo(nn.Module):
    """The layers of a detector or a classifier, run in their order; parameters keep their names.

    Called with images (batch, 3, height, width), a detector returns one map (batch, 4 * reg_max + classes, rows,
    columns) per scale; a classifier logits (batch, classes).
    """

    def __init__(self, layers: nn.Sequential, save: Iterable[int]) -> None:
        super().__init__()
        self.model = layers
        self.saved: Collection[int] = frozenset(save)

    def forward(self, images: Tensor) -> Any:
        kept: list[Any] = []
        found: Any = images
        for layer in self.model[:-1]:
            found = layer(_inputs(layer, found, kept))
            kept.append(found if layer.i in self.saved else None)
        head: Any = self.model[-1]
        found = _inputs(head, found, kept)
        return _class_logits(head, found) if hasattr(head, "linear") else _maps(head, found)


def _inputs(layer: Any, last: Any, kept: list[Any]) -> Any:
    """The inputs of a layer: the output of the last one, or those that its `f` numbers."""
    if layer.f == -1:
        return last
    if isinstance(layer.f, int):
        return kept[layer.f]
    return [last if place == -1 else kept[place] for place in layer.f]


def _maps(head: Any, features: list[Tensor]) -> tuple[Tensor, ...]:
    one_to_one = head.end2end and getattr(head, "one2one_cv2", None) is not None
    boxes, classes = (head.one2one_cv2, head.one2one_cv3) if one_to_one else (head.cv2, head.cv3)
    return tuple(
        torch.cat((box(each), score(each)), dim=1) for box, score, each in zip(boxes, classes, features, strict=True)
    )


def _class_logits(head: Any, features: Any) -> Tensor:
    joined = torch.cat(features, 1) if isinstance(features, list) else features
    logits: Tensor = head.linear(head.drop(head.pool(head.conv(joined)).flatten(1)))
    return logits
