"""A pruned ONNX file on disk: a file, or a folder with the file, the plan and the name of its source."""

from __future__ import annotations

from pathlib import Path

from eightfold.compress.onnx.graph_file import OnnxGraph
from eightfold.compress.onnx.inputs import image_size_of
from eightfold.compress.onnx.module import OnnxModule
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.artifacts import PLAN
from eightfold.compress.surgery.source_record import MODEL, SOURCE, SourceRecord
from eightfold.errors import UsageError
from eightfold.files import PathLike, atomic_directory, require_folder_for, require_output, require_replaceable
from eightfold.json_types import JsonMapping


def save_pruned_file(
    graph: OnnxGraph, module: OnnxModule, plan: PrunePlan, output: PathLike, costs: JsonMapping
) -> Path:
    """Write the graph with the weights and widths of `module` to an .onnx file, or beside the plan into a folder.

    Args:
        costs: `macs_before`, for the record in a folder.
    """
    output = Path(output)
    if output.suffix == ".onnx":
        return graph.save(output, module)
    with atomic_directory(output, replaces=(PLAN,)) as temporary:
        graph.save(temporary / MODEL, module)
        plan.save(temporary / PLAN)
        record = SourceRecord(
            source=str(graph.path),
            directory=str(Path.cwd()),
            size=image_size_of(module.inputs, graph.size),
            macs_before=costs.get("macs_before"),
        )
        record.save(temporary / SOURCE)
    return output


def require_file_output(output: PathLike, source: Path) -> None:
    """Refuse, before the work, an output that cannot be written, or that is the source itself.

    Raises:
        UsageError: it is the source, a folder of other things, or lies where nothing can be written.
    """
    output = Path(output)
    if output.suffix == ".onnx":
        require_output(output, reads=[source])
        if output.is_dir():
            raise UsageError(f"cannot write the file {output}: a folder has that name", allowed="another name")
        return
    require_replaceable(output, (PLAN,))
    require_folder_for(output)
