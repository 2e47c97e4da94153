"""An engine among two artifacts to compare: its graph is looked for, so that its layers can be shown."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eightfold.errors import ModelError, UsageError
from eightfold.export.compare.runnables import Runnable
from eightfold.export.fp16.fp16 import is_quantized
from eightfold.export.tensorrt.engine_probe import EngineProbe, EngineSource
from eightfold.export.tensorrt.layers import EngineLayers, layers_of_engine, layers_path
from eightfold.export.tensorrt.parse import sha256_of_graph
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.extras import require
from eightfold.files import PathLike, sha256_of_file
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.backends.engine_fit import holds_host_code


def showing_layers(subject: Runnable, other: Runnable, onnx: PathLike | None = None) -> Runnable:
    """An engine with a probe, or with the reason why it has none; everything else as it is.

    Args:
        subject: what may be an engine.
        other: what it is compared with.
        onnx: the graph that the engine was built from; looked for in the bundles, beside the engine and in `other`
            when None.

    Raises:
        UsageError: the engine was built from another graph than `onnx`.
    """
    record = subject.record
    if record is None:
        return subject
    graph = next(_graphs_of(record, subject, other, onnx), None)
    if onnx is not None and graph is None:
        raise UsageError(
            f"{subject.name} was not built from {onnx}", allowed=f"the graph whose SHA-256 is {record.onnx_sha256}"
        )
    reason = _why_not(record, graph)
    if graph is None or reason:
        return dataclasses.replace(subject, silence=f"is an engine, {reason}")
    probe = EngineProbe(EngineSource(record, graph))
    return dataclasses.replace(
        subject, probe=probe, maker=_Maker(subject, probe.nodes), remark=_remark(subject, probe, graph)
    )


def _why_not(record: EngineRecord, graph: Path | None) -> str:
    here = str(require(record.builder, "look into engines").__version__)
    if here != record.builder_version:
        return f"and the {record.builder} here, {here}, cannot build it again as {record.builder_version} did"
    if graph is None:
        return f"and the graph it was built from (SHA-256 {record.onnx_sha256[:12]}...) is not at hand: name it, --onnx"
    if record.precision == "int8" and record.options.ranges is None and not is_quantized(load_onnx(graph)):
        return "built from a calibration cache, which its record does not hold"
    return ""


def _graphs_of(record: EngineRecord, engine: Runnable, other: Runnable, onnx: PathLike | None) -> Iterator[Path]:
    """ONNX files that are the graph an engine was built from."""
    if onnx is not None:
        yield from [Path(onnx)] if _is_source(record, Path(onnx)) else []
        return
    for path in _near(record, engine, other):
        with contextlib.suppress(ModelError):  # whatever lies beside an engine under such a name
            if _is_source(record, path):
                yield path


def _is_source(record: EngineRecord, path: Path) -> bool:
    if record.graph_sha256:
        return sha256_of_graph(load_onnx(path)) == record.graph_sha256
    return sha256_of_file(path) == record.onnx_sha256


def _near(record: EngineRecord, engine: Runnable, other: Runnable) -> Iterator[Path]:
    if other.path is not None and other.path.suffix == ".onnx":
        yield other.path
    for bundle in filter(None, (engine.owner, other.owner)):
        for artifact in bundle.manifest.artifacts:
            if artifact.format == "onnx" and artifact.inputs == record.inputs:
                yield bundle.artifact_path(artifact)
    if engine.path is not None and engine.owner is None:
        yield from sorted(engine.path.parent.glob("*.onnx"))


def _remark(subject: Runnable, probe: EngineProbe, graph: Path) -> str:
    count = len(probe.chunks)
    engines = "another engine" if count == 1 else f"{count} other engines"
    text = (
        f"the layers of {subject.name} are those of {engines}, built alike from {graph.name} with these tensors as "
        "outputs, where less is fused: they may be more exact than in the engine itself, which gave the outputs"
    )
    return text if probe.same else f"{text}; the float16 form of the graph is not the one it was built from"


class _Maker:
    """Says which layer of an engine computes a tensor of its graph."""

    def __init__(self, engine: Runnable, nodes: dict[str, str]) -> None:
        self._layers, self._nodes = _layers_of(engine), nodes

    def __call__(self, tensor: str) -> str:
        layer = self._layers and self._layers.making(tensor, self._nodes.get(tensor, ""))
        return f"{layer.name} ({layer.precision})" if layer else ""


def _layers_of(engine: Runnable) -> EngineLayers | None:
    """Layers by the inspector: parsed layers do not describe the engine."""
    path, record = engine.path, engine.record
    if path is None or record is None:
        return None
    kept = layers_path(path)
    known = EngineLayers.load(kept) if kept.is_file() else None
    if known is None or known.source == "network":
        trt: Any = require(record.builder, "look into engines")
        known = layers_of_engine(trt, path.read_bytes(), host_code=holds_host_code(record.flags))
    return known
