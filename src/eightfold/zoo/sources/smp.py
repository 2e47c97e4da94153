"""segmentation-models-pytorch as a model source (https://github.com/qubvel-org/segmentation_models.pytorch)."""

from __future__ import annotations

from collections.abc import Sequence

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UnknownNameError, UsageError, first_line
from eightfold.extras import installed, require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LoadedModel,
    ModelSource,
    SourceOptions,
    rest_of,
    sized,
)

PACKAGE = "segmentation_models_pytorch"
SIDE = 256
SEGMENT = Task(kind="segment", decode="segment")


class SmpSource(ModelSource):
    """`smp:ARCHITECTURE/ENCODER`: random weights, one map of class scores."""

    name = "smp"
    form = "smp:ARCH/ENCODER"
    gives = "a segmentation network of segmentation-models-pytorch"
    extra = "smp"

    def names(self) -> Sequence[str]:
        if not installed(PACKAGE):
            return ()
        smp = require(PACKAGE, "list its models")
        return [f"smp:{name}/resnet18" for name in smp.MODEL_ARCHITECTURES_MAPPING]

    def task(self, text: str, size: Size) -> Task:
        return SEGMENT

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        smp, torch = require(PACKAGE, "build a segmentation network"), require("torch", "build a model")
        architecture, slash, encoder = rest_of(text).partition("/")
        if not slash:
            raise UsageError(text, allowed=self.form, remedy=f"write {text}/resnet18")
        known = smp.MODEL_ARCHITECTURES_MAPPING
        if architecture.lower() not in known:
            raise UnknownNameError.of("smp architecture", architecture, known)
        encoders = smp.encoders.get_encoder_names()
        if not encoder.startswith("tu-") and encoder not in encoders:
            raise UnknownNameError.of("smp encoder", encoder, encoders)
        torch.manual_seed(options.seed)
        classes = options.num_classes or 1
        try:
            model = smp.create_model(architecture, encoder, encoder_weights=None, classes=classes)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(f"smp cannot build {text} ({first_line(error)})", allowed=self.form) from None
        preprocess = Preprocess(height=SIDE, width=SIDE, antialias=True, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return LoadedModel(text, model, sized(preprocess, options.size), SEGMENT)
