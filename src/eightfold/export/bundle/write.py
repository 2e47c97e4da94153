"""Writes a bundle: its files, then the manifest with their digests, then one rename.

What was written is opened with the runtime's own reader before it gets its final name, so that no bundle leaves here
that a runtime would refuse.
"""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError
from eightfold.export.bundle.commits import commits
from eightfold.export.bundle.output_location import marks_of
from eightfold.export.bundle.shared_weights import share_among
from eightfold.export.int8.layer_precisions import layer_precisions, narrowest_precision
from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.files import PathLike, atomic_directory, atomic_path, sha256_of_file, sync_files
from eightfold.json_types import JsonDict, JsonMapping
from eightfold.onnx_graph.onnx_files import external_files, load_onnx, tensor_specs
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_names import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SUFFIX,
    manifest_digest_line,
)
from eightfold.runtime.bundle.manifest import Artifact, FileEntry, Manifest, Metric, Precision, Step, Task
from eightfold.versions import runtime_versions

# Zip archives cannot hold earlier dates. A fixed one keeps the bytes the same from run to run.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
REGULAR_FILE = 0o100644


def write_bundle(
    path: PathLike,
    *,
    name: str,
    task: Task,
    preprocess: Preprocess,
    artifacts: Sequence[Artifact],
    files: Mapping[str, PathLike],
    documents: Mapping[str, str] | None = None,
    provenance: JsonMapping | None = None,
) -> Path:
    """Write a bundle atomically; an existing one is replaced.

    ONNX files of one network at several batches are rewritten to share one file of weights.

    Args:
        path: a directory, or a file whose name ends in ".eightfold" for the zip form.
        name: what the bundle is called.
        task: what the outputs mean.
        preprocess: how an image becomes the input.
        artifacts: what can be run; their paths are names in `files`.
        files: name in the bundle ("onnx/pruned-b1.onnx") -> file to copy.
        documents: role ("plan", "ranges", "report", ...) -> name in `files`.
        provenance: how it was made: recipe, seeds, digests, JSON-able. Versions are added, and the commits of eightfold
            and of the project in the working directory, unless it says them itself.

    Returns:
        `path`.

    Raises:
        BundleError: a source is missing, or the result would not be accepted by a runtime.
    """
    path = Path(path)
    with _destination(path) as folder:
        for inside, source in files.items():
            _copy(Path(source), folder, inside)
        artifacts = share_among(artifacts, folder)
        manifest = Manifest(
            name=name,
            task=task,
            preprocess=preprocess,
            artifacts=tuple(artifacts),
            files=_entries(folder),
            documents=dict(documents or {}),
            provenance=_made_by() | dict(provenance or {}),
        )
        text = manifest.to_json()
        (folder / MANIFEST_NAME).write_text(text)
        (folder / MANIFEST_DIGEST_NAME).write_text(manifest_digest_line(text.encode()))
        Bundle.open(folder).verify()
        sync_files(folder)
    return path


def zip_bundle(directory: PathLike, output: PathLike) -> Path:
    """Pack a bundle directory into one `.eightfold` file. The same bundle gives the same bytes.

    Members are stored, not compressed: weights hardly shrink, and a reader can map them.
    """
    bundle = Bundle.open(directory)
    bundle.verify()
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        signature = [SIGNATURE_NAME] if (Path(directory) / SIGNATURE_NAME).is_file() else []
        for inside in (MANIFEST_NAME, MANIFEST_DIGEST_NAME, *signature, *sorted(bundle.manifest.files)):
            member = zipfile.ZipInfo(inside, ZIP_DATE)
            member.external_attr = REGULAR_FILE << 16
            with (Path(directory) / inside).open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return Path(output)


