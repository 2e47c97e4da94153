"""Inputs of an ONNX file of any origin: image inputs, inputs with a constant value, and others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError, UsageError
from eightfold.export.fixed_size.fix_shapes import has_channels_last
from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.json_types import JsonMapping
from eightfold.onnx_graph.graph_index import keep
from eightfold.onnx_graph.onnx_files import DTYPE_OF_ELEM_TYPE, load_onnx
from eightfold.onnx_graph.tensor_specs import spec_of
from eightfold.runtime.bundle.sizes import Size

if TYPE_CHECKING:
    import onnx

IMAGE_TYPES = ("float32", "uint8")
ONE_INPUT = "one image input"
MOST_CHANNELS = 32  # what is longer is taken for a side of the images
STATE_IT = "give it a value (--constant NAME=VALUE)"


@dataclasses.dataclass(frozen=True)
class Input:
    """One input. A length of 0 stands for an axis that is dynamic."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> Input:
        """The input that a graph declares."""
        tensor = value.type.tensor_type
        dims = tuple(dim.dim_value for dim in tensor.shape.dim)
        return cls(value.name, DTYPE_OF_ELEM_TYPE.get(tensor.elem_type, "other"), dims)

    @property
    def takes_images(self) -> bool:
        """True if it has four axes and a type that images can have."""
        return self.dtype in IMAGE_TYPES and len(self.dims) == 4

    def takes(self, rows: Array) -> bool:
        """True if it is an input for these images."""
        pairs = zip(self.dims[1:], rows.shape[1:], strict=True) if self.takes_images else ()
        return self.takes_images and self.dtype == rows.dtype and all(own in (0, given) for own, given in pairs)

    def is_by_image(self, fixed_batch: int) -> bool:
        """True if the first axis is the batch: it is dynamic, or as long as that of images that are fixed. A list of
        numbers of fixed length has none."""
        return self.dims[:1] == (0,) or (len(self.dims) > 1 and self.dims[0] == fixed_batch)

    def shape_at(self, batch: int, fixed_batch: int) -> tuple[int, ...]:
        """The whole shape. Raises ModelError where another axis than the batch is dynamic."""
        rest = self.dims[1:]
        if not all(rest):
            shown = ", ".join(str(length or "?") for length in self.dims)
            raise ModelError(
                f"input {self.name!r} has the shape ({shown}) and its dynamic axes have no known length",
                allowed="images of the requested size, or static shapes",
                remedy=STATE_IT,
            )
        return (batch, *rest) if self.is_by_image(fixed_batch) else self.dims


