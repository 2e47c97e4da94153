"""Decoders by the names that a task's `decode` takes. Definitions: docs/decoders.md."""

from __future__ import annotations

import importlib

from pydantic import ValidationError

from eightfold.errors import BundleError, UnknownNameError, UsageError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.decoder import Decoder
from eightfold.values import first_fault

# name -> module and class; imported when asked for, because a bundle needs one of them and wants to start quickly.
DECODERS: dict[str, tuple[str, str] | type[Decoder]] = {
    "classify": ("classify", "TopK"),
    "yolo-anchors": ("yolo", "YoloAnchors"),
    "yolo-dfl": ("yolo", "YoloDfl"),
    "yolo-boxes": ("yolo", "YoloBoxes"),
    "yolo-grid": ("yolo", "YoloGrid"),
    "end-to-end": ("yolo", "EndToEnd"),
    "rcnn-masks": ("instances", "RcnnMasks"),
    "yolo-masks": ("instances", "YoloMasks"),
    "yolo-keypoints": ("instances", "YoloKeypoints"),
    "yolo-oriented": ("oriented", "YoloOriented"),
    "ssd": ("anchor_heads", "Ssd"),
    "retinanet": ("anchor_heads", "RetinaNet"),
    "fcos": ("anchor_heads", "Fcos"),
    "segment": ("dense", "Segment"),
    "matte": ("dense", "AlphaMatte"),
    "depth": ("pictures", "DepthMap"),
    "picture": ("pictures", "PictureOut"),
    "tensors": ("dense", "AsTheyAre"),
}


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Make a decoder known to bundles, recipes and `--task`. A name that is taken is refused."""
    if name in DECODERS:
        raise UsageError(f"the decoder {name!r} exists", allowed="a new name", remedy="choose another name")
    DECODERS[name] = decoder


def decoder_class(name: str) -> type[Decoder]:
    """The decoder of that name. Raises UnknownNameError."""
    if name not in DECODERS:
        raise UnknownNameError.of("decoder", name, DECODERS)
    known = DECODERS[name]
    if isinstance(known, type):
        return known
    module, kind = known
    found: type[Decoder] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return found


def decoder_of(task: Task) -> Decoder:
    """The decoder that a manifest asks for, with its options.

    Raises UnknownNameError for another name, BundleError for an option it does not have or of the wrong type.
    """
    kind = decoder_class(task.decode)
    try:
        return kind.model_validate({"labels": task.labels, **task.options})
    except ValidationError as error:
        raise BundleError(
            f"options of decoder {task.decode!r}: {first_fault(error)}",
            allowed=", ".join(sorted(set(kind.model_fields) - {"labels"})),
            remedy="make the bundle with a recipe that gives only these",
        ) from None
