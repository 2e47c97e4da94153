"""`source.json` of a pruned folder: names the network that was pruned, so that the folder loads without other code."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError, ModelError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.values import Value

SOURCE = "source.json"
# The pruned graph itself, where the source is an ONNX file.
MODEL = "model.onnx"


class SourceRecord(Value):
    """The source of a pruned network and how it is run."""

    kind: ClassVar[str] = "model source"
    error: ClassVar[type[EightfoldError]] = ModelError

    source: str = Field(description="as it was given to the command: resnet18, timm:NAME, package.module:function, ...")
    directory: str = Field(
        default="",
        description="where the command ran: paths and modules of `source` that are not in the current directory are "
        "looked for there",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="num_classes and further inputs that build the architecture again"
    )
    size: Size = Field(description="(height, width) of the images in pixels")
    task: Task | None = Field(default=None, description="meaning of the outputs; that of the source when absent")
    preprocess: Preprocess | None = Field(default=None, description="that of the source when absent")
    macs_before: int | None = Field(default=None, description="multiply-accumulates before pruning, at `size`")
    parameters_before: int | None = Field(default=None, description="values in parameters before pruning")
    runs_code: bool = Field(default=False, description="loading imports a module of the user's own code")
