"""One network at several batches: exported and simplified at two of them, derived at the others, checked at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.errors import EightfoldError
from eightfold.export.onnx_export import export_onnx
from eightfold.export.onnx_files import load_onnx, save_onnx
from eightfold.export.rebatch import rebatched
from eightfold.export.simplify import simplify_onnx
from eightfold.export.verify import Tolerance, verify_module
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step

if TYPE_CHECKING:
    import onnx
    import torch

    from eightfold.export.verify import Array


def export_batches(
    model: torch.nn.Module,
    paths: Mapping[int, PathLike],
    *,
    images: Array,
    opset: int | None = None,
    tolerance: Tolerance | None = None,
) -> dict[int, tuple[Step, ...]]:
    """Write simplified fixed-size ONNX files for several batches; each is compared with the module itself.

    Two batches are exported; where the others follow from these two, they are derived from them (`rebatch`), and
    exported like them where not. `Step.tool` says which it was.

    Args:
        model: as for `export_onnx`.
        paths: batch -> where its file goes.
        images: model-ready images, float32 (n, channels, height, width); repeated where a batch is larger than n.
        opset: as for `export_onnx`.
        tolerance: of each file against the module; a relative error of 1e-4 when None.

    Raises:
        VerificationError: a file differs from the module beyond the tolerance; files already there are left alone.
    """
    limit = tolerance or Tolerance(max_rel_error=1e-4)
    steps: dict[int, tuple[Step, ...]] = {}
    points = _points(sorted(paths))
    for batch in points:
        steps[batch] = _export(model, Path(paths[batch]), _rows(images, batch), opset, limit)
    for batch in sorted(set(paths) - set(points)):
        rows = _rows(images, batch)
        try:
            made = rebatched(load_onnx(paths[points[0]]), load_onnx(paths[points[1]]), batch)
            steps[batch] = (_derive(model, made, Path(paths[batch]), rows, limit),)
        except EightfoldError:
            steps[batch] = _export(model, Path(paths[batch]), rows, opset, limit)
    return steps


def _points(batches: Sequence[int]) -> tuple[int, ...]:
    """The batches to export. A batch of 1 is left out where that is possible: exporters and simplifiers drop what
    is without effect at 1, which makes its graph a different one."""
    if len(batches) <= 2:
        return tuple(batches)
    larger = [batch for batch in batches if batch > 1]
    return tuple(larger[:2])


def _rows(images: Array, batch: int) -> Array:
    return np.resize(images, (batch, *images.shape[1:]))


def _export(model: torch.nn.Module, path: Path, rows: Array, opset: int | None, limit: Tolerance) -> tuple[Step, ...]:
    raw = path.with_suffix(".raw.onnx")
    try:
        export_onnx(
            model, raw, batch=len(rows), image_size=(rows.shape[2], rows.shape[3]), channels=rows.shape[1], opset=opset
        )
        exporter = next((entry.value for entry in load_onnx(raw).metadata_props if entry.key == "exporter"), "")
        simplified = simplify_onnx(raw)
        step = verify_module(model, raw, rows, tolerance=limit, tool=f"torch.onnx ({exporter})")
        raw.replace(path)
    finally:
        raw.unlink(missing_ok=True)
    return step, simplified.step


def _derive(model: torch.nn.Module, made: onnx.ModelProto, path: Path, rows: Array, limit: Tolerance) -> Step:
    raw = path.with_suffix(".raw.onnx")
    try:
        save_onnx(made, raw)
        step = verify_module(model, raw, rows, tolerance=limit, tool="derived from two other batches")
        raw.replace(path)
    finally:
        raw.unlink(missing_ok=True)
    return step
