"""A graph written for one version of the standard operator set, in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.errors import ModelError
from eightfold.export.onnx_files import opset_of

if TYPE_CHECKING:
    import onnx


def with_opset(model: onnx.ModelProto, opset: int, *, remedy: str) -> onnx.ModelProto:
    """The graph with `opset`; `model` itself where it has that already.

    Raises:
        ModelError: onnx's converter cannot bring it there; `remedy` says what to do then.
    """
    from onnx import version_converter

    if opset_of(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    # The converter's own errors are RuntimeErrors; graphs beyond protobuf's limit raise ValueError.
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f"the graph was written with opset {opset_of(model)} and cannot be converted to {opset} ({reason})",
            allowed=f"opset {opset_of(model)}" + (" and up for this model" if opset < opset_of(model) else ""),
            remedy=remedy,
        ) from None
