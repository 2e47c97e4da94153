"""An ONNX file from anywhere becomes a fixed-size one: dynamic axes get numbers, and the outputs' shapes are stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Arrays
from eightfold.errors import ModelError, UsageError
from eightfold.export.fixed_size.change_size import Sizes, require_size_follows
from eightfold.export.fixed_size.other_batch import fixed_batch, require_rows_alike
from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.export.verify.verify import runner
from eightfold.files import PathLike
from eightfold.onnx_graph.canonicalize import canonicalized
from eightfold.onnx_graph.change_batch import loosen_batch
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx, save_onnx
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.onnx_graph.value_dependent import remedy_for_output, value_dependent_node

if TYPE_CHECKING:
    import onnx

SMALL_CHANNEL_COUNTS = (1, 3, 4)


def freeze_onnx(
    path: PathLike,
    output: PathLike,
    *,
    batch: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Give every dynamic axis of an ONNX file's inputs a number.

    Args:
        path: an ONNX file from any exporter.
        output: where the fixed-size file goes.
        batch: for the first axis of each input; where None, 1 for those that are dynamic. A file that is fixed at
            another one gets this one, unless its answers change; so does one whose inner shapes hold a batch.
        image_size: side or (height, width) of images, whose layout is told by the axis that holds 1, 3 or 4 channels
            (the second where that is dynamic as well). A file that is fixed at another size gets this one, unless a
            constant inside of the graph holds the old size.
        shapes: input name -> whole shape, where the rules above do not fit.

    Raises:
        ModelError: an axis is dynamic and nothing says how long it is, the network does not run at that size, or its
            graph holds another size or batch.
    """
    model = load_onnx(path)
    if batch is None or shapes:
        return save_onnx(frozen(model, batch=batch or 1, image_size=image_size, shapes=shapes), output)
    try:
        made = frozen(model, batch=batch, image_size=image_size)
    except ModelError:
        made = _of_one_image(model, batch, image_size)
    return save_onnx(at_batch(made, batch), output)


def _of_one_image(model: onnx.ModelProto, batch: int, image_size: int | tuple[int, int] | None) -> onnx.ModelProto:
    """The graph at one image, where it does not run at `batch`: many exporters leave the batch of their example inside
    of a graph whose inputs are dynamic. Raises what `frozen` does where it does not run at one image either."""
    made = frozen(model, image_size=image_size)
    if batch == 1 or not any(_fixed_batch(value) == 1 for value in made.graph.input):
        return frozen(model, batch=batch, image_size=image_size)
    return made


def at_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph, whose shapes are all fixed, at another batch. Raises ModelError where its answers are others there."""
    first = next((value for value in model.graph.input if len(_dims(value)) == 4), None)
    old = 0 if first is None else _fixed_batch(first)
    if old in (0, batch):
        return model
    fixed = {value.name: _known_dims(value) for value in model.graph.input if _fixed_batch(value) == old}
    try:
        made = frozen(model, shapes={name: (batch, *dims[1:]) for name, dims in fixed.items()})
    except ModelError as error:
        raise fixed_batch(old, batch, error.seen) from None
    require_rows_alike(model, made, fixed)
    return made


def frozen(
    model: onnx.ModelProto,
    *,
    batch: int = 1,
    image_size: int | tuple[int, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> onnx.ModelProto:
    """The same in memory; `model` is not changed."""
    from onnx import ModelProto

    made = ModelProto()
    made.CopyFrom(model)
    made = canonicalized(made)
    _require_tensors(made)
    _require_known(shapes or {}, [value.name for value in made.graph.input])
    before = _sizes_before(made, image_size)
    for value in made.graph.input:
        wanted = (shapes or {}).get(value.name)
        if wanted is not None:
            _require_possible(value, wanted)
            old = _fixed_batch(value)
            if [old] != list(wanted[:1]):
                loosen_batch(made, old)
        _set_shape(value, _shape_of(value, batch, image_size) if wanted is None else wanted)
    del made.graph.value_info[:]
    if before is not None:
        for output in made.graph.output:
            output.type.tensor_type.ClearField("shape")
        require_size_follows(made, before)
    _state_output_shapes(made)
    return clean(made)


def _sizes_before(model: onnx.ModelProto, image_size: int | tuple[int, int] | None) -> Sizes | None:
    """The sizes in a graph whose images are fixed at another size than `image_size`; None for other graphs."""
    if image_size is None:
        return None
    for value in model.graph.input:
        dims = _known_dims(value)
        if len(dims) == 4 and any(old not in (0, new) for old, new in zip(dims, _sized(dims, image_size), strict=True)):
            return Sizes.of(model)
    return None


def _known_dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else 0 for dim in _dims(value)]


def _sized(dims: Sequence[int], image_size: int | tuple[int, int]) -> list[int]:
    """The shape of an image input at another height and width."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    wanted = (0, height, width, 0) if has_channels_last(dims) else (0, 0, height, width)
    return [size or own for own, size in zip(dims, wanted, strict=True)]


