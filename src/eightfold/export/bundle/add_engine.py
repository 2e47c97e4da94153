"""An engine that was built elsewhere, on the board that will run it, goes into the bundle that its graph came from."""

from __future__ import annotations

import re
from pathlib import Path

from eightfold.errors import BundleError
from eightfold.export.bundle.write import engine_artifact, write_bundle
from eightfold.export.tensorrt.parse import sha256_of_graph, sha256_of_onnx
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.extras import installed
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.bundle.sizes import size_text


def add_engine(bundle: PathLike, engine: PathLike, output: PathLike | None = None) -> Path:
    """Write a bundle that holds an engine as well. The base install is enough.

    Args:
        bundle: a directory or an `.eightfold` file that holds the graph the engine was built from.
        engine: built by `build_engine` or by the C++ program eightfold-build; its record lies beside it.
        output: the bundle to be, in either form; `bundle` itself when None. A signature does not go along: it was for
            what the bundle held before.

    Returns:
        the path of the new bundle. An engine of the same network, precision, target and batch is replaced.

    Raises:
        BundleError: the engine was built from a graph that the bundle does not hold, or lacks its weights.
        BuildError: the engine's record is missing, or another one's.
    """
    opened, record = Bundle.open(bundle), EngineRecord.of(engine)
    source = _source_of(record, opened, engine)
    name = _name(record, source, opened)
    inside = f"engines/{name}.engine"
    added = engine_artifact(engine, id=f"{name}-engine", inside=inside, variant=source.variant, steps=source.steps)
    kept = [artifact for artifact in opened.manifest.artifacts if artifact.id != added.id and artifact.path != inside]
    files = {each: opened.file(each) for each in opened.manifest.files}
    return write_bundle(
        bundle if output is None else output,
        name=opened.manifest.name,
        task=opened.manifest.task,
        preprocess=opened.manifest.preprocess,
        artifacts=[*kept, added],
        files=files | {inside: Path(engine), f"{inside}.json": sidecar_path(engine)},
        documents=opened.manifest.documents,
        provenance=opened.manifest.provenance,
    )


def _source_of(record: EngineRecord, bundle: Bundle, engine: PathLike) -> Artifact:
    graphs = [artifact for artifact in bundle.manifest.artifacts if artifact.format == "onnx"]
    for artifact in graphs:
        if _was_parsed(record, artifact, bundle):
            return artifact
    raise BundleError(
        f"{engine} was built from a graph that {bundle.path} does not hold",
        allowed=f"engines of {', '.join(artifact.path for artifact in graphs) or 'its graphs, and it holds none'}",
        remedy="build it from one of these files",
    )


def _was_parsed(record: EngineRecord, artifact: Artifact, bundle: Bundle) -> bool:
    """By digest, and by inputs and outputs, which an engine to look inside has more of.

    Graphs that keep their weights in another file are alike before and after a training: where the record says what the
    parser read, weights included, that has to agree as well.
    """
    if bundle.manifest.files[artifact.path].sha256 != record.onnx_sha256:
        return False
    if (artifact.inputs, artifact.outputs) != (record.inputs, record.outputs):
        return False
    if record.parsed_sha256 and not record.is_converted:
        return sha256_of_onnx(bundle.artifact_path(artifact)) == record.parsed_sha256
    if record.graph_sha256 and installed("onnx"):
        return sha256_of_graph(load_onnx(bundle.artifact_path(artifact))) == record.graph_sha256
    return True


def _name(record: EngineRecord, source: Artifact, bundle: Bundle) -> str:
    """As a recipe would name it: "pruned-fp16-tensorrt-10.3-b1"."""
    size = source.image_size(bundle.manifest.preprocess.layout)
    at = [size_text(size)] if size is not None and len(bundle.manifest.sizes) > 1 else []
    target = re.sub(r"[^\w.-]", "-", record.target)
    return "-".join([source.variant, record.precision, target, *at, f"b{source.batch}"])
