"""Compares two bundles, each artifact with its counterpart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from eightfold.arrays import Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.export.compare.agreement import Judge, compare_classifiers
from eightfold.export.compare.compare import PARTED, compare_artifacts
from eightfold.export.compare.comparison import Comparison
from eightfold.export.compare.feeds import Feeder
from eightfold.export.compare.runnables import runnable_of_artifact
from eightfold.export.verify.verify import Tolerance
from eightfold.files import PathLike
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Manifest
from eightfold.runtime.bundle.sizes import Size, size_of, size_text
from eightfold.values import Frozen

Pair = tuple[Artifact, Artifact]


class BundleComparison(Frozen):
    """Comparison of two bundles.

    Attributes:
        pairs: one comparison for each artifact that both have.
        only_first, only_second: artifacts that the other one lacks.
        not_compared: artifacts that both have and that cannot be compared here, and why.
    """

    pairs: tuple[Comparison, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    not_compared: dict[str, str] = Field(default_factory=dict)

    def describe(self, worst: int = 0, width: int | None = None) -> str:
        """A table for each pair; with `worst`, a line for each that is the same. See `Comparison.describe`."""
        rest = [f"{name}: not compared ({reason})" for name, reason in self.not_compared.items()]
        for place, names in (("first", self.only_first), ("second", self.only_second)):
            if names:
                rest.append(f"only in the {place}: {', '.join(names)}")
        alike = [pair.describe(worst) for pair in self.pairs if worst and pair.exact]
        tables = [pair.describe(worst, width) for pair in self.pairs if not (worst and pair.exact)]
        return "\n\n".join([*tables, *("\n".join(lines) for lines in (alike, rest) if lines)])


def compare_bundles(
    first: PathLike,
    second: PathLike,
    *,
    inputs: Arrays | Feeder | None = None,
    size: int | Size | None = None,
    tolerance: Tolerance = PARTED,
    labelled: Any = None,
    preprocess: Preprocess | None = None,
    judge: Judge = compare_classifiers,
) -> BundleComparison:
    """Compare the artifacts of two bundles that have the same id, or else are the same variant at the same precision,
    target, batch and image size in the same format.

    Args:
        first, second: bundle directories or .eightfold files.
        inputs: arrays with at least as many rows as the largest batch, or a function that prepares the same images for
            an artifact of either; random images when None.
        size: compare what takes images of this size only: one side, or (height, width).
        tolerance, labelled, judge: as for `compare_artifacts`.
        preprocess: of the labelled images, at any size; each bundle's own when None.

    Raises:
        UsageError: the two have no artifact in common, or none of that size.
        BackendError: this machine can run none of the artifacts that both have.
        BundleError: one of them is no bundle.
    """
    bundles = Bundle.open(first), Bundle.open(second)
    pairs = paired(*(bundle.manifest for bundle in bundles))
    if not pairs:
        held = ["; ".join(_kind(bundle.manifest, each) for each in bundle.manifest.artifacts) for bundle in bundles]
        raise UsageError(f"{first} holds {held[0]}, {second} holds {held[1]}", allowed="bundles that share an artifact")
    pairs = _pairs_of_size(pairs, bundles[0].manifest, size)
    found, failures = list[Comparison](), dict[str, str]()
    for one, other in pairs:
        try:
            subjects = runnable_of_artifact(bundles[0], one.id), runnable_of_artifact(bundles[1], other.id)
            fed = inputs if callable(inputs) else _rows(inputs, one.batch)
            found.append(
                compare_artifacts(
                    *subjects,
                    inputs=fed,
                    tolerance=tolerance,
                    labelled=labelled,
                    preprocess=preprocess,
                    judge=judge,
                )
            )
        except BackendError as error:
            failures[one.id] = str(error)
    if not found:
        raise BackendError(next(iter(failures.values())))
    ids = [{artifact.id for artifact in side} for side in zip(*pairs, strict=True)]
    left = [
        tuple(artifact.id for artifact in _of_size(bundle.manifest, size) if artifact.id not in known)
        for bundle, known in zip(bundles, ids, strict=True)
    ]
    return BundleComparison(pairs=tuple(found), only_first=left[0], only_second=left[1], not_compared=failures)


def paired(first: Manifest, second: Manifest) -> list[Pair]:
    """Artifacts that stand for each other, in the order of the first; where there is one in each, these two."""
    if len(first.artifacts) == len(second.artifacts) == 1:
        return [(first.artifacts[0], second.artifacts[0])]
    by_id = {artifact.id: artifact for artifact in second.artifacts}
    taken = {artifact.id for artifact in first.artifacts}
    left = {id: _kind(second, artifact) for id, artifact in by_id.items() if id not in taken}
    pairs = []
    for artifact in first.artifacts:
        alike = (id for id, kind in left.items() if kind == _kind(first, artifact))
        id = artifact.id if artifact.id in by_id else next(alike, None)
        if id is not None:
            pairs.append((artifact, by_id[id]))
            left.pop(id, None)
    return pairs


def _pairs_of_size(pairs: list[Pair], first: Manifest, wanted: int | Size | None) -> list[Pair]:
    found = [pair for pair in pairs if pair[0] in _of_size(first, wanted)]
    if not found and wanted is not None:
        there = ", ".join(map(size_text, first.sizes))
        raise UsageError(f"the bundles share nothing of the size {size_text(size_of(wanted))}", allowed=there)
    return found


def _of_size(manifest: Manifest, wanted: int | Size | None) -> Sequence[Artifact]:
    if wanted is None:
        return manifest.artifacts
    size, layout = size_of(wanted), manifest.preprocess.layout
    return [artifact for artifact in manifest.artifacts if artifact.image_size(layout) == size]


def _kind(manifest: Manifest, artifact: Artifact) -> str:
    size = artifact.image_size(manifest.preprocess.layout)
    words = f"{artifact.variant} {artifact.precision} {artifact.format} for {artifact.target} at batch {artifact.batch}"
    return words if size is None else f"{words}, {size_text(size)}"


def _rows(inputs: Arrays | None, batch: int) -> Arrays | None:
    return None if inputs is None else {name: array[:batch] for name, array in inputs.items()}
