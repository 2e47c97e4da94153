"""torchvision's segmentation networks as a model source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.extras import require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import IMAGENET_MEAN, IMAGENET_STD, LoadedModel, SourceOptions, sized
from eightfold.zoo.sources.torchvision_base import TorchvisionSource, torchvision_models

if TYPE_CHECKING:
    from torch import nn

SIDE = 520
SEGMENT = Task(kind="segment", decode="segment")


class TorchvisionSegmenterSource(TorchvisionSource):
    """A torchvision segmentation network's name: the map of its main classifier."""

    name = "torchvision-segment"
    form = "a torchvision segmenter (lraspp_mobilenet_v3_large)"
    gives = "a segmentation network of torchvision"
    module = "segmentation"
    unused_weights = ("aux_classifier.",)

    def task(self, text: str, size: Size) -> Task:
        return SEGMENT

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        models, torch = torchvision_models(), require("torch", "build a model")
        torch.manual_seed(options.seed)
        classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
        model: nn.Module = models.get_model(text, weights=None, weights_backbone=None, **classes)
        preprocess = Preprocess(height=SIDE, width=SIDE, antialias=True, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return LoadedModel(text, model, sized(preprocess, options.size), SEGMENT)
