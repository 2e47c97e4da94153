"""Selects the files to measure against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eightfold.errors import BackendError, UsageError
from eightfold.files import PathLike
from eightfold.runtime.backends import BACKENDS, backend_named, open_session, usable_backends
from eightfold.runtime.backends.targets import default_backends, runs_here
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Format, Manifest, Metric, Precision
from eightfold.runtime.bundle.sizes import Size, size_of, size_text

FORMATS: dict[str, Format] = {".onnx": "onnx", ".engine": "engine", ".plan": "engine", ".xml": "openvino"}


def is_model_file(subject: PathLike) -> bool:
    """True if a subject is a file that a backend opens, by its suffix."""
    return Path(subject).suffix in FORMATS


@dataclass(frozen=True)
class Candidate:
    """One model file to measure.

    Attributes:
        name: what tells it apart from the others at its batch size; the same name at every batch makes a curve.
        path: the file; its shapes are fixed.
        batch: images per call.
        size: of the images, where its bundle tells; speed-ups are between networks of one size.
        bundle: where it comes from; needed to measure end to end.
        threads: of a CPU backend, where they differ from those of the measurement.
    """

    name: str
    path: Path
    batch: int
    precision: Precision = "fp32"
    backend: str = "onnxruntime"
    variant: str = ""
    artifact: str = ""
    sha256: str = ""
    metrics: tuple[Metric, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict)
    size: Size | None = None
    bundle: Bundle | None = field(default=None, repr=False)
    threads: int | None = None


def candidates_of_bundle(bundle: Bundle, backends: Iterable[str]) -> list[Candidate]:
    """Every artifact that one of `backends` can run on this machine, in the manifest's order."""
    found = [
        (artifact, backend)
        for artifact in bundle.manifest.artifacts
        for backend in backends
        if runs_here(artifact, backend)
    ]
    names = [candidate_name(_name(bundle.manifest, artifact), backend) for artifact, backend in found]
    taken = Counter((name, artifact.batch) for name, (artifact, _) in zip(names, found, strict=True))
    return [
        _candidate(bundle, artifact, backend, name if taken[name, artifact.batch] == 1 else "")
        for name, (artifact, backend) in zip(names, found, strict=True)
    ]


def _name(manifest: Manifest, artifact: Artifact) -> str:
    """The same at every batch size, so that it names a curve."""
    target = "" if artifact.target == "any" else "-" + artifact.target.replace(":", "-")
    size = artifact.image_size(manifest.preprocess.layout)
    at = f"-{size_text(size)}" if size is not None and len(manifest.sizes) > 1 else ""
    return f"{artifact.variant}-{artifact.precision}{target}{at}"


def candidate_name(curve: str, backend: str) -> str:
    """Of the artifacts of a bundle that differ in nothing but the batch, on a back end."""
    return curve if backend == "onnxruntime" else f"{curve} {backend}"


def _candidate(bundle: Bundle, artifact: Artifact, backend: str, name: str) -> Candidate:
    return Candidate(
        name=name or candidate_name(artifact.id, backend),
        path=bundle.artifact_path(artifact),
        batch=artifact.batch,
        precision=artifact.precision,
        backend=backend,
        variant=artifact.variant,
        artifact=artifact.id,
        sha256=bundle.manifest.files[artifact.path].sha256,
        metrics=artifact.metrics,
        layers=artifact.layers,
        size=artifact.image_size(bundle.manifest.preprocess.layout),
        bundle=bundle,
    )


def candidates_of(source: Bundle | PathLike, backends: Sequence[str] | None) -> list[Candidate]:
    """Candidates in a bundle (opened or its path) or an ONNX file, with backends that work here."""
    for name in backends or ():
        backend_named(name)
    if not isinstance(source, Bundle) and (format := FORMATS.get(Path(source).suffix)):
        return _candidates_of_file(Path(source), format, backends)
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    return candidates_of_bundle(bundle, default_backends(bundle.manifest.artifacts) if backends is None else backends)


def backends_for(source: Bundle | PathLike) -> list[str]:
    """Back ends that work here and run the file, or anything in the bundle."""
    names = usable_backends()
    if not isinstance(source, Bundle) and (format := FORMATS.get(Path(source).suffix)):
        return [name for name in names if format in BACKENDS[name].formats]
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    return [name for name in names if candidates_of_bundle(bundle, [name])]


def _candidates_of_file(path: Path, format: Format, backends: Sequence[str] | None) -> list[Candidate]:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", allowed="a bundle or a model file of fixed size")
    able = [name for name in (usable_backends() if backends is None else backends) if format in BACKENDS[name].formats]
    return [_candidate_of_file(path, backend) for backend in able]


def _candidate_of_file(path: Path, backend: str) -> Candidate:
    shape = open_session(path, backend).inputs[0].shape
    return Candidate(f"{path.stem} {backend}", path, batch=shape[0] if shape else 1, backend=backend)


def at_batches(candidates: Sequence[Candidate], batches: Sequence[int] | None) -> list[Candidate]:
    """Those of the asked batch sizes. Raises UsageError for a size that is not there."""
    if batches is None:
        return list(candidates)
    present = sorted({candidate.batch for candidate in candidates})
    for batch in batches:
        if batch not in present:
            raise UsageError(f"batch {batch} is not in it", allowed=", ".join(map(str, present)))
    return [candidate for candidate in candidates if candidate.batch in batches]


def at_sizes(candidates: Sequence[Candidate], sizes: Sequence[int | Size] | None) -> list[Candidate]:
    """Those of the asked image sizes. Raises UsageError for a size that is not there."""
    if sizes is None:
        return list(candidates)
    wanted = [size_of(size) for size in sizes]
    present = list(dict.fromkeys(each.size for each in candidates if each.size is not None))
    for size in wanted:
        if size not in present:
            allowed = ", ".join(map(size_text, present)) or "the one size of a file, without asking"
            raise UsageError(f"size {size_text(size)} is not in it", allowed=allowed)
    return [candidate for candidate in candidates if candidate.size in wanted]


def checked_baseline(candidates: Sequence[Candidate], baseline: str | None) -> str:
    """The name that speed-ups refer to: the first one's unless asked for. Raises when names do not work out."""
    if not candidates:
        raise BackendError(
            "nothing here can run on this machine",
            allowed=f"artifacts for {', '.join(usable_backends()) or 'an installed backend'}",
            remedy="run: eightfold doctor",
        )
    names = list(dict.fromkeys(candidate.name for candidate in candidates))
    if len({(each.name, each.batch) for each in candidates}) < len(candidates):
        raise UsageError("two candidates have one name and batch", allowed="each pair once")
    if baseline is not None and baseline not in names:
        raise UsageError(f"no candidate is named {baseline!r}", allowed=", ".join(names))
    return baseline or names[0]
