"""timm's classifiers as a model source (https://github.com/huggingface/pytorch-image-models)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UnknownNameError
from eightfold.extras import installed, require
from eightfold.json_types import JsonDict
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import CLASSIFY, LoadedModel, ModelSource, SourceOptions, rest_of, sized

INTERPOLATIONS: dict[str, Literal["bilinear", "bicubic"]] = {"bilinear": "bilinear", "bicubic": "bicubic"}


class TimmSource(ModelSource):
    """`timm:NAME`: random weights, the preprocessing of timm's own configuration."""

    name = "timm"
    form = "timm:NAME"
    gives = "a classifier of timm"
    extra = "timm"

    def names(self) -> Sequence[str]:
        if not installed("timm"):
            return ()
        return [f"timm:{name}" for name in require("timm", "list its models").list_models()]

    def task(self, text: str, size: Size) -> Task:
        return CLASSIFY

    def check(self, text: str) -> None:
        timm, name = require("timm", "build a timm model"), rest_of(text)
        if not timm.is_model(name):
            raise UnknownNameError.of("timm model", name, timm.list_models())

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        timm, name = require("timm", "build a timm model"), rest_of(text)
        torch = require("torch", "build a model")
        self.check(text)
        torch.manual_seed(options.seed)
        classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
        model = timm.create_model(name, pretrained=False, **classes)
        return LoadedModel(text, model, sized(_preprocess(model.pretrained_cfg), options.size), CLASSIFY)


def _preprocess(config: JsonDict) -> Preprocess:
    """timm's evaluation transform: resize the shorter side to size / crop_pct, then crop the centre."""
    channels, height, width = config.get("input_size", (3, 224, 224))
    return Preprocess(
        height=height,
        width=width,
        resize="center-crop",
        shorter_side=math.floor(max(height, width) / config.get("crop_pct", 1.0)),
        interpolation=INTERPOLATIONS.get(config.get("interpolation", ""), "bicubic"),
        antialias=True,
        color="grey" if channels == 1 else "rgb",
        mean=tuple(config.get("mean", (0.0,))),
        std=tuple(config.get("std", (1.0,))),
    )