def onnx_artifact(
    path: PathLike,
    *,
    id: str,
    inside: str,
    variant: str,
    precision: Precision | None = None,
    target: str = "any",
    metrics: Sequence[Metric] = (),
    steps: Sequence[Step] = (),
) -> Artifact:
    """The manifest's entry for an ONNX file: inputs, outputs and batch are read from the file.

    Args:
        path: the file as it lies on disk.
        id: name of the artifact, unique in the bundle.
        inside: where the file goes in the bundle.
        variant, precision, target, metrics, steps: as in `Artifact`; by default the precision is that of the layers.
    """
    model = load_onnx(path)
    inputs, outputs = tensor_specs(model)
    layers = layer_precisions(model)
    return Artifact(
        id=id,
        variant=variant,
        format="onnx",
        precision=precision or narrowest_precision(layers),
        target=target,
        batch=inputs[0].shape[0],
        path=inside,
        files=tuple((Path(inside).parent / weights).as_posix() for weights in external_files(path)),
        inputs=inputs,
        outputs=outputs,
        metrics=tuple(metrics),
        steps=tuple(steps),
        layers=layers,
    )


def engine_artifact(
    path: PathLike,
    *,
    id: str,
    inside: str,
    variant: str,
    metrics: Sequence[Metric] = (),
    steps: Sequence[Step] = (),
) -> Artifact:
    """The manifest's entry for an engine, read from its sidecar, which goes into the bundle as `<inside>.json`."""
    record = EngineRecord.of(path)
    if "STRIP_PLAN" in record.flags:
        raise BundleError(f"{path} was built without its weights", remedy="put them back first: eightfold refit")
    compared = any(step.name == "build" for step in record.steps)
    return Artifact(
        id=id,
        variant=variant,
        format="engine",
        precision=record.precision,
        target=record.target,
        batch=record.inputs[0].shape[0],
        path=inside,
        files=(f"{inside}.json",),
        inputs=record.inputs,
        outputs=record.outputs,
        metrics=tuple(metrics),
        steps=(*steps, *record.steps, *([] if compared else [_not_compared(record)])),
        requires=record.requires,
        deterministic=False,
    )


def openvino_artifact(
    path: PathLike,
    *,
    id: str,
    inside: str,
    variant: str,
    metrics: Sequence[Metric] = (),
    steps: Sequence[Step] = (),
) -> Artifact:
    """The manifest's entry for OpenVINO's form of a graph, read from its record, which goes into the bundle as
    `<inside>.json`; its weights go there beside `inside`, as `.bin`."""
    record = OpenVinoRecord.load(openvino_record_path(path))
    return Artifact(
        id=id,
        variant=variant,
        format="openvino",
        precision=record.precision,
        target="openvino",
        batch=record.inputs[0].shape[0],
        path=inside,
        files=(PurePosixPath(inside).with_suffix(".bin").as_posix(), f"{inside}.json"),
        inputs=record.inputs,
        outputs=record.outputs,
        metrics=tuple(metrics),
        steps=(*steps, *record.steps),
        layers=record.layers,
    )


def _not_compared(record: EngineRecord) -> Step:
    return Step(
        name="build",
        tool=f"{record.builder} {record.builder_version}",
        seconds=record.seconds,
        notes=("not compared with its graph: it runs on its device alone",),
    )


@contextlib.contextmanager
def _destination(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path`, or is packed into it."""
    if path.suffix != SUFFIX:
        with atomic_directory(path, replaces=marks_of(path)) as folder:
            yield folder
        return
    staging = path.with_name(f".{path.name}.staging")
    try:
        with atomic_directory(staging) as folder:
            yield folder
        zip_bundle(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _made_by() -> JsonDict:
    return {"versions": runtime_versions(), "commits": commits(Path.cwd())}


def _entries(folder: Path) -> dict[str, FileEntry]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): FileEntry(bytes=file.stat().st_size, sha256=sha256_of_file(file))
        for file in files
    }


def _copy(source: Path, folder: Path, inside: str) -> None:
    target = (folder / inside).resolve()
    if not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise BundleError(f"the name {inside!r} leaves the bundle", allowed="relative paths with '/' inside the bundle")
    if not source.is_file():
        raise BundleError(f"there is no file {source}", allowed="files that exist", remedy="make it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
