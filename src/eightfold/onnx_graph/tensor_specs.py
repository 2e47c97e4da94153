"""Names, element types and shapes of inputs and outputs, checked when they come from a model file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from eightfold.errors import ModelError
from eightfold.values import Frozen, first_fault

# No network comes near this; a reader allocates what a manifest states.
LARGEST_TENSOR_ELEMENTS = 1 << 32


class TensorSpec(Frozen):
    """One input or output of an artifact. Shapes are static."""

    name: str
    dtype: Literal["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]
    shape: tuple[Annotated[int, Field(ge=0)], ...]

    @field_validator("shape")
    @classmethod
    def _fits(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(max(side, 1) for side in shape) > LARGEST_TENSOR_ELEMENTS:
            raise ValueError(f"a tensor of more than {LARGEST_TENSOR_ELEMENTS} elements")
        return shape


def spec_of(name: str, dtype: str, shape: Sequence[int]) -> TensorSpec:
    """A model's input or output. Raises ModelError where there can be no such tensor."""
    try:
        return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": tuple(int(side) for side in shape)})
    except ValidationError as error:
        raise ModelError(
            f"tensor {name!r:.80}: {first_fault(error)}", allowed="a whole model", remedy="export it again"
        ) from None
