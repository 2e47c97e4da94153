"""torchvision's classifiers as a model source."""

from __future__ import annotations

from typing import Any

from eightfold.calib.images.preprocess import Preprocess
from eightfold.extras import require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import (
    CLASSIFY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LoadedModel,
    SourceOptions,
    sized,
)
from eightfold.zoo.sources.torchvision_base import TorchvisionSource, torchvision_models


class TorchvisionClassifierSource(TorchvisionSource):
    """A torchvision name: random weights, the preprocessing of its published weights."""

    name = "torchvision"
    form = "a torchvision name (resnet18)"
    gives = "a classifier of torchvision"

    def task(self, text: str, size: Size) -> Task:
        return CLASSIFY

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        models, torch = torchvision_models(), require("torch", "build a model")
        torch.manual_seed(options.seed)
        classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
        model = models.get_model(text, weights=None, **classes)
        return LoadedModel(text, model, sized(classifier_preprocess(text), options.size), CLASSIFY)


def classifier_preprocess(name: str) -> Preprocess:
    """The evaluation transform that torchvision states for a model's published weights."""
    models = torchvision_models()
    stated: Any = models.get_model_weights(name).DEFAULT.transforms()
    side, shorter = stated.crop_size[0], stated.resize_size[0]
    return Preprocess(
        height=side,
        width=side,
        resize="center-crop",
        shorter_side=max(side, shorter),
        interpolation="bicubic" if "bicubic" in str(stated.interpolation).lower() else "bilinear",
        antialias=True,
        mean=tuple(stated.mean or IMAGENET_MEAN),
        std=tuple(stated.std or IMAGENET_STD),
    )
