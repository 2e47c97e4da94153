"""Measures whole networks at chosen widths: pruned, exported, quantized if asked, and timed in one alternating run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from eightfold.calib.calibrate import calibrate
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.errors import BackendError, UsageError
from eightfold.export.int8.float_layers import weighted_labels
from eightfold.export.int8.quantize import quantize
from eightfold.export.torch.onnx_export import onnx_from_module
from eightfold.onnx_graph.onnx_files import save_onnx
from eightfold.progress import track
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions, Slot
from eightfold.runtime.bench.energy import PowerMeter
from eightfold.runtime.bench.interleave import Schedule, alternate
from eightfold.runtime.bench.peak_memory import probe_memory
from eightfold.runtime.bench.profile.settings import ProfileSettings
from eightfold.runtime.bench.profile.time_layers import clock_for
from eightfold.scratch import scratch_folder

# Writes a module, as it is pruned at the moment, to a fixed-size ONNX file of a batch size.
Writer = Callable[[nn.Module, Path, int], Path]
Named = Mapping[str, Mapping[str, int]]  # name -> group -> kept channels
BYTES_PER_MB = 1e6
SCHEDULE = Schedule(seconds=0.6, rounds=8, block_s=0.08, warmup_s=0.2)
CALIBRATION_IMAGES = 2  # of noise: ranges do not change the time
MS_PER_S = 1e3
QUANTILE = 0.1  # disturbances only add time


@dataclass(frozen=True)
class WholeNetwork:
    """A network that can be measured at any widths.

    Attributes:
        example_inputs: what the module is called with, one image.
        graph: its trace.
        batch: images per call.
        write: how a pruned module becomes a file.
    """

    model: nn.Module
    example_inputs: Any
    graph: ChannelGraph
    settings: ProfileSettings
    batch: int = 1
    write: Writer | None = None

    def measure(self, counts: Named, keep_float: Mapping[str, Collection[int]] | None = None) -> dict[str, float]:
        """Milliseconds per call of each named set of kept counts, the lowest tenth of an alternating run.

        Disturbances only add time, so that this is what the network takes on a quiet machine. With one thread it is
        processor time, which other processes do not lengthen.

        Args:
            keep_float: name -> places, among the layers with weights, of those that stay in float in INT8.
        """
        with self._files(counts, keep_float or {}) as files:
            return self._timed(files)

    def memory_mb(self, counts: Named) -> dict[str, float]:
        """Megabytes that loading each network and running it adds at its peak, in a process of its own.

        Raises BackendError where that cannot be measured.
        """
        found = {}
        with self._files(counts, {}) as files:
            for name, path in files.items():
                probe = probe_memory(path, self.settings.backend, self.settings.threads)
                if probe.peak_bytes is None:
                    raise BackendError(
                        f"the memory of the network cannot be measured on {self.settings.backend}: "
                        f"{probe.failed or 'its process ended without a word'}",
                        allowed="a budget of latency alone",
                    )
                found[name] = probe.peak_bytes / BYTES_PER_MB
        return found

    def energy_mj(self, counts: Named, meter: PowerMeter) -> dict[str, float]:
        """Millijoules of the whole board per call. Raises BackendError where no power rails can be read."""
        meter.watts()
        with self._files(counts, {}) as files:
            return {name: meter.millijoules(slot.run) for name, slot in self._slots(files).items()}

    def float_file(self, path: Path) -> Path:
        """The whole network in float at `path`, for one call."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (self.write or self._export)(self.model, path, self.batch)

    @contextlib.contextmanager
    def _files(self, counts: Named, keep_float: Mapping[str, Collection[int]]) -> Iterator[dict[str, Path]]:
        with scratch_folder() as folder:
            yield {
                name: self._file(kept, folder / f"{number}.onnx", keep_float.get(name, ()))
                for number, (name, kept) in enumerate(track(list(counts.items()), "preparing whole networks"))
            }

    def _timed(self, files: Mapping[str, Path]) -> dict[str, float]:
        calls = {name: slot.run for name, slot in self._slots(files).items()}
        samples = alternate(calls, SCHEDULE, clock=clock_for(self.settings.threads))
        return {
            name: float(np.nanquantile(each.uninterrupted_s, QUANTILE)) * MS_PER_S for name, each in samples.items()
        }

    def _slots(self, files: Mapping[str, Path]) -> dict[str, Slot]:
        options = SessionOptions(threads=self.settings.threads, flush_denormals=True)
        slots = {}
        for name, path in files.items():
            session = open_session(path, self.settings.backend, options)
            slots[name] = session.new_slot()
            random = np.random.default_rng(0)
            for buffer in slots[name].inputs.values():
                np.copyto(buffer, random.random(buffer.shape).astype(buffer.dtype))
        return slots

    def _file(self, counts: Mapping[str, int], path: Path, keep_float: Collection[int] = ()) -> Path:
        kept = {name: np.arange(count) for name, count in counts.items()}
        plan = PrunePlan.from_graph(self.graph, kept)
        with applied(self.model, plan, shapes_only=True) as pruned, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = (self.write or self._export)(pruned, path, self.batch)
            return _quantized(written, self.settings, keep_float) if self.settings.precision == "int8" else written

    def _export(self, model: nn.Module, path: Path, batch: int) -> Path:
        examples = self.example_inputs if isinstance(self.example_inputs, tuple) else (self.example_inputs,)
        if not all(isinstance(each, Tensor) and each.dim() == 4 for each in examples):
            raise UsageError(
                "a latency budget for a network whose inputs are not all images",
                allowed="networks that take image tensors, or ONNX files",
                remedy="export the network to ONNX and prune that file",
            )
        batched = (each[:1].expand(batch, -1, -1, -1).contiguous() for each in examples)
        return save_onnx(onnx_from_module(model, *batched), path)


def _quantized(path: Path, settings: ProfileSettings, keep_float: Collection[int] = ()) -> Path:
    from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs

    inputs, _ = tensor_specs(load_onnx(path))
    random = np.random.default_rng(0)
    images = [random.random(inputs[0].shape[1:], dtype=np.float32) for _ in range(CALIBRATION_IMAGES)]
    ranges = calibrate(path, images, None, method="minmax", batch=1)
    output = path.with_name(f"{path.stem}.int8.onnx")
    labels = weighted_labels(path)
    kept = [labels[place] for place in keep_float]
    return quantize(path, ranges, output, target=settings.target, form="qdq", keep_float=kept)[0]


def fitting_plans(
    widths: Mapping[str, Sequence[int]], *, seed: int = 0, shares: Sequence[float] = (0.5, 0.25), draws: int = 2
) -> dict[str, dict[str, int]]:
    """Sets of counts that a fit is made on: the whole network, uniform ones, and random ones.

    Args:
        widths: group -> the counts that it may keep, ascending.
    """
    random = np.random.default_rng(seed)
    plans: dict[str, dict[str, int]] = {"whole": {group: counts[-1] for group, counts in widths.items()}}
    for share in shares:
        plans[f"uniform {share:g}"] = {
            group: min(counts, key=lambda count: abs(count - share * counts[-1])) for group, counts in widths.items()
        }
    for number in range(draws):
        plans[f"random {number}"] = {group: int(random.choice(counts)) for group, counts in widths.items()}
    return plans
