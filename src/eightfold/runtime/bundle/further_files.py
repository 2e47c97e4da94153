"""Checks that an artifact refers only to files of its manifest entry, whose digests were checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from eightfold.errors import BundleError
from eightfold.onnx_graph.onnx_references import ExternalReference, NotOnnxError, external_references
from eightfold.runtime.bundle.manifest import Artifact, FileEntry


def check_further_files(bundle: Path, artifact: Artifact, path: Path, files: Mapping[str, FileEntry]) -> None:
    """Raise BundleError where loading an artifact would read a file that is not among `artifact.files`.

    Args:
        bundle: named in messages.
        artifact: as the manifest has it.
        path: where its file lies now.
        files: of the manifest; references must lie within the sizes it states.
    """
    for reference in _references(bundle, artifact, path):
        # Names in a manifest stay inside the bundle; so does a reference that is equal to one of them.
        name = f"{PurePosixPath(artifact.path).parent}/{reference.location}".removeprefix("./")
        if name not in artifact.files:
            raise BundleError(
                f"{bundle}: {artifact.path} takes weights from {reference.location!r}",
                allowed=f"files that the manifest lists for it ({', '.join(artifact.files) or 'none'})",
                remedy="do not use this bundle; make it again",
            )
        if reference.end_bytes > files[name].bytes:
            raise BundleError(
                f"{bundle}: {artifact.path} takes bytes {reference.offset} to {reference.end_bytes} of {name}",
                allowed=f"0 to {files[name].bytes}",
                remedy="do not use this bundle; make it again",
            )


def _references(bundle: Path, artifact: Artifact, path: Path) -> list[ExternalReference]:
    if artifact.format == "onnx":
        try:
            return external_references(path)
        except NotOnnxError as error:
            raise BundleError(
                f"{bundle}: {artifact.path} is no ONNX graph ({error})",
                allowed="a whole ONNX file",
                remedy="make the bundle again",
            ) from None
    # OpenVINO reads weights that lie beside its graph without being told.
    weights = path.with_suffix(".bin")
    return [ExternalReference(weights.name)] if artifact.format == "openvino" and weights.exists() else []
