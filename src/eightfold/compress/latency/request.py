"""The request for a plan within a latency budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eightfold.compress.latency.whole_network import Writer
from eightfold.compress.plan.latency.budget_text import MIXED, Budget, LatencyBudget
from eightfold.errors import BackendError, UsageError, one_of
from eightfold.export.targets import target_named
from eightfold.files import PathLike
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bench.profile.profile_layers import profile_layers
from eightfold.runtime.bench.profile.settings import PRECISIONS, ProfileSettings, settings_for
from eightfold.runtime.bench.profile.store import ProfileStore, default_store, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eightfold.compress.latency.report import LatencyReport

OPTIONS = (
    "target", "precision", "batch", "threads", "profile", "rounds", "target_weights", "memory", "energy",
)  # fmt: skip


@dataclass(frozen=True)
class LatencyRequest:
    """A budget and the conditions that it holds under.

    Attributes:
        budget: "0.5x" of the network's own latency, or "12ms".
        target: "cpu-x86" or "cpu-arm" (onnxruntime on this processor), or "openvino"; this machine's by default. For
            targets that are not here layers are priced by the file `profile`, or by a roofline. Several, with commas,
            hold at once.
        precision: "fp32" or "int8"; several, with commas, hold at once; or "mixed": the program chooses the layers that
            stay in float where the others are INT8.
        target_weights: of several targets and precisions, in their order: their weighted mean share is limited
            instead of each.
        memory, energy: further budgets, such as "0.5x", "64MB" or "20mJ" per call.
        batch: images per call.
        threads: of the back end; the physical cores by default.
        profile: files of `eightfold profile`, with commas; the user's cache by default.
        fitting: whole networks that predictions are fitted to, beside the whole one.
        rounds: steps from the whole network to the budget; channels are scored anew after each on the network as it is
            then, with its batch norms re-estimated where there are images.
        write: how a pruned module becomes a file, where `export_onnx` cannot.
        reports: filled with the report of each plan.
    """

    budget: LatencyBudget
    target: str = ""
    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None
    profile: PathLike | None = None
    fitting: int = 4
    target_weights: tuple[float, ...] = ()
    memory: str = ""
    energy: str = ""
    rounds: int = 1
    write: Writer | None = field(default=None, compare=False)
    reports: list[LatencyReport] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch {self.batch} of a latency budget", allowed="1 or more")
        if self.rounds < 1:
            raise UsageError(f"{self.rounds} rounds of a latency budget", allowed="1 or more")
        conditions = self.conditions
        for each in conditions:
            target_named(each.target_name)
            one_of("precision of a latency budget", each.precision, (*PRECISIONS, MIXED))
        self._check_several(conditions)
        for what in ("memory", "energy"):
            if getattr(self, what):
                Budget.parse(what, getattr(self, what))

    def _check_several(self, conditions: Sequence[LatencyRequest]) -> None:
        if len(conditions) > 1 and any(each.precision == MIXED for each in conditions):
            raise UsageError(
                "precisions chosen by the program (mixed) on several targets", allowed="mixed alone, on one target"
            )
        weights = self.target_weights
        if weights and (len(weights) != len(conditions) or min(weights) <= 0 or self.budget.share is None):
            raise UsageError(
                f"weights {', '.join(f'{each:g}' for each in weights)} of {len(conditions)} targets and precisions, "
                f"and a budget of {self.budget}",
                allowed="one positive weight for each, and a share such as 0.5x",
            )

    @property
    def conditions(self) -> tuple[LatencyRequest, ...]:
        """One request for each target and precision."""
        pairs = [(t.strip(), p.strip()) for t in self.target.split(",") for p in self.precision.split(",")]
        if len(pairs) == 1:
            return (self,)
        return tuple(replace(self, target=t, precision=p, target_weights=(), memory="", energy="") for t, p in pairs)

    @property
    def target_name(self) -> str:
        """The target, this machine's by default."""
        return self.target or cpu_target()

    @property
    def measurable(self) -> bool:
        """True if layers can be timed on this machine."""
        return self.target_name in (cpu_target(), "openvino")

    @property
    def profiled_precision(self) -> str:
        """The precision that layers have unless the program keeps them in float."""
        return "int8" if self.precision == MIXED else self.precision

    def settings(self) -> ProfileSettings:
        """Settings on this machine. Raises UsageError for another machine's target."""
        return settings_for(self.target_name, self.profiled_precision, self.threads)

    def store(self) -> ProfileStore:
        """Measured points, from a file of `profile` or the user's cache.

        A target that is not on this machine has the settings of its file.
        """
        if self.profile is None:
            return default_store(self.settings())
        path = self._file()
        if self.measurable:
            return ProfileStore(self.settings(), path)
        found = settings_of(path)
        for name, wanted in (("target", self.target_name), ("precision", self.profiled_precision)):
            if getattr(found, name) != wanted:
                raise BackendError(
                    f"{path} was measured with {name} {getattr(found, name)!r}",
                    allowed=repr(wanted),
                    remedy=f"on that device: eightfold profile MODEL --target {self.target_name} --precision "
                    f"{self.profiled_precision} -o FILE",
                )
        return ProfileStore(found, path)

    def _file(self) -> Path:
        """The file of this target and precision; the first where none is."""
        paths = [Path(each.strip()) for each in str(self.profile).split(",")]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"there is no profile {str(path)!r}", allowed="a file that eightfold profile wrote")
        wanted = self.target_name, self.profiled_precision
        fits = (path for path in paths if len(paths) > 1 and _describes(path) == wanted)
        return next(fits, paths[0])


def _describes(path: Path) -> tuple[str, str]:
    found = settings_of(path)
    return found.target, found.precision


def latency_request(
    latency: str | float | LatencyRequest | None,
    *,
    target: str = "",
    precision: str = "fp32",
    batch: int = 1,
    threads: int | None = None,
    profile: PathLike | None = None,
    rounds: int = 1,
    target_weights: Sequence[float] = (),
    memory: str | None = None,
    energy: str | None = None,
) -> LatencyRequest | None:
    """The request that options make; None without a budget."""
    if latency is None or isinstance(latency, LatencyRequest):
        if latency is None and (memory or energy or target_weights):
            raise UsageError(
                "a budget of memory or energy, or weights, without one of latency",
                allowed="latency as well (--latency)",
            )
        return latency
    return LatencyRequest(
        LatencyBudget.parse(latency), target, precision, batch, threads, profile, rounds=rounds,
        target_weights=tuple(target_weights), memory=memory or "", energy=energy or "",
    )  # fmt: skip


def device_multiple(multiple: int | Literal["auto"], stores: Sequence[Callable[[], ProfileStore]]) -> int:
    """The channel multiple: a number as it is, or the measured width step of the device, never less than 8.

    Args:
        stores: give the measured points of each target and precision; called for "auto" alone.

    Raises UsageError for a target that is not here, and for any other word.
    """
    if isinstance(multiple, int):
        return multiple
    if multiple != "auto":
        raise UsageError(f"a multiple of {multiple!r}", allowed="a whole number, or auto")
    return max(profile_layers({}, store()).multiple for store in stores)


def taken_request(options: dict[str, Any]) -> LatencyRequest | None:
    """Take the options of a latency budget out of others', as one request; without one they stay."""
    latency = options.pop("latency", None)
    if latency is None:
        return None
    return latency_request(latency, **{name: options.pop(name) for name in OPTIONS if name in options})


def report_of(request: LatencyRequest | None) -> LatencyReport | None:
    """The report of the plan that a request was last used for."""
    return request.reports[-1] if request is not None and request.reports else None
