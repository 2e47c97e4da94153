"""Selects the artifact of a bundle that a predictor runs, with the reason. Plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.backends.targets import runs_here
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.bundle.sizes import Size, size_text

if TYPE_CHECKING:
    from eightfold.runtime.bench.latency import LatencyTable

# By rule, where nothing was measured: narrow numbers first, engines before graphs.
PRECISIONS = ("int8", "fp16", "bf16", "fp32")
BASELINE = "baseline"


@dataclass(frozen=True)
class ArtifactRequest:
    """The user's request; "auto" and None leave it open."""

    backend: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    variant: str = "auto"
    size: Size | None = None


@dataclass(frozen=True)
class SelectedArtifact:
    """One network in one precision and image size on one backend, at each batch size there is.

    `size` is None where the network has no image input; `among_sizes` says whether the bundle has it at others, too.
    """

    backend: str
    variant: str
    precision: str
    target: str
    size: Size | None
    artifacts: tuple[Artifact, ...]
    among_sizes: bool = False
    reason: str = ""

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Batches of the selected artifacts."""
        return tuple(artifact.batch for artifact in self.artifacts)

    def describe(self) -> str:
        """One line for a person: variant, precision, batches, reason."""
        batches = ", ".join(map(str, self.batches))
        at = _at(self.size) if self.among_sizes else ""
        return f"{self.variant} {self.precision} on {self.backend}{at} (batch {batches}): {self.reason}"


def select_artifact(
    artifacts: Sequence[Artifact],
    preprocess: Preprocess,
    usable: Sequence[str],
    request: ArtifactRequest,
    table: LatencyTable | None = None,
) -> SelectedArtifact:
    """Pick what to run.

    Args:
        artifacts: of the bundle.
        preprocess: of the bundle; its size is preferred where none is asked for, whatever is faster: a smaller image
            costs quality.
        usable: backends that work on this machine.
        request: options of the caller.
        table: times measured on this very device, if there are any.

    Raises BackendError saying what there is when nothing fits.
    """
    runnable = _choices(artifacts, preprocess, usable)
    fitting = [choice for choice in runnable if _fits(choice, request)]
    if not fitting:
        raise _nothing_fits(artifacts, runnable, request)
    default = (preprocess.height, preprocess.width)
    fitting = [choice for choice in fitting if choice.size == default] or fitting
    fitting = _preferred_variant(fitting, request)
    picked = _by_table(fitting, table) or _by_rule(fitting)
    return _at_batch(picked, request.batch)


def _choices(artifacts: Sequence[Artifact], preprocess: Preprocess, usable: Sequence[str]) -> list[SelectedArtifact]:
    sizes = [artifact.image_size(preprocess.layout) for artifact in artifacts]
    several = len({size for size in sizes if size is not None}) > 1
    groups: dict[tuple[str, str, str, str, Size | None], list[Artifact]] = {}
    for backend in usable:
        for artifact, size in zip(artifacts, sizes, strict=True):
            if runs_here(artifact, backend):
                key = (backend, artifact.variant, artifact.precision, artifact.target, size)
                groups.setdefault(key, []).append(artifact)
    return [
        SelectedArtifact(*key, tuple(sorted(group, key=lambda each: each.batch)), several)
        for key, group in groups.items()
    ]


def _fits(choice: SelectedArtifact, request: ArtifactRequest) -> bool:
    return (
        request.backend in ("auto", choice.backend)
        and request.precision in ("auto", choice.precision)
        and request.variant in ("auto", choice.variant)
        and request.batch in (None, *choice.batches)
        and request.size in (None, choice.size)
    )


def _preferred_variant(choices: list[SelectedArtifact], request: ArtifactRequest) -> list[SelectedArtifact]:
    """A bundle carries its baseline for comparison; it is run only when asked for or alone."""
    if request.variant != "auto":
        return choices
    return [choice for choice in choices if choice.variant != BASELINE] or choices


def _by_table(choices: list[SelectedArtifact], table: LatencyTable | None) -> SelectedArtifact | None:
    if table is None:
        return None
    found = fastest_network(
        [(choice.backend, [artifact.id for artifact in choice.artifacts]) for choice in choices], table
    )
    if found is None:
        return None
    place, time = found
    return _because(choices[place], f"the fastest in the bundle's table for this device, {time:.2f} ms per image")


def fastest_network(networks: Sequence[tuple[str, Sequence[str]]], table: LatencyTable) -> tuple[int, float] | None:
    """The one rule by which a measured network is preferred, here and in the headline of a report.

    Args:
        networks: the backend of each, and the ids of its artifacts, smallest batch first.
        table: of the device in question.

    Returns:
        The place of the fastest and its milliseconds per image; None where none was measured.
    """
    times = [(ms_per_image(backend, ids, table), place) for place, (backend, ids) in enumerate(networks)]
    measured = [(time, place) for time, place in times if time is not None]
    if not measured:
        return None
    time, place = min(measured)
    return place, time


def ms_per_image(backend: str, artifacts: Sequence[str], table: LatencyTable) -> float | None:
    """At the first of the artifacts that was measured; None where none was."""
    for artifact in artifacts:
        for row in table.rows:
            if (row.artifact, row.backend) == (artifact, backend):
                return row.usual_ms / row.batch
    return None


def _by_rule(choices: list[SelectedArtifact]) -> SelectedArtifact:
    best = min(choices, key=_rank)
    others = [
        f"{each.precision} on {each.backend}{_at(each.size) if each.size != best.size else ''}"
        for each in choices
        if each is not best
    ]
    if not others:
        return _because(best, "the only one that fits")
    return _because(best, f"by rule before {', '.join(others)}; none was measured on this device")


def _rank(choice: SelectedArtifact) -> tuple[bool, int, int]:
    backend = BACKENDS[choice.backend]
    return not backend.on_gpu, PRECISIONS.index(choice.precision), backend.rank


def _because(choice: SelectedArtifact, reason: str) -> SelectedArtifact:
    return replace(choice, reason=reason)


def _at(size: Size | None) -> str:
    return "" if size is None else f" at {size_text(size)}"


def _at_batch(choice: SelectedArtifact, batch: int | None) -> SelectedArtifact:
    if batch is None:
        return choice
    return replace(choice, artifacts=tuple(artifact for artifact in choice.artifacts if artifact.batch == batch))


def _nothing_fits(
    artifacts: Sequence[Artifact], runnable: Sequence[SelectedArtifact], request: ArtifactRequest
) -> BackendError | UsageError:
    shown = vars(request) | {"size": request.size and size_text(request.size)}
    asked = ", ".join(f"{name} {value!r}" for name, value in shown.items() if value not in ("auto", None))
    if not runnable:
        held = sorted({f"{artifact.format} for {artifact.target}" for artifact in artifacts})
        return BackendError(
            f"nothing in this bundle runs here; it holds {', '.join(held)}",
            allowed="an artifact for this machine with its backend installed",
            remedy="run: eightfold doctor",
        )
    there = "; ".join(
        f"{choice.variant} {choice.precision} on {choice.backend}"
        f"{_at(choice.size) if choice.among_sizes or request.size else ''}, batch {'/'.join(map(str, choice.batches))}"
        for choice in runnable
    )
    return UsageError(f"nothing in this bundle has {asked}", allowed=there)
