"""Somebody else's ONNX file as the origin of fixed-size graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError
from eightfold.export.fixed_size.batch_first import with_batch_first
from eightfold.export.fixed_size.file_inputs import FileInputs, with_constants
from eightfold.export.fixed_size.fix_shapes import at_batch, frozen
from eightfold.export.opset.opset_conversion import with_opset
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import Converting, Probe
from eightfold.export.verify.test_inputs import cycled
from eightfold.export.verify.verify import runner
from eightfold.onnx_graph.onnx_files import load_onnx, opset_of, save_onnx
from eightfold.onnx_graph.tensor_specs import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

OTHER_OPSET = "name no older target and no older opset, or export the network again with that one"
OTHER_BATCH = "export the network again with a dynamic batch axis, or at that batch"


@dataclasses.dataclass(frozen=True)
class OnnxSource:
    """An ONNX file whose axes may be dynamic.

    Attributes:
        axes: of each output the one that is the batch; none where all have it first.
    """

    inputs: FileInputs
    opset: int
    axes: tuple[int, ...] = ()

    def write(self, rows: Array, path: Path) -> str:
        save_onnx(with_batch_first(self._frozen(rows), self.axes), path)
        have, done = opset_of(load_onnx(path, external=False)), "freeze, batch first" if any(self.axes) else "freeze"
        if have == self.opset:
            return done
        if have > self.opset:
            # What older opsets lack words for is often folded away.
            simplify_onnx(path)
        save_onnx(with_opset(load_onnx(path), self.opset, remedy=OTHER_OPSET), path)
        return f"{done}, opset {have} to {self.opset}"

    def feeds(self, rows: Array, specs: Sequence[TensorSpec]) -> Arrays:
        return self.inputs.feeds(rows)

    def opened(self) -> Callable[[Arrays], list[Array]]:
        """A file of a fixed batch runs that number of rows at a time; one that does not take all at once, one."""
        run, size = runner(self.inputs.path), self.inputs.fixed_batch

        def answer(feeds: Arrays) -> list[Array]:
            count = len(feeds[self.inputs.image.name])
            try:
                return in_turn(feeds, count, size or count)
            except ModelError:
                if size or count == 1:
                    raise
                return in_turn(feeds, count, 1)

        def in_turn(feeds: Arrays, count: int, step: int) -> list[Array]:
            filled = {name: cycled(array, -(-count // step) * step) for name, array in feeds.items()}
            cuts = [{name: array[at : at + step] for name, array in filled.items()} for at in range(0, count, step)]
            parts = [self._batch_first(run(self._completed(cut)).values()) for cut in cuts]
            if step == count:
                return parts[0]
            return [np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True)]

        return answer

    def exact(self) -> None:
        """onnxruntime has no float64 convolutions."""

    def probe(self, batch: int) -> Probe | None:
        """None if the file does not run on that number of rows at once."""
        fits = self.inputs.fixed_batch in (0, batch)
        return Converting(OnnxProbe(self.inputs.path), self._completed) if fits else None

    def otherwise(self) -> None:
        """It is the file itself."""

    def _batch_first(self, arrays: Iterable[Array]) -> list[Array]:
        found = list(arrays)
        return [np.moveaxis(*pair, 0) for pair in zip(found, self.axes, strict=True)] if any(self.axes) else found

    def _completed(self, feeds: Arrays) -> Arrays:
        return {**feeds, **self.inputs.constants_at(len(feeds[self.inputs.image.name]))}

    def _frozen(self, rows: Array) -> onnx.ModelProto:
        own, size = self.inputs, self.inputs.fixed_batch
        shapes = {name: array.shape for name, array in own.feeds(rows).items()}
        try:
            return frozen(with_constants(load_onnx(own.path), own.constants_at(len(rows))), shapes=shapes)
        except ModelError as error:
            if size == 0 and len(rows) > 1:  # an inner shape may hold the batch of the exporter's example
                return at_batch(self._frozen(rows[:1]), len(rows))
            if size in (0, len(rows)):
                raise
            raise ModelError(
                f"{own.path} is fixed at batch {size}, and does not run at {len(rows)} ({error.seen})",
                allowed=f"batch {size}",
                remedy=OTHER_BATCH,
            ) from None