@dataclasses.dataclass(frozen=True)
class FileInputs:
    """Inputs of an ONNX file: images and constants.

    Attributes:
        free: the inputs that stay inputs, in order; at least one.
        constants: the other ones, each with its value.
    """

    path: Path
    free: tuple[Input, ...]
    constants: tuple[tuple[Input, Array], ...] = ()

    @classmethod
    def of(cls, path: Path, constants: JsonMapping | None = None) -> FileInputs:
        """Read them from the file.

        Args:
            constants: input name -> its value, a number or an array, for one image or for all.

        Raises:
            UsageError: there is no such input, or it takes no such value.
            ModelError: no input is left.
        """
        given, found = dict(constants or {}), [Input.of(value) for value in load_onnx(path, external=False).graph.input]
        names = [each.name for each in found]
        for name in given:
            if name not in names:
                raise UsageError(f"{path} has no input {name!r}", allowed=", ".join(names))
        free = tuple(each for each in found if each.name not in given)
        if not free:
            raise ModelError(
                f"{path} has no input" + (" that is no constant" if found else ""), allowed="an image input"
            )
        fixed = tuple((each, _value_for(each, given[each.name])) for each in found if each.name in given)
        made = cls(path, free, fixed)
        for each in free:
            if each is not made.image and not each.is_by_image(made.fixed_batch):
                raise ModelError(
                    f"input {each.name!r} has the shape {each.dims}",
                    allowed="inputs whose first axis is the batch",
                    remedy=STATE_IT,
                )
        return made

    @property
    def image(self) -> Input:
        """The input that images go to, the first one of several; where none takes images, the first of all."""
        return next((each for each in self.free if each.takes_images), self.free[0])

    @property
    def fixed_batch(self) -> int:
        """0 where it is dynamic."""
        return self.image.dims[0] if self.image.dims else 0

    @property
    def image_size(self) -> Size | None:
        """The image size that the file fixes; None if it fixes none, or takes no images."""
        dims = self.image.dims if self.image.takes_images else (0, 0, 0, 0)
        height, width = dims[1:3] if has_channels_last(dims) else dims[2:]
        return (height, width) if height and width else None

    @property
    def image_channels(self) -> int:
        """The number of image channels that the file fixes; 0 if it fixes none, or takes no images."""
        dims = self.image.dims if self.image.takes_images else (0, 0, 0, 0)
        return dims[3] if has_channels_last(dims) else dims[1] if dims[1] <= MOST_CHANNELS else 0

    def require_one(self) -> None:
        """Raise ModelError where there are several."""
        if len(self.free) > 1:
            names = ", ".join(each.name for each in self.free)
            raise ModelError(
                f"{self.path} has {len(self.free)} inputs ({names})",
                allowed=ONE_INPUT,
                remedy="give those that never change a value at the export (--constant NAME=VALUE)",
            )

    def feeds(self, rows: Array) -> dict[str, Array]:
        """All inputs for a run on `rows` images: the images for image inputs, in another order for each; random values
        for the others."""
        made: dict[str, Array] = {}
        for place, each in enumerate(self.free):
            if each is self.image or each.takes(rows):
                made[each.name] = np.roll(rows, place, axis=0)
            else:
                spec = spec_of(each.name, each.dtype, list(each.shape_at(len(rows), self.fixed_batch)))
                made |= random_inputs_of([spec], seed=place)
        return made

    def constants_at(self, batch: int) -> dict[str, Array]:
        """The values of the inputs that are none any more."""
        return {each.name: _filled(each, value, batch, self.fixed_batch) for each, value in self.constants}


def image_input(path: Path) -> Input:
    """The only input of a file. Raises ModelError where there are several."""
    inputs = FileInputs.of(path)
    inputs.require_one()
    return inputs.image


def with_constants(model: onnx.ModelProto, arrays: Arrays) -> onnx.ModelProto:
    """Make weights of these inputs, in place."""
    from onnx import numpy_helper

    keep(model.graph.input, lambda value: value.name not in arrays)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def _value_for(each: Input, value: Any) -> Array:
    """The value in the input's type, which has to hold it."""
    seen = f"constant {value!r:.60} for input {each.name!r}"
    try:
        array = np.asarray(value)
        typed = array.astype(each.dtype)
        exact = np.array_equal(typed.astype(array.dtype), array) or (array.dtype.kind == "f" == typed.dtype.kind)
    except (TypeError, ValueError):
        raise UsageError(seen, allowed=f"a number or an array of {each.dtype}") from None
    if not exact:
        raise UsageError(seen, allowed=f"values that {each.dtype} holds")
    _filled(each, typed, 1, 0)
    return typed


def _filled(each: Input, value: Array, batch: int, fixed_batch: int) -> Array:
    """The value in the input's whole shape; a value for one image is repeated for each."""
    own = (1,) * (len(each.dims) - value.ndim) + value.shape
    known = dataclasses.replace(
        each, dims=tuple(length or (own[axis] if axis else 0) for axis, length in enumerate(each.dims))
    )
    shape = known.shape_at(batch, fixed_batch)
    try:
        return np.ascontiguousarray(np.broadcast_to(value, shape))
    except ValueError:
        wanted = "x".join(str(length or "?") for length in each.dims) or "a single number"
        raise UsageError(
            f"constant of shape {value.shape} for input {each.name!r}", allowed=f"what fits {wanted}"
        ) from None
