"""Describes the content of a bundle for a person."""

from __future__ import annotations

from collections.abc import Iterator

from eightfold.runtime.backends import usable_backends
from eightfold.runtime.backends.targets import runs_here
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.bundle.sizes import Size
from eightfold.text_table import text_table

HEAD = ("network", "precision", "format", "target", "batches", "one input", "MB", "quality", "runs here with")


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
    yield f"{manifest.name}  (files: {len(manifest.files)}, {size / 1e6:.1f} MB)"
    yield f"task        {task.kind}, decoded by {task.decode}{labels}{', ...' if len(task.labels) > 10 else ''}"
    yield f"preprocess  {manifest.preprocess.describe()}"
    yield ""


def _artifacts(bundle: Bundle) -> list[str]:
    """One line for a network in one precision, format, target and image size; its batch sizes beside each other."""
    usable = usable_backends()
    layout = bundle.manifest.preprocess.layout
    groups: dict[tuple[tuple[str, ...], Size | None], list[Artifact]] = {}
    for each in bundle.manifest.artifacts:
        key = (each.variant, each.precision, each.format, each.target), each.image_size(layout)
        groups.setdefault(key, []).append(each)
    lines = [HEAD, *((*words, *_cells(bundle, group, usable)) for (words, _), group in groups.items())]
    return text_table(lines, left=set(range(len(HEAD))) - {6})


def _cells(bundle: Bundle, group: list[Artifact], usable: list[str]) -> tuple[str, ...]:
    files = {name for each in group for name in (each.path, *each.files)}
    first = group[0]
    return (
        " ".join(str(each.batch) for each in group),
        " ".join("x".join(map(str, spec.shape[1:])) for spec in first.inputs),
        f"{sum(bundle.manifest.files[name].bytes for name in files) / 1e6:.1f}",
        ", ".join(f"{metric.name} {metric.value:.4g}" for metric in first.metrics) or "-",
        ", ".join(name for name in usable if runs_here(first, name)) or "-",
    )


def _documents(bundle: Bundle) -> list[str]:
    documents = sorted(bundle.manifest.documents.items())
    return ["", *text_table(documents, left={0, 1})] if documents else []


def _foot(bundle: Bundle, checked: int) -> Iterator[str]:
    for name in bundle.unlisted():
        yield f"not part of the bundle, never read: {name}"
    yield f"every file matches its SHA-256 ({checked} checked); manifest {bundle.manifest.digest()[:16]}"
