"""One network at several batches: exported and simplified at two of them, derived at the others, checked at all."""

from __future__ import annotations

import dataclasses
import functools
import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eightfold.errors import ModelError
from eightfold.export.file_source import OnnxSource
from eightfold.export.inner.probe import Probe
from eightfold.export.inner.torch_probe import TorchProbe
from eightfold.export.onnx_export import export_onnx, exporter_of
from eightfold.export.onnx_files import external_files, input_specs, load_onnx, opset_of, save_onnx
from eightfold.export.opsets import newest_opset, opset_for
from eightfold.export.rebatch import rebatched
from eightfold.export.reference import Reference
from eightfold.export.simplify import simplify_onnx
from eightfold.export.trials import adversarial_inputs
from eightfold.export.verify import Arrays, Tolerance, run_in_float64, run_module_arrays
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step, TensorSpec

if TYPE_CHECKING:
    import onnx
    import torch

    from eightfold.export.verify import Array

DEFAULT_TOLERANCE = Tolerance(max_rel_error=1e-4)


class Source(Protocol):
    """Where fixed-size graphs of one network come from, and what they have to answer."""

    def write(self, rows: Array, path: Path) -> str:
        """Write the graph for inputs shaped like `rows`; returns the name of the tool that made it."""

    def opened(self) -> Callable[[Array], list[Array]]:
        """What gives the outputs for some rows, in order."""

    def exact(self) -> Callable[[Array], list[Array]] | None:
        """What gives the outputs in float64; None where nothing does."""

    def probe(self, rows: Array) -> Probe | None:
        """What shows the tensors in between."""


@dataclasses.dataclass(frozen=True)
class ModuleSource:
    """A torch module with one image input."""

    model: torch.nn.Module
    opset: int

    def write(self, rows: Array, path: Path) -> str:
        batch, channels, height, width = rows.shape
        export_onnx(self.model, path, batch=batch, image_size=(height, width), channels=channels, opset=self.opset)
        return f"torch.onnx ({exporter_of(load_onnx(path))})"

    def opened(self) -> Callable[[Array], list[Array]]:
        return functools.partial(run_module_arrays, self.model)

    def exact(self) -> Callable[[Array], list[Array]]:
        return functools.partial(run_in_float64, self.model)

    def probe(self, rows: Array) -> Probe | None:
        return TorchProbe(self.model)


def export_batches(
    source: torch.nn.Module | PathLike,
    paths: Mapping[int, PathLike],
    *,
    images: Array,
    opset: int | None = None,
    targets: Sequence[str] = (),
    tolerance: Tolerance = DEFAULT_TOLERANCE,
) -> dict[int, tuple[Step, ...]]:
    """Write simplified fixed-size ONNX files for several batches; each is compared with its source on `images`, and
    the first one on constants, extremes and noise as well.

    Two batches are exported; where the others follow from these two, they are derived from them (`rebatch`), and
    exported like them where not. `Step.tool` says which it was.

    Args:
        source: a module as for `export_onnx`, or an ONNX file whose batch is dynamic.
        paths: batch -> where its file goes.
        images: model-ready images (n, channels, height, width); repeated where a batch is larger than n.
        opset: of the files. When None, a module's is that of `export_onnx`, and an ONNX file keeps its own where all
            `targets` read that.
        targets: what the files are for.
        tolerance: of each file against the source.

    Raises:
        VerificationError: a file differs from the source beyond the tolerance; what was there before is left alone.
    """
    origin = _source(source, opset, targets)
    steps: dict[int, tuple[Step, ...]] = {}
    points = _points(sorted(paths))
    for batch in points:
        first = batch == points[0]
        steps[batch] = _export(origin, Path(paths[batch]), _rows(images, batch), tolerance, adversarial=first)
    for batch in sorted(set(paths) - set(points)):
        rows = _rows(images, batch)
        low, high = (load_onnx(paths[point]) for point in points)
        try:
            steps[batch] = (_derive(origin, rebatched(low, high, batch), Path(paths[batch]), rows, tolerance),)
        except ModelError as error:
            step, *rest = _export(origin, Path(paths[batch]), rows, tolerance)
            steps[batch] = (step.model_copy(update={"notes": (f"not derived: {error}", *step.notes)}), *rest)
    return steps


def _source(source: torch.nn.Module | PathLike, opset: int | None, targets: Sequence[str]) -> Source:
    if not isinstance(source, str | Path):
        return ModuleSource(source, opset_for(targets) if opset is None else opset)
    if opset is None:
        opset = min([opset_of(load_onnx(source, external=False)), *map(newest_opset, targets)])
    return OnnxSource(Path(source), opset)


def _points(batches: Sequence[int]) -> tuple[int, ...]:
    """The batches to export. A batch of 1 is left out where that is possible: exporters and simplifiers drop what
    is without effect at 1, which makes its graph a different one."""
    if len(batches) <= 2:
        return tuple(batches)
    larger = [batch for batch in batches if batch > 1]
    return tuple(larger[:2])


def _rows(images: Array, batch: int) -> Array:
    return np.resize(images, (batch, *images.shape[1:]))


def _export(
    origin: Source, path: Path, rows: Array, tolerance: Tolerance, *, adversarial: bool = False
) -> tuple[Step, ...]:
    raw = path.with_suffix(".raw.onnx")
    try:
        tool = origin.write(rows, raw)
        simplified = simplify_onnx(raw, inputs={_image_spec(raw).name: rows})
        step = _check(origin, raw, rows, tolerance, tool, adversarial=adversarial)
        raw.replace(path)
    finally:
        _clear(raw, path)
    return step, simplified.step


def _derive(origin: Source, made: onnx.ModelProto, path: Path, rows: Array, tolerance: Tolerance) -> Step:
    raw = path.with_suffix(".raw.onnx")
    try:
        save_onnx(made, raw)
        step = _check(origin, raw, rows, tolerance, "derived from two other batches")
        raw.replace(path)
    finally:
        _clear(raw, path)
    return step


def _clear(raw: Path, path: Path) -> None:
    """Remove what was made on the way to `path`: the graph, and weights beside it that `path` does not refer to."""
    raw.unlink(missing_ok=True)
    weights = list(raw.parent.glob(f"{glob.escape(raw.stem)}.*.data"))
    needed = external_files(path) if weights and path.is_file() else ()
    for file in weights:
        if file.name not in needed:
            file.unlink()


def _check(
    origin: Source, path: Path, rows: Array, tolerance: Tolerance, tool: str, *, adversarial: bool = False
) -> Step:
    spec = _image_spec(path)
    trials = {"images": {spec.name: rows}, **(adversarial_inputs([spec]) if adversarial else {})}
    exact = origin.exact()
    reference = Reference(
        _by_place(origin.opened(), spec.name),
        trials,
        origin.probe(rows),
        None if exact is None else _by_place(exact, spec.name),
    )
    step = reference.verify(path, step="export", tolerance=tolerance)
    return step.model_copy(update={"tool": tool})


def _by_place(asked: Callable[[Array], list[Array]], name: str) -> Callable[[Arrays], Arrays]:
    def answer(inputs: Arrays) -> Arrays:
        return {str(place): array for place, array in enumerate(asked(inputs[name]))}

    return answer


def _image_spec(path: Path) -> TensorSpec:
    (spec,) = input_specs(load_onnx(path, external=False))
    return spec
