"""Preprocessing inside the network: the input becomes uint8 pixels as a camera gives them, rows of (height, width,
channels), and a quarter of the bytes is copied to the device. Resizing stays outside; the size is the network's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.opset.opsets import family_and_version
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import Converting
from eightfold.export.verify.reference import Reference
from eightfold.export.verify.test_inputs import input_sets_of
from eightfold.export.verify.verify import Tolerance, runner
from eightfold.files import PathLike
from eightfold.onnx_graph.graph_builder import GraphBuilder
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx, save_onnx
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import onnx

# https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/Changelog.md
UINT8_INPUTS_SINCE = (8, 5)


def with_preprocess(model: onnx.ModelProto, preprocess: Preprocess) -> tuple[onnx.ModelProto, Preprocess]:
    """Put `(pixel * scale - mean) / std` into the graph.

    Args:
        model: a fixed-size graph with one float32 input (batch, channels, height, width).
        preprocess: what the network was trained with.

    Returns:
        The new graph, whose input has the same name and is uint8 (batch, height, width, channels) in the same colour
        order; and the `Preprocess` that goes with it.

    Raises:
        UsageError: the input is another one, or is preprocessed in the graph already.
    """
    from onnx import ModelProto, TensorProto, helper

    specs = input_specs(model)
    if len(specs) != 1 or specs[0].dtype != "float32" or len(specs[0].shape) != 4 or preprocess.dtype == "uint8":
        seen = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs)
        raise UsageError(f"the graph's input is {seen}", allowed="one float32 input (batch, channels, height, width)")
    made = ModelProto()
    made.CopyFrom(model)
    name, (batch, channels, height, width) = specs[0].name, specs[0].shape
    index = GraphIndex(made.graph)
    build = GraphBuilder(index, "preprocess")
    inner = build.index.free(f"{name}_normalized")
    if not index.replace(name, inner):
        raise UsageError(f"input {name!r} is an output, too", allowed="a graph that only computes with it")
    _normalize(build, name, preprocess, inner)
    body = list(made.graph.node)
    others = [value for value in made.graph.input if value.name != name]  # weights that are listed there, too
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend([*build.nodes, *body])
    made.graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, (batch, height, width, channels)))
    made.graph.input.extend(others)
    return clean(made), pixels_for(preprocess)


def pixels_for(preprocess: Preprocess) -> Preprocess:
    """The preprocessing that is left outside the graph: size and colour order. Raises UsageError for pixels of 16
    bits."""
    if preprocess.pixels != "uint8":
        raise UsageError(
            f"preprocessing in the graph of {preprocess.pixels} pixels",
            allowed="uint8 pixels, which networks can take",
            remedy="leave preprocessing outside",
        )
    return preprocess.model_copy(update={"layout": "nhwc", "dtype": "uint8"})


def require_pixels_taken(targets: Iterable[str]) -> None:
    """Raises UsageError where a target takes no uint8 inputs."""
    for target in targets:
        family, version = family_and_version(target)
        if family == "tensorrt" and version < UINT8_INPUTS_SINCE:
            raise UsageError(
                f"preprocessing in the graph for {target}, which takes no uint8 inputs",
                allowed="TensorRT 8.5 and later",
                remedy="leave preprocessing outside",
            )


def _normalize(build: GraphBuilder, name: str, preprocess: Preprocess, output: str) -> None:
    """Cast, Transpose, Mul, Add: in float32, with both constants computed in float64 and rounded once. TensorRT casts
    pixels and does nothing else with them."""
    from onnx import TensorProto

    std, mean = np.array(preprocess.std), np.array(preprocess.mean)
    shape = (1, -1, 1, 1)
    planes = build.add("Transpose", build.add("Cast", name, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    scaled = build.add("Mul", planes, build.floats((preprocess.scale / std).reshape(shape)))
    build.add("Add", scaled, build.floats((-mean / std).reshape(shape)), output=output)


def put_preprocess_in(
    path: PathLike, preprocess: Preprocess, *, tolerance: Tolerance, images: Array | None = None
) -> tuple[Preprocess, Step]:
    """Rewrite an ONNX file in place so that it takes pixels, and compare it with what it was: the same pixels through
    both, of images, all black, all white and side by side, and of all values.

    Args:
        path: a fixed-size file.
        preprocess: what the network was trained with.
        tolerance: of the new graph against the old one.
        images: uint8 (n, height, width, channels) of that size, colours in the network's order; those that fill no
            run are left out. Random pixels where there are none.

    Returns:
        The `Preprocess` that goes with it now, and what was found.

    Raises:
        VerificationError: the answer moved beyond the tolerance; the file is left as it was.
    """
    path = Path(path)
    model, how = with_preprocess(load_onnx(path), preprocess)
    specs = input_specs(model)
    (spec,) = specs
    input_sets = {
        # As floats, so that it can be told how much the network makes of a rounding error.
        words: [{spec.name: inputs[spec.name].astype(np.float32)} for inputs in runs]
        for words, runs in input_sets_of(specs, None if images is None else {spec.name: images}).items()
    }
    before = runner(path)

    def prepared(inputs: Arrays) -> Arrays:
        return {spec.name: normalized(preprocess, inputs[spec.name])}

    def pixels(inputs: Arrays) -> Arrays:
        return {name: rows.astype(np.uint8) for name, rows in inputs.items()}

    probe = Converting(OnnxProbe(path), prepared)
    reference = Reference(lambda inputs: before(prepared(inputs)), input_sets, probe)
    made = save_onnx(model, path.with_suffix(".pixels.onnx"))
    try:
        run = runner(made)
        step = reference.verify(
            lambda inputs: run(pixels(inputs)),
            step="preprocess in graph",
            tolerance=tolerance,
            probe=Converting(OnnxProbe(made), pixels),
        )
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return how, step


def normalized(preprocess: Preprocess, pixels: Array) -> Array:
    """The result of `Preprocess` for images that have the size already: (n, height, width, channels) pixels in the
    network's colour order -> float32 (n, channels, height, width)."""
    scaled = pixels.astype(np.float64) * preprocess.scale
    rows = (scaled - np.array(preprocess.mean)) / np.array(preprocess.std)
    return np.ascontiguousarray(rows.astype(np.float32).transpose(0, 3, 1, 2))
