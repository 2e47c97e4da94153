"""`TensorSpec`s of what a model file says of its inputs and outputs, which may be what no tensor can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from eightfold.errors import ModelError
from eightfold.runtime.bundle.manifest import TensorSpec
from eightfold.values import first_fault


def spec_of(name: str, dtype: str, shape: Sequence[int]) -> TensorSpec:
    """A model's input or output. Raises ModelError where there can be no such tensor."""
    kind: Any = dtype
    try:
        return TensorSpec(name=name, dtype=kind, shape=tuple(int(side) for side in shape))
    except ValidationError as error:
        raise ModelError(
            f"tensor {name!r:.80}: {first_fault(error)}", allowed="a whole model", remedy="export it again"
        ) from None
