"""ONNX files as a model source."""

from __future__ import annotations

from pathlib import Path

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.runtime.bundle.sizes import size_text
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions

DEFAULT_SIZE = 224, 224


class OnnxFileSource(ModelSource):
    """`FILE.onnx`: the graph with its own weights, inputs and outputs."""

    name = "onnx"
    form = "FILE.onnx"
    gives = "an ONNX file, with its own weights"
    extra = "export"

    def takes(self, text: str) -> bool:
        return text.endswith(".onnx")

    def brings_weights(self, text: str) -> bool:
        return True

    def takes_weights(self, text: str) -> bool:
        return False

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        from eightfold.export.bundle.export_bundle import as_file_takes
        from eightfold.export.fixed_size.file_inputs import FileInputs

        path = Path(text)
        if not path.is_file():
            raise ModelError(f"no ONNX file {path}", allowed="an .onnx file that exists", remedy="check the path")
        inputs = FileInputs.of(path, options.inputs)
        own = inputs.image_size
        if own is not None and options.size not in (None, own):
            raise UsageError(
                f"images of {size_text(options.size or own)} for {path}, which is fixed at {size_text(own)}",
                allowed=size_text(own),
                remedy="export the network again with dynamic height and width",
            )
        height, width = own or options.size or DEFAULT_SIZE
        preprocess = Preprocess(height=height, width=width, channels=inputs.image_channels or 3)
        if inputs.image.takes_images:
            preprocess = as_file_takes(inputs, preprocess)
        return LoadedModel(text, path, preprocess, brings_weights=True)
