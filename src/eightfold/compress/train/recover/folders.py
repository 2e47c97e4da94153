"""Pruned networks in folders, as recovery takes and writes them: weights of modules, graphs of ONNX files."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from eightfold.compress.onnx.graph_file import OnnxGraph, open_onnx
from eightfold.compress.onnx.module import OnnxModule
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.artifacts import PLAN, load_pruned, require_pruned_output, save_pruned
from eightfold.compress.surgery.source_record import MODEL, SOURCE, SourceRecord
from eightfold.errors import UsageError
from eightfold.files import PathLike, atomic_directory


@dataclass(frozen=True)
class PrunedFolder:
    """A folder with a pruned network.

    Attributes:
        plan: what was pruned.
        model: the pruned network; of an ONNX file the module that runs its graph.
        graph: of an ONNX file.
        record: the name of the network's source, where the folder holds it.
        output: the folder that `save` writes.
    """

    plan: PrunePlan
    model: nn.Module
    graph: OnnxGraph | None
    record: SourceRecord | None
    output: Path

    @staticmethod
    def open(folder: PathLike, original: nn.Module, output: PathLike | None) -> PrunedFolder:
        """Read a folder that was pruned from `original`.

        Raises:
            UsageError: no pruned network lies there, or there is no place for the result.
        """
        folder = Path(folder)
        if not (folder / PLAN).is_file():
            raise UsageError(f"{folder} has no {PLAN}", allowed="a folder that `eightfold prune` wrote")
        if output is None:
            raise UsageError("recovery of a folder got no output", allowed="output=..., a folder for the result")
        require_pruned_output(output)
        plan = PrunePlan.load(folder / PLAN)
        record = SourceRecord.load(folder / SOURCE) if (folder / SOURCE).is_file() else None
        if (folder / MODEL).is_file():
            size = record.size if record is not None and isinstance(original, OnnxModule) else None
            graph = open_onnx(folder / MODEL, size=size)
            return PrunedFolder(plan, graph.module, graph, record, Path(output))
        model = load_pruned(lambda: copy.deepcopy(original), folder)
        return PrunedFolder(plan, model, None, record, Path(output))

    def save(self) -> None:
        """Write the network as it is now, with plan and record."""
        write_pruned(self.model, self.plan, self.output, self.graph, self.record)


def write_pruned(
    model: nn.Module, plan: PrunePlan, output: PathLike, graph: OnnxGraph | None, record: SourceRecord | None
) -> None:
    """Write a pruned network and its plan into a folder: the weights, or `graph` with its own module's weights."""
    if graph is None:
        save_pruned(model, plan, output, source=record)
        return
    with atomic_directory(output, replaces=(PLAN,)) as folder:
        graph.save(folder / MODEL)
        plan.save(folder / PLAN)
        if record is not None:
            record.save(folder / SOURCE)
