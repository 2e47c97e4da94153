"""`profile`: latency of a network's layers over their widths on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.onnx.inputs import example_inputs as inputs_of
from eightfold.compress.plan.latency.widths import NetworkLayer, widest
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs
from eightfold.errors import UsageError
from eightfold.files import PathLike
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bench.profile.layer_list import LayerList
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, Timer, profile_layers
from eightfold.runtime.bench.profile.remote_profile import cached_file, jobs_of, profile_on
from eightfold.runtime.bench.profile.settings import settings_for
from eightfold.runtime.bench.profile.store import ProfileStore, default_store
from eightfold.runtime.bench.profile.time_layers import time_layers


@dataclass(frozen=True)
class NetworkProfile:
    """Layers of a network, and the latency of each over its widths."""

    layers: tuple[NetworkLayer, ...]
    profile: LayerProfile
    path: Path | None = None

    @property
    def multiple(self) -> int:
        """Channel multiple that suits the device: its width step, never less than 8."""
        return self.profile.multiple

    def describe(self) -> str:
        """Text for a person: the settings, the step, and a table of the layers' shapes."""
        counts = Counter(layer.shape for layer in self.layers)
        total = layers_ms(self.layers, self.profile)
        lines = [self.profile.describe(counts), f"sum of {len(self.layers)} layers: {total:.3f} ms"]
        kept = f"in {self.path}" if self.path is not None else "nowhere"
        return "\n".join([*lines, f"{self.profile.measured} points measured now; kept {kept}"])


def profile(
    model: nn.Module | PathLike,
    target: str | None = None,
    *,
    example_inputs: ExampleInputs | None = None,
    batch: int = 1,
    precision: str = "fp32",
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    cache: PathLike | None = None,
    device: str | None = None,
    timer: Timer = time_layers,
) -> NetworkProfile:
    """Measure every distinct layer of a network over input and output widths, on this machine or another.

    Layers run as ONNX graphs of their own in the target's back end, taking turns; the back end's clock tells how long
    the layer took. Points that were measured before come from a cache that all networks share. An interrupted profile
    resumes where it was.

    Args:
        model: a torch module, or the path of a float ONNX file.
        target: "cpu-x86" or "cpu-arm", which is onnxruntime on this processor (the default), or "openvino".
        example_inputs: what a module is called with, one image.
        batch: images per call.
        precision: "fp32" or "int8".
        threads: of the back end; the physical cores by default.
        size: (height, width) for dynamic dimensions of a file.
        cache: file to keep the points in; by default one in the user's cache folder.
        device: "ssh://[user@]host[:port]" to measure there, where `eightfold` with onnx and the back end is on the PATH
            (torch is not needed); points come home as they are measured.
        timer: how points are measured on this machine; tests pass their own.

    Raises:
        UsageError: a target that is not here, or another precision.
        BackendError: the back end is not installed, or the cache is of another device or version; or what ssh or the
            device said.
    """
    if device is not None:
        layers = layers_to_profile(model, example_inputs, batch=batch, size=size)
        (job,) = jobs_of([device], target, precision, threads)
        path = Path(cache) if cache is not None else cached_file(job)
        found = profile_on(LayerList.of(widest(layers)), job, path)
        assert found.profile is not None
        return NetworkProfile(layers, replace(found.profile, measured=found.new), path)
    settings = settings_for(target or cpu_target(), precision, threads)
    store = default_store(settings) if cache is None else ProfileStore(settings, Path(cache))
    layers = layers_to_profile(model, example_inputs, batch=batch, size=size)
    return NetworkProfile(layers, profile_layers(widest(layers), store, timer=timer), store.path)


def layers_to_profile(
    model: nn.Module | PathLike,
    example_inputs: ExampleInputs | None = None,
    *,
    batch: int = 1,
    size: tuple[int, int] | None = None,
) -> tuple[NetworkLayer, ...]:
    """The layers of a module or of an ONNX file; arguments as for `profile`."""
    if not isinstance(model, nn.Module):
        graph = open_onnx(model, size=size)
        model, example_inputs = graph.module, inputs_of(graph.module.inputs, size=size)
    elif example_inputs is None:
        raise UsageError("a profile of a module without example inputs", allowed="example_inputs=..., one image")
    return network_layers(model, example_inputs, trace(model, example_inputs), batch=batch)


def layers_ms(layers: Sequence[NetworkLayer], profile: LayerProfile) -> float:
    """Sum of all layers at full width, in milliseconds."""
    return sum(profile.at(layer.shape, *layer.widths({})) for layer in layers)
