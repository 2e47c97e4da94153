"""The layers of a network as a file: all that a device needs to profile them, without torch or the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, Timer, profile_layers
from eightfold.runtime.bench.profile.settings import ProfileSettings
from eightfold.runtime.bench.profile.store import ProfileStore, header_line, settings_of
from eightfold.runtime.bench.profile.time_layers import time_layers
from eightfold.runtime.bench.profile.width_table import Widths
from eightfold.values import Frozen, Value

SUFFIX = ".layers.json"


class LayerWidths(Frozen):
    """A layer shape with the largest widths that a network has."""

    shape: LayerShape
    inputs: int
    outputs: int


class LayerList(Value):
    """Layer shapes with their largest widths."""

    kind: ClassVar[str] = "layer list"

    layers: tuple[LayerWidths, ...]

    @staticmethod
    def of(widest: Mapping[LayerShape, Widths]) -> LayerList:
        """The list of a network's layers."""
        return LayerList(layers=tuple(LayerWidths(shape=s, inputs=i, outputs=o) for s, (i, o) in widest.items()))

    def widest(self) -> dict[LayerShape, Widths]:
        """Shape -> its largest widths."""
        return {each.shape: (each.inputs, each.outputs) for each in self.layers}

    def describe(self) -> str:
        return f"{len(self.layers)} layer shapes"


def stream_profile(
    layers: LayerList,
    settings: ProfileSettings,
    known: Path,
    echo: Callable[[str], object],
    *,
    timer: Timer | None = None,
) -> LayerProfile:
    """Profile on behalf of another machine: every line of the profile is echoed as it is made, the settings first.

    Args:
        known: points that the other machine has. Those of other settings are left alone, and all is measured.
    """
    if known.exists() and settings_of(known) != settings:
        known.unlink()
    echo(header_line(settings))
    store = ProfileStore(settings, known, echo=echo)
    return profile_layers(layers.widest(), store, timer=timer or time_layers)
