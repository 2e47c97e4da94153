"""Stores weights that several artifacts have in common once: those of one network at any batch and size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from eightfold.onnx_graph.weights import share_weights
from eightfold.runtime.bundle.manifest import Artifact


def share_among(artifacts: Sequence[Artifact], folder: Path) -> list[Artifact]:
    """Rewrite the ONNX files of a bundle's folder in place; returns the artifacts with the files they now need."""
    changed: dict[str, Artifact] = {}
    for (place, *words), members in _networks(artifacts, folder).items():
        if len(members) > 1 and not _share_already(members):
            name = re.sub(r"[^A-Za-z0-9.-]", "-", "-".join(words)) + ".weights"
            share_weights([folder / artifact.path for artifact in members], name)
            inside = (Path(place) / name).as_posix()
            changed |= {artifact.id: artifact.model_copy(update={"files": (inside,)}) for artifact in members}
    made = [changed.get(artifact.id, artifact) for artifact in artifacts]
    for name in {name for artifact in artifacts for name in artifact.files}:
        if not any(name in artifact.files for artifact in made):
            (folder / name).unlink()
    return made


def _networks(artifacts: Sequence[Artifact], folder: Path) -> dict[tuple[str, ...], list[Artifact]]:
    """ONNX files of one network at one precision for one target, in one folder."""
    groups: dict[tuple[str, ...], list[Artifact]] = {}
    for artifact in artifacts:
        if artifact.format == "onnx" and (folder / artifact.path).is_file():
            place = Path(artifact.path).parent.as_posix()
            groups.setdefault((place, artifact.variant, artifact.precision, artifact.target), []).append(artifact)
    return groups


def _share_already(artifacts: Sequence[Artifact]) -> bool:
    """Artifacts with one file of weights already stay as they were measured."""
    return bool(artifacts[0].files) and len({artifact.files for artifact in artifacts}) == 1
