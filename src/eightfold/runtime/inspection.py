"""What is inside a bundle, for a person."""

from __future__ import annotations

from collections.abc import Iterator

from eightfold.runtime.backends import usable_backends
from eightfold.runtime.bundle import Bundle
from eightfold.runtime.manifest import Artifact
from eightfold.runtime.targets import runs_here
from eightfold.runtime.text_table import text_table

HEAD = ("artifact", "precision", "target", "batch", "input", "MB", "quality", "runs here with")


def inspect_bundle(bundle: Bundle) -> str:
    """A bundle's content as text, after every file's digest was checked.

    Raises IntegrityError naming the first file that differs from the manifest.
    """
    checked = bundle.verify()
    return "\n".join([*_head(bundle), *_artifacts(bundle), *_documents(bundle), *_foot(bundle, checked)])


def _head(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    task = manifest.task
    labels = f", {len(task.labels)} labels: {', '.join(task.labels[:10])}" if task.labels else ""
    yield f"{manifest.name}  ({len(manifest.files)} files, {size / 1e6:.1f} MB)"
    yield f"task        {task.kind}, decoded by {task.decode}{labels}{', ...' if len(task.labels) > 10 else ''}"
    yield f"preprocess  {manifest.preprocess.describe()}"
    yield ""


def _artifacts(bundle: Bundle) -> list[str]:
    usable = usable_backends()
    lines = [HEAD, *(_line(bundle, artifact, usable) for artifact in bundle.manifest.artifacts)]
    return text_table(lines, left={0, 1, 2, 4, 6, 7})


def _line(bundle: Bundle, artifact: Artifact, usable: list[str]) -> tuple[str, ...]:
    files = bundle.manifest.files
    size = sum(files[name].bytes for name in (artifact.path, *artifact.files))
    return (
        artifact.id,
        artifact.precision,
        artifact.target,
        str(artifact.batch),
        " ".join("x".join(map(str, spec.shape)) for spec in artifact.inputs),
        f"{size / 1e6:.1f}",
        ", ".join(f"{metric.name} {metric.value:.4g}" for metric in artifact.metrics) or "-",
        ", ".join(name for name in usable if runs_here(artifact, name)) or "-",
    )


def _documents(bundle: Bundle) -> list[str]:
    documents = sorted(bundle.manifest.documents.items())
    return ["", *text_table(documents, left={0, 1})] if documents else []


def _foot(bundle: Bundle, checked: int) -> Iterator[str]:
    for name in bundle.unlisted():
        yield f"not part of the bundle, never read: {name}"
    yield f"all {checked} files match their SHA-256; manifest {bundle.manifest.digest()[:16]}"
