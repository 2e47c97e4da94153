"""Losses of detectors by the decoder of their raw maps, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from eightfold.errors import UnknownNameError, UsageError
from eightfold.runtime.postprocess.detect import Detector
from eightfold.runtime.postprocess.yolo import YoloAnchors, YoloDfl
from eightfold.tasks.detection.anchor_free_loss import AnchorFreeLoss
from eightfold.tasks.detection.anchor_loss import AnchorLoss

MapLoss = Callable[[Sequence[Tensor], Tensor, tuple[int, int]], Tensor]
LossMaker = Callable[[Any, int], MapLoss]

# Decoder of the raw maps -> the loss that trains them, from the decoder's options and the number of classes.
DETECTION_LOSSES: dict[str, LossMaker] = {
    "yolo-anchors": lambda decoder, classes: AnchorLoss(_of(decoder, YoloAnchors), classes),
    "yolo-dfl": lambda decoder, classes: AnchorFreeLoss(_of(decoder, YoloDfl).reg_max, classes),
}


def _of(decoder: Any, kind: type[Any]) -> Any:
    assert isinstance(decoder, kind), "a loss is registered under its decoder's name"
    return decoder


def register_detection_loss(decoder: str, make: LossMaker) -> None:
    """Make detectors of a decoder trainable. A name that is taken is refused."""
    if decoder in DETECTION_LOSSES:
        raise UsageError(f"a loss for the decoder {decoder!r} exists", allowed="a decoder without one")
    DETECTION_LOSSES[decoder] = make


def detection_loss(name: str, decoder: Detector, classes: int) -> MapLoss:
    """The loss of a decoder's raw maps. Raises UnknownNameError."""
    if name not in DETECTION_LOSSES:
        raise UnknownNameError.of("loss for the decoder", name, DETECTION_LOSSES)
    return DETECTION_LOSSES[name](decoder, classes)
