"""Ultralytics networks with raw outputs. Imports torch; theirs is imported by `ultralytics.py` alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RawYolo(nn.Module):
    """The layers of a detector or a classifier, run in their order; parameters keep their names.

    Called with images (batch, 3, height, width), a detector returns one map (batch, 4 * reg_max + classes, rows,
    columns) per scale; a classifier logits (batch, classes). With `every_layer` a detector runs what only training and
    their decoder use, too, so that a trace reaches it.
    """

    def __init__(self, layers: nn.Sequential, save: Iterable[int]) -> None:
        super().__init__()
        self.model = layers
        self.saved: Collection[int] = frozenset(save)

    def forward(self, images: Tensor, every_layer: bool = False) -> Any:
        kept: list[Any] = []
        found: Any = images
        for layer in self.model[:-1]:
            found = layer(_inputs(layer, found, kept))
            kept.append(found if layer.i in self.saved else None)
        head: Any = self.model[-1]
        found = _inputs(head, found, kept)
        if hasattr(head, "linear"):
            return _class_logits(head, found)
        return (*_maps(head, found), *_others(head, found)) if every_layer else _maps(head, found)


def _inputs(layer: Any, last: Any, kept: list[Any]) -> Any:
    """The inputs of a layer: the output of the last one, or those that its `f` numbers."""
    if layer.f == -1:
        return last
    if isinstance(layer.f, int):
        return kept[layer.f]
    return [last if place == -1 else kept[place] for place in layer.f]


def _maps(head: Any, features: list[Tensor]) -> tuple[Tensor, ...]:
    return _joined(_branches(head)[0], features)


def _others(head: Any, features: list[Tensor]) -> tuple[Tensor, ...]:
    """Maps of the branch that only training runs, and the distances that their decoder takes from the boxes."""
    used, *others = _branches(head)
    distances = head.dfl(used[0][0](features[0]).flatten(2))
    return *(each for other in others for each in _joined(other, features)), distances


def _branches(head: Any) -> list[tuple[Any, Any]]:
    """Layers of boxes and of classes: of the branch that inference uses, then of the other one where there is one."""
    many, one = (head.cv2, head.cv3), (getattr(head, "one2one_cv2", None), getattr(head, "one2one_cv3", None))
    return [each for each in ((one, many) if head.end2end else (many, one)) if each[0] is not None]


def _joined(branch: tuple[Any, Any], features: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.cat((box(each), score(each)), dim=1) for box, score, each in zip(*branch, features, strict=True))


def _class_logits(head: Any, features: Any) -> Tensor:
    joined = torch.cat(features, 1) if isinstance(features, list) else features
    logits: Tensor = head.linear(head.drop(head.pool(head.conv(joined)).flatten(1)))
    return logits
