"""Any network, straight into a bundle: a torch module or an ONNX file from anywhere, at the batches asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.batches import DEFAULT_TOLERANCE, export_batches
from eightfold.export.bundle import onnx_artifact, write_bundle
from eightfold.export.decode_step import put_decoder_in
from eightfold.export.detections import form_for
from eightfold.export.in_graph import put_preprocess_in
from eightfold.export.onnx_files import external_files
from eightfold.files import PathLike, sha256_of_file
from eightfold.runtime.manifest import Step, Task
from eightfold.runtime.versions import runtime_versions

if TYPE_CHECKING:
    import torch

RAW_OUTPUTS = Task(kind="tensors", decode="tensors")


def export_bundle(
    source: torch.nn.Module | PathLike,
    output: PathLike,
    *,
    preprocess: Preprocess,
    batches: Sequence[int] = (1,),
    task: Task = RAW_OUTPUTS,
    name: str = "",
    opset: int | None = None,
    targets: Sequence[str] = (),
    preprocess_in_graph: bool = False,
    decode: bool = False,
) -> Path:
    """Export a network at each batch, simplify and check it, and bundle it.

    Args:
        source: a torch module, or an ONNX file with one image input, whose dynamic axes are frozen.
        output: a directory, or a file that ends in ".eightfold".
        preprocess: how images become the network's input; its size is the size that is exported.
        batches: images per run.
        task: what the outputs mean.
        name: of the bundle; the file's or class's name when empty.
        opset: version of ONNX's operator set. When None, a module's is 17, or the newest that all `targets` read; a
            file keeps its own where all `targets` read that.
        targets: what the bundle is for: "tensorrt:8.2", "cpu-x86", ...
        preprocess_in_graph: the network takes uint8 pixels (batch, height, width, channels); see `with_preprocess`.
        decode: a detector puts out final detections, by the rules and options of the task's decoder; in the form that
            all `targets` run, see `with_detections`.

    Returns:
        `output`.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"batches {list(batches)}", allowed="whole numbers of at least 1")
    is_file = isinstance(source, str | Path)
    name = name or (Path(source).stem if isinstance(source, str | Path) else type(source).__name__)
    shape = (max(batches), preprocess.channels, preprocess.height, preprocess.width)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        files = {batch: Path(folder) / f"{name}-b{batch}.onnx" for batch in sorted(set(batches))}
        steps = export_batches(source, files, images=images, opset=opset, targets=targets)
        fed, read, artifacts = preprocess, task, []
        for batch, file in files.items():
            further: list[Step] = []
            if preprocess_in_graph:
                fed, step = put_preprocess_in(file, preprocess, tolerance=DEFAULT_TOLERANCE)
                further.append(step)
            if decode:
                read, step = put_decoder_in(file, task, (preprocess.height, preprocess.width), form=form_for(targets))
                further.append(step)
            made = (*steps[batch], *further)
            artifacts.append(
                onnx_artifact(file, id=file.stem, inside=f"onnx/{file.name}", variant="baseline", steps=made)
            )
        provenance = {"source": {"name": name}, "versions": runtime_versions()}
        if is_file:
            provenance["source"] = {"name": name, "sha256": sha256_of_file(str(source))}
        return write_bundle(
            output,
            name=name,
            task=read,
            preprocess=fed,
            artifacts=artifacts,
            files={f"onnx/{each.name}": each for file in files.values() for each in _with_weights(file)},
            provenance=provenance,
        )


def _with_weights(file: Path) -> list[Path]:
    return [file, *(file.with_name(name) for name in external_files(file))]
