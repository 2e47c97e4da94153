"""Decoders by name: what a task's `decode` may say. Definitions: docs/decoders.md."""

from __future__ import annotations

from pydantic import ValidationError

from eightfold.errors import BundleError, UnknownNameError
from eightfold.runtime.manifest import Task
from eightfold.runtime.postprocess.anchor_heads import Fcos, RetinaNet, Ssd
from eightfold.runtime.postprocess.classify import TopK
from eightfold.runtime.postprocess.decoder import Decoder
from eightfold.runtime.postprocess.dense import AlphaMatte, AsTheyAre, Segment
from eightfold.runtime.postprocess.yolo import EndToEnd, YoloAnchors, YoloBoxes, YoloDfl
from eightfold.values import first_fault

DECODERS: dict[str, type[Decoder]] = {
    "classify": TopK,
    "yolo-anchors": YoloAnchors,
    "yolo-dfl": YoloDfl,
    "yolo-boxes": YoloBoxes,
    "end-to-end": EndToEnd,
    "ssd": Ssd,
    "retinanet": RetinaNet,
    "fcos": Fcos,
    "segment": Segment,
    "matte": AlphaMatte,
    "tensors": AsTheyAre,
}


def decoder_of(task: Task) -> Decoder:
    """The decoder that a manifest asks for, with its options.

    Raises UnknownNameError for another name, BundleError for an option it does not have or of the wrong type.
    """
    if task.decode not in DECODERS:
        raise UnknownNameError.of("decoder", task.decode, DECODERS)
    kind = DECODERS[task.decode]
    try:
        return kind(labels=task.labels, **task.options)
    except ValidationError as error:
        raise BundleError(
            f"options of decoder {task.decode!r}: {first_fault(error)}",
            allowed=", ".join(sorted(set(kind.model_fields) - {"labels"})),
            remedy="make the bundle with a recipe that gives only these",
        ) from None
