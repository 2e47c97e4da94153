"""ONNX files as a model source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError, UsageError
from eightfold.files import require_model_file
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size, size_text
from eightfold.zoo.sources.base import RAW_OUTPUTS, LoadedModel, ModelSource, SourceOptions
from eightfold.zoo.sources.onnx_task import preprocess_of_task, recorded_size, task_of_graph

if TYPE_CHECKING:
    import onnx

DEFAULT_SIZE = 224, 224


class OnnxFileSource(ModelSource):
    """`FILE.onnx`: the graph with its own weights, inputs and outputs."""

    name = "onnx"
    form = "FILE.onnx"
    gives = "an ONNX file, with its own weights"
    extra = "export"

    def takes(self, text: str) -> bool:
        return text.endswith(".onnx")

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        return change(text)

    def brings_weights(self, text: str) -> bool:
        return True

    def takes_weights(self, text: str) -> bool:
        return False

    def task(self, text: str, size: Size) -> Task:
        from eightfold.onnx_graph.onnx_files import load_onnx

        if not Path(text).is_file():
            return RAW_OUTPUTS
        model = load_onnx(Path(text), external=False)
        if all(dim.dim_value for each in model.graph.output for dim in each.type.tensor_type.shape.dim[1:]):
            return task_of_graph(model, size)
        return task_of_graph(_at_size(Path(text), size), size)

    def check(self, text: str) -> None:
        if Path(text).is_file():
            from eightfold.compress.onnx.graph_file import require_prunable

            require_prunable(Path(text))

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        from eightfold.export.bundle.export_bundle import as_file_takes
        from eightfold.export.fixed_size.file_inputs import FileInputs
        from eightfold.onnx_graph.onnx_files import load_onnx

        path = Path(text)
        require_model_file(path, "ONNX file", allowed="an .onnx file that exists")
        inputs = FileInputs.of(path, options.inputs)
        own = inputs.image_size
        if own is not None and options.size not in (None, own):
            raise UsageError(
                f"images of {size_text(options.size or own)} for {path}, which is fixed at {size_text(own)}",
                allowed=size_text(own),
                remedy="export the network again with dynamic height and width",
            )
        height, width = own or options.size or recorded_size(load_onnx(path, external=False)) or DEFAULT_SIZE
        preprocess = Preprocess(height=height, width=width, channels=inputs.image_channels or 3)
        if inputs.image.takes_images:
            preprocess = as_file_takes(inputs, preprocess)
        task = self.task(text, (height, width))
        return LoadedModel(text, path, preprocess_of_task(task, preprocess), task, brings_weights=True)


def _at_size(path: Path, size: Size) -> onnx.ModelProto:
    """The graph for one image of (height, width), so that the shapes of its outputs are known; else as it is."""
    from eightfold.export.fixed_size.file_inputs import FileInputs
    from eightfold.export.fixed_size.fix_shapes import frozen
    from eightfold.onnx_graph.onnx_files import load_onnx

    model, image = load_onnx(path), FileInputs.of(path).image
    channels = image.dims[1] if len(image.dims) == 4 else 0
    try:
        return frozen(model, shapes={image.name: (1, channels or 3, *size)})
    except EightfoldError:  # several inputs, or channels that come last: the outputs stay unknown
        return model
