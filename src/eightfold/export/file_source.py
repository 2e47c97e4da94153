"""Somebody else's ONNX file as the origin of fixed-size graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.errors import ModelError
from eightfold.export.freeze import frozen
from eightfold.export.inner.onnx_probe import OnnxProbe
from eightfold.export.inner.probe import Probe
from eightfold.export.onnx_files import load_onnx, opset_of, save_onnx
from eightfold.export.opset_conversion import with_opset
from eightfold.export.simplify import simplify_onnx
from eightfold.export.verify import Array, runner

if TYPE_CHECKING:
    import onnx

OTHER_OPSET = "name no older target and no older opset, or export the network again with that one"
OTHER_BATCH = "export the network again with a dynamic batch axis, or at that batch"


@dataclasses.dataclass(frozen=True)
class OnnxSource:
    """An ONNX file with one input whose axes may be dynamic."""

    path: Path
    opset: int

    def write(self, rows: Array, path: Path) -> str:
        save_onnx(self._frozen(rows), path)
        have = opset_of(load_onnx(path, external=False))
        if have == self.opset:
            return "freeze"
        if have > self.opset:
            # What older opsets lack words for is often folded away.
            simplify_onnx(path)
        save_onnx(with_opset(load_onnx(path), self.opset, remedy=OTHER_OPSET), path)
        return f"freeze, opset {have} to {self.opset}"

    def opened(self) -> Callable[[Array], list[Array]]:
        """A file of a fixed batch answers so many rows at a time."""
        run, name, size = runner(self.path), self._input.name, self._fixed_batch

        def answer(rows: Array) -> list[Array]:
            step = size or len(rows)
            filled = np.resize(rows, (-(-len(rows) // step) * step, *rows.shape[1:]))
            parts = [list(run({name: filled[at : at + step]}).values()) for at in range(0, len(filled), step)]
            if len(parts) == 1:
                return parts[0]
            return [np.concatenate(arrays)[: len(rows)] for arrays in zip(*parts, strict=True)]

        return answer

    def exact(self) -> None:
        """onnxruntime has no float64 convolutions."""

    def probe(self, batch: int) -> Probe | None:
        """None where the file does not run on so many rows at once."""
        return OnnxProbe(self.path) if self._fixed_batch in (0, batch) else None

    def _frozen(self, rows: Array) -> onnx.ModelProto:
        try:
            return frozen(load_onnx(self.path), shapes={self._input.name: rows.shape})
        except ModelError as error:
            if self._fixed_batch in (0, len(rows)):
                raise
            raise ModelError(
                f"{self.path} is fixed at batch {self._fixed_batch}, and does not run at {len(rows)} ({error.seen})",
                allowed=f"batch {self._fixed_batch}",
                remedy=OTHER_BATCH,
            ) from None

    @property
    def _fixed_batch(self) -> int:
        """0 where it is dynamic."""
        dims = self._input.type.tensor_type.shape.dim
        return int(dims[0].dim_value) if dims else 0

    @cached_property
    def _input(self) -> onnx.ValueInfoProto:
        return image_input(self.path)


def image_input(path: Path) -> onnx.ValueInfoProto:
    """The one input of a file. Raises ModelError where there are several."""
    graph = load_onnx(path, external=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{path} has {len(inputs)} inputs ({names})", allowed="one image input")
    return inputs[0]
