"""torchvision's detectors as a model source: single-shot ones by raw heads, R-CNNs with fixed detections."""

from __future__ import annotations

from typing import Any

from eightfold.calib.images.preprocess import Preprocess
from eightfold.extras import require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import RAW_OUTPUTS, LoadedModel, SourceOptions, sized
from eightfold.zoo.sources.torchvision_base import TorchvisionSource, torchvision_models

COCO_CLASSES = 91
SIDES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320, "fasterrcnn_mobilenet_v3_large_320_fpn": 320}
DEFAULT_SIDE = 640


class TorchvisionDetectorSource(TorchvisionSource):
    """A torchvision detector's name."""

    name = "torchvision-detect"
    form = "a torchvision detector (ssdlite320_mobilenet_v3_large)"
    gives = "a detector of torchvision: SSD, RetinaNet and FCOS by raw heads; Faster and Mask R-CNN"
    module = "detection"

    def task(self, text: str, size: Size) -> Task:
        torchvision_models()
        from eightfold.zoo.fixed_rcnn import fixed_rcnn_names, fixed_rcnn_task
        from eightfold.zoo.raw_heads import raw_head_names, raw_head_task

        if text in fixed_rcnn_names():
            return fixed_rcnn_task(text)
        return raw_head_task(text, size) if text in raw_head_names() else RAW_OUTPUTS

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        torch = require("torch", "build a model")
        from eightfold.zoo.fixed_rcnn import FixedRcnn, fixed_rcnn_names
        from eightfold.zoo.raw_heads import RawHead, build_detector, has_background, raw_head_names

        torch.manual_seed(options.seed)
        detector: Any = build_detector(text, options.num_classes or (COCO_CLASSES - has_background(text)))
        side = SIDES.get(text, DEFAULT_SIDE)
        preprocess = sized(_preprocess(detector, side, ssd=text.startswith("ssd")), options.size)
        task = self.task(text, (preprocess.height, preprocess.width))
        if text in fixed_rcnn_names():
            return LoadedModel(text, FixedRcnn(detector), preprocess, task)
        if text in raw_head_names():
            return LoadedModel(text, RawHead(detector), preprocess, task)
        return LoadedModel(
            text, _whole(detector), preprocess, exportable="nothing here decodes the heat maps of its keypoints"
        )


def _preprocess(detector: Any, side: int, *, ssd: bool) -> Preprocess:
    """The preprocessing of the detector's own transform, at one size."""
    own = detector.transform
    return Preprocess(
        height=side,
        width=side,
        resize="stretch" if ssd else "letterbox",
        anchor="top-left",
        pad_value=0,
        mean=tuple(own.image_mean),
        std=tuple(own.image_std),
    )


def _whole(detector: Any) -> Any:
    """An R-CNN that takes one tensor of prepared images, and neither scales nor resizes them."""

    def as_list(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return list(arguments[0]), *arguments[1:]

    def as_it_is(image: Any, target: Any) -> tuple[Any, Any]:
        return image, target

    channels = len(detector.transform.image_mean)
    detector.register_forward_pre_hook(as_list)
    detector.transform.resize = as_it_is
    detector.transform.image_mean, detector.transform.image_std = [0.0] * channels, [1.0] * channels
    return detector
