"""The part that the sources of torchvision's models share."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import ClassVar

from eightfold.extras import installed, require
from eightfold.zoo.sources.base import ModelSource


class TorchvisionSource(ModelSource):
    """The names of one of torchvision's modules of models.

    Attributes:
        module: its name in `torchvision.models`; "" for the classifiers.
    """

    extra = "compress"
    module: ClassVar[str] = ""

    def takes(self, text: str) -> bool:
        return text in self.names()

    def names(self) -> Sequence[str]:
        if not installed("torchvision"):
            return ()
        models = torchvision_models()
        names: list[str] = models.list_models(module=getattr(models, self.module) if self.module else models)
        return names


def torchvision_models() -> ModuleType:
    """`torchvision.models`. Raises MissingExtraError."""
    models: ModuleType = require("torchvision", "build a torchvision model").models
    return models
