"""Two bundles side by side: each artifact against the one that stands for it in the other bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.export.compare import PARTED, compare_artifacts
from eightfold.export.comparison import Comparison
from eightfold.export.subjects import subject_of_artifact
from eightfold.export.verify import Arrays, Tolerance
from eightfold.files import PathLike
from eightfold.runtime.bundle import Bundle
from eightfold.runtime.manifest import Artifact
from eightfold.values import Frozen


class BundleComparison(Frozen):
    """What two bundles hold, compared.

    Attributes:
        pairs: one comparison for each artifact that both have.
        only_first, only_second: artifacts that the other one lacks.
        not_compared: artifacts that both have and that cannot be compared here, and why.
    """

    pairs: tuple[Comparison, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    not_compared: dict[str, str] = Field(default_factory=dict)

    def describe(self, worst: int = 0) -> str:
        """A table for each pair."""
        rest = [f"{name}: not compared ({reason})" for name, reason in self.not_compared.items()]
        for place, names in (("first", self.only_first), ("second", self.only_second)):
            if names:
                rest.append(f"only in the {place}: {', '.join(names)}")
        return "\n\n".join([*(pair.describe(worst) for pair in self.pairs), *(["\n".join(rest)] if rest else [])])


def compare_bundles(
    first: PathLike,
    second: PathLike,
    *,
    inputs: Arrays | None = None,
    tolerance: Tolerance = PARTED,
    labelled: Any = None,
    preprocess: Preprocess | None = None,
) -> BundleComparison:
    """Compare the artifacts of two bundles that have the same id, or else are the same variant at the same precision,
    target and batch in the same format.

    Args:
        first, second: bundle directories or .eightfold files.
        inputs: arrays with at least as many rows as the largest batch; random images when None.
        tolerance, labelled, preprocess: as for `compare_artifacts`.

    Raises:
        UsageError: the two have no artifact in common.
        BackendError: this machine can run none of the artifacts that both have.
        BundleError: one of them is no bundle.
    """
    bundles = Bundle.open(first), Bundle.open(second)
    pairs = paired(*(bundle.manifest.artifacts for bundle in bundles))
    if not pairs:
        held = ["; ".join(_kind(artifact) for artifact in bundle.manifest.artifacts) for bundle in bundles]
        raise UsageError(f"{first} holds {held[0]}, {second} holds {held[1]}", allowed="bundles that share an artifact")
    found, failures = list[Comparison](), dict[str, str]()
    for one, other in pairs:
        try:
            subjects = subject_of_artifact(bundles[0], one.id), subject_of_artifact(bundles[1], other.id)
            fed = _rows(inputs, one.batch)
            found.append(
                compare_artifacts(*subjects, inputs=fed, tolerance=tolerance, labelled=labelled, preprocess=preprocess)
            )
        except BackendError as error:
            failures[one.id] = str(error)
    if not found:
        raise BackendError(next(iter(failures.values())))
    ids = [{artifact.id for artifact in side} for side in zip(*pairs, strict=True)]
    left = [
        tuple(artifact.id for artifact in bundle.manifest.artifacts if artifact.id not in known)
        for bundle, known in zip(bundles, ids, strict=True)
    ]
    return BundleComparison(pairs=tuple(found), only_first=left[0], only_second=left[1], not_compared=failures)


def paired(first: Sequence[Artifact], second: Sequence[Artifact]) -> list[tuple[Artifact, Artifact]]:
    """Artifacts that stand for each other, in the order of the first; where there is one in each, these two."""
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    by_id = {artifact.id: artifact for artifact in second}
    left = [artifact for artifact in second if artifact.id not in {each.id for each in first}]
    pairs = []
    for artifact in first:
        like = by_id.get(artifact.id) or next((each for each in left if _kind(each) == _kind(artifact)), None)
        if like is not None:
            pairs.append((artifact, like))
            left = [each for each in left if each is not like]
    return pairs


def _kind(artifact: Artifact) -> str:
    return f"{artifact.variant} {artifact.precision} {artifact.format} for {artifact.target} at batch {artifact.batch}"


def _rows(inputs: Arrays | None, batch: int) -> Arrays | None:
    return None if inputs is None else {name: array[:batch] for name, array in inputs.items()}
