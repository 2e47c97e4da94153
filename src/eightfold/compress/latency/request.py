"""The request for a plan within a latency budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eightfold.compress.latency.whole_network import Writer
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.errors import UsageError
from eightfold.export.targets import target_named
from eightfold.files import PathLike
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bench.profile.profile_layers import profile_layers
from eightfold.runtime.bench.profile.settings import ProfileSettings, settings_for
from eightfold.runtime.bench.profile.store import ProfileStore, default_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from eightfold.compress.latency.report import LatencyReport

OPTIONS = ("target", "precision", "batch", "threads", "profile", "rounds")


@dataclass(frozen=True)
class LatencyRequest:
    """A budget and the conditions that it holds under.

    Attributes:
        budget: "0.5x" of the network's own latency, or "12ms".
        target: "cpu-x86" or "cpu-arm" (onnxruntime on this processor), or "openvino"; this machine's by default. For
            targets that are not here layers are priced by a roofline.
        precision: "fp32" or "int8".
        batch: images per call.
        threads: of the back end; the physical cores by default.
        profile: a file of `eightfold profile`; the user's cache by default.
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
    rounds: int = 1
    write: Writer | None = field(default=None, compare=False)
    reports: list[LatencyReport] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch {self.batch} of a latency budget", allowed="1 or more")
        if self.rounds < 1:
            raise UsageError(f"{self.rounds} rounds of a latency budget", allowed="1 or more")
        target_named(self.target_name)

    @property
    def target_name(self) -> str:
        """The target, this machine's by default."""
        return self.target or cpu_target()

    @property
    def measurable(self) -> bool:
        """True if layers can be timed on this machine."""
        return self.target_name in (cpu_target(), "openvino")

    def settings(self) -> ProfileSettings:
        """Settings on this machine. Raises UsageError for another machine's target."""
        return settings_for(self.target_name, self.precision, self.threads)

    def store(self) -> ProfileStore:
        """Measured points, from `profile` or the user's cache."""
        settings = self.settings()
        if self.profile is None:
            return default_store(settings)
        path = Path(self.profile)
        if not path.is_file():
            raise UsageError(f"there is no profile {str(path)!r}", allowed="a file that eightfold profile wrote")
        return ProfileStore(settings, path)


def latency_request(
    latency: str | float | LatencyRequest | None,
    *,
    target: str = "",
    precision: str = "fp32",
    batch: int = 1,
    threads: int | None = None,
    profile: PathLike | None = None,
    rounds: int = 1,
) -> LatencyRequest | None:
    """The request that options make; None without a budget."""
    if latency is None or isinstance(latency, LatencyRequest):
        return latency
    return LatencyRequest(LatencyBudget.parse(latency), target, precision, batch, threads, profile, rounds=rounds)


def device_multiple(multiple: int | Literal["auto"], store: Callable[[], ProfileStore]) -> int:
    """The channel multiple: a number as it is, or the measured width step of the device, never less than 8.

    Args:
        store: gives the measured points; called for "auto" alone.

    Raises UsageError for a target that is not here, and for any other word.
    """
    if isinstance(multiple, int):
        return multiple
    if multiple != "auto":
        raise UsageError(f"a multiple of {multiple!r}", allowed="a whole number, or auto")
    return profile_layers({}, store()).multiple


def taken_request(options: dict[str, Any]) -> LatencyRequest | None:
    """Take the options of a latency budget out of others', as one request; without one they stay."""
    latency = options.pop("latency", None)
    if latency is None:
        return None
    return latency_request(latency, **{name: options.pop(name) for name in OPTIONS if name in options})


def report_of(request: LatencyRequest | None) -> LatencyReport | None:
    """The report of the plan that a request was last used for."""
    return request.reports[-1] if request is not None and request.reports else None