def _fixed_batch(value: onnx.ValueInfoProto) -> int:
    """The first axis of a tensor; 0 where it is dynamic, or where there is none."""
    dims = _dims(value)
    return int(dims[0].dim_value) if dims and dims[0].HasField("dim_value") else 0


def _require_tensors(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind not in ("tensor_type", None):
            raise ModelError(
                f"{value.name!r} is a {kind.removesuffix('_type')}", allowed="inputs and outputs of tensors"
            )


def _require_known(shapes: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    for name in shapes:
        if name not in names:
            raise UsageError(f"the network has no input {name!r}", allowed=", ".join(names))


def _require_possible(value: onnx.ValueInfoProto, wanted: Sequence[int]) -> None:
    """A batch that is fixed may often be another one; the size and number of channels never."""
    if not value.type.tensor_type.HasField("shape"):
        return
    have = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in _dims(value)]
    if len(have) != len(wanted) or any(own not in (0, size) for own, size in zip(have[1:], wanted[1:], strict=True)):
        shown = ["x".join(str(size or "?") for size in shape) for shape in (wanted, have)]
        raise UsageError(
            f"input {value.name!r} was to be {shown[0]}",
            allowed=f"{shown[1]}, which is fixed in the file" + (" but for what is ?" if 0 in have else ""),
            remedy="give that size (--size), and the number of channels in the Preprocess (--preprocess)",
        )


def _shape_of(value: onnx.ValueInfoProto, batch: int, image_size: int | tuple[int, int] | None) -> list[int]:
    dims = _known_dims(value)
    if dims and not dims[0]:
        dims[0] = batch
    if len(dims) == 4 and image_size is not None:
        dims = _sized(dims, image_size)
    if not value.type.tensor_type.HasField("shape") or not all(dims):
        shown = ", ".join(str(size or "?") for size in dims)
        raise ModelError(
            f"input {value.name!r} has the shape ({shown}) and its dynamic axes have no known length",
            allowed="static shapes",
            remedy=f"name the image size, or the whole shape of {value.name!r}",
        )
    return dims


def has_channels_last(dims: Sequence[int]) -> bool:
    """True if an input of four axes has them in this order: batch, height, width, channels."""
    return dims[3] in SMALL_CHANNEL_COUNTS and dims[1] not in SMALL_CHANNEL_COUNTS


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    tensor = value.type.tensor_type
    tensor.ClearField("shape")
    tensor.shape.SetInParent()  # that of a scalar is empty, not unknown
    for size in shape:
        tensor.shape.dim.add(dim_value=size)


def _state_output_shapes(model: onnx.ModelProto) -> None:
    """By running the network once: shape inference loses track in many graphs, a run never does."""
    from onnx import helper

    specs = input_specs(model)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    run = runner(model)
    inputs = random_inputs_of(specs)
    results = run(inputs)
    dark = {name: np.zeros_like(array) for name, array in inputs.items()}
    counted = any(value_dependent_node(model.graph, output.name) for output in model.graph.output)
    for others in (*_others(specs, inputs), *([dark] if counted else [])):
        _require_same_shapes(model.graph, results, run, others)
    for output in model.graph.output:
        array = results[output.name]
        output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        _set_shape(output, array.shape)


def _others(specs: Sequence[TensorSpec], inputs: Arrays) -> Iterator[Arrays]:
    """Other values, but smaller numbers: they may be sizes, and larger ones could take any amount of memory. They may
    also be axes, where nothing else but 0 may be one. Short lists of values may be scales, which make something of one
    pixel only from 1 on."""
    values = random_inputs_of(specs, seed=1)
    numbers = {name: array for name, array in inputs.items() if array.dtype.kind in "iu"}
    yield {**values, **{name: np.asarray(array // 2) for name, array in numbers.items()}}
    if numbers:
        yield {**values, **{name: np.zeros_like(array) for name, array in numbers.items()}}
    scales = {name: array for name, array in inputs.items() if array.dtype.kind == "f" and array.ndim < 2}
    if scales:
        yield {**inputs, **{name: array + 1 for name, array in scales.items()}}


def _require_same_shapes(
    graph: onnx.GraphProto, results: Arrays, run: Callable[[Arrays], Arrays], others: Arrays
) -> None:
    """Sizes that follow from what is in an image, or from numbers that are put in, are no fixed ones."""
    try:
        again = run(others)
    except ModelError:  # some run on few values only: what they put out for these is what can be told
        return
    for name, array in results.items():
        if again[name].shape != array.shape:
            raise ModelError(
                f"output {name!r} has the shape {array.shape} for some values and {again[name].shape} for others",
                allowed="outputs whose shapes follow from those of the inputs",
                remedy=remedy_for_output(graph, name)
                or "cut the graph before the operator that chooses how many there are",
            )
