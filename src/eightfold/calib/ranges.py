"""`Ranges`: what calibration found out about every activation of a network. Made once, read by every target."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from pydantic import Field

from eightfold.errors import CalibrationError, EightfoldError
from eightfold.values import Frozen, Value

Method: TypeAlias = str  # a name of `calib.observers.METHODS`


class TensorRange(Frozen):
    """One activation tensor, in real units.

    `low` and `high` bound what an asymmetric (zero-point) 8-bit type should cover, `threshold` what a symmetric signed
    one should: [-threshold, threshold]. `min` and `max` are the extremes that were seen.
    """

    min: float
    max: float
    low: float
    high: float
    threshold: float = Field(ge=0)


class Ranges(Value):
    """The ranges of a network's activations, by tensor name."""

    kind: ClassVar[str] = "ranges"
    omitted_when_empty: ClassVar[frozenset[str]] = frozenset({"losses"})
    error: ClassVar[type[EightfoldError]] = CalibrationError

    method: Method
    images: int = Field(ge=0, description="number of images that were used; 0 where it is not known")
    image_set: str = Field(description="digest of their content")
    graph: str = Field(description="digest of the network, the same for every batch size")
    preprocess: str = Field(
        default="", description="digest of the Preprocess, empty where rows came ready for the model"
    )
    tensors: dict[str, TensorRange]
    losses: dict[str, float] = Field(
        default_factory=dict,
        description="tensors whose signal to noise ratio is far below that of `mse`, by how many dB; estimated",
    )

    @property
    def thresholds(self) -> dict[str, float]:
        """Largest absolute value that each tensor's symmetric signed 8-bit type should cover, by name."""
        return {name: entry.threshold for name, entry in self.tensors.items()}

    def check_graph(self, digest: str, name: str) -> None:
        """Raise CalibrationError unless the ranges were made for this network."""
        if digest != self.graph:
            raise CalibrationError(
                f"the ranges belong to another network (graph digest {self.graph[:12]}) than {name} ({digest[:12]})",
                allowed="the network that was calibrated, at any batch size",
                remedy="calibrate this network",
            )

    def describe(self) -> str:
        widest = sorted(self.tensors.items(), key=lambda item: -item[1].threshold)[:3]
        shown = [f"  {name} [{entry.min:.4g}, {entry.max:.4g}]" for name, entry in widest]
        head = f"{len(self.tensors)} tensors, {self.method}, {self.images} images; widest:"
        return "\n".join([head, *shown, *self.describe_losses()])

    def describe_losses(self) -> list[str]:
        """A line on the tensors that another method would serve far better; none where there are no such."""
        if not self.losses:
            return []
        worst = sorted(self.losses.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} by {loss:.0f} dB" for name, loss in worst)
        return [f"{len(self.losses)} tensors have far less signal to noise under {self.method} than under mse: {shown}"]
