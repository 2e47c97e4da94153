"""MODNet as a model source."""

from __future__ import annotations

from eightfold.calib.images.preprocess import Preprocess
from eightfold.extras import require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions, sized

MATTE = Task(kind="matte", decode="matte")
SIDE = 512


class ModnetSource(ModelSource):
    """`modnet`: random weights, or the public checkpoints by `weights`."""

    name = "modnet"
    form = "modnet"
    gives = "MODNet, a matting network; public checkpoints load as its weights"
    extra = "compress"

    def takes(self, text: str) -> bool:
        return text == self.name

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def task(self, text: str, size: Size) -> Task:
        return MATTE

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        torch = require("torch", "build MODNet")
        from eightfold.zoo.sources.modnet.network import MODNet

        torch.manual_seed(options.seed)
        preprocess = Preprocess(
            height=SIDE, width=SIDE, resize="letterbox", interpolation="area", mean=(0.5,) * 3, std=(0.5,) * 3
        )
        return LoadedModel(text, MODNet(), sized(preprocess, options.size), MATTE, trace_arguments=(True,))
