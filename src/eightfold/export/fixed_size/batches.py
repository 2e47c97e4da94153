"""One network at several batches: exported and simplified at two of them, derived at the others, checked at all."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from eightfold.arrays import Array, Arrays
from eightfold.errors import EightfoldError, ModelError, VerificationError
from eightfold.export.fixed_size.batch_first import batch_axes
from eightfold.export.fixed_size.file_inputs import FileInputs
from eightfold.export.fixed_size.file_source import OnnxSource
from eightfold.export.opset.operators_since import require_operators
from eightfold.export.opset.opsets import newest_opset
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.torch.onnx_export import Exporter, export_onnx, exporter_of
from eightfold.export.verify.intermediates.probe import Probe
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from eightfold.export.verify.reference import Reference
from eightfold.export.verify.test_inputs import (
    EXTREMES_IN_TURN,
    RANDOM,
    InputSets,
    adversarial_inputs,
    adversarial_runs,
    cycled,
    image_inputs,
    in_turn,
    runs_of,
    whole_runs,
)
from eightfold.export.verify.verify import Tolerance, run_in_float64, run_module_arrays
from eightfold.files import PathLike
from eightfold.onnx_graph.change_batch import rebatched
from eightfold.onnx_graph.onnx_files import external_files, input_specs, load_onnx, opset_of, save_onnx
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import onnx
    import torch


DEFAULT_TOLERANCE = Tolerance(max_rel_error=1e-4)


class Source(Protocol):
    """Source of fixed-size graphs of one network, and of the outputs that they must give."""

    def write(self, rows: Array, path: Path) -> str:
        """Write the graph for inputs shaped like `rows`; returns the name of the tool that made it."""

    def feeds(self, rows: Array, specs: Sequence[TensorSpec]) -> Arrays:
        """Every input by name, for a run on these images; `specs` are those of the graph that was written."""

    def opened(self) -> Callable[[Arrays], list[Array]]:
        """A function that gives the outputs for some rows of its inputs, in order."""

    def exact(self) -> Callable[[Arrays], list[Array]] | None:
        """A function that gives the outputs in float64; None if there is none."""

    def probe(self, batch: int) -> Probe | None:
        """A probe of the intermediate tensors at this batch; None if there is none."""

    def otherwise(self) -> Source | None:
        """The same with another way to write graphs, for where one comes out wrong; None where there is none."""


@dataclasses.dataclass(frozen=True)
class ModuleSource:
    """A torch module with one image input, or several of one shape."""

    model: torch.nn.Module
    opset: int | None
    targets: tuple[str, ...]
    exporter: Exporter = "auto"

    def write(self, rows: Array, path: Path) -> str:
        batch, channels, height, width = rows.shape
        export_onnx(
            self.model,
            path,
            batch=batch,
            image_size=(height, width),
            channels=channels,
            opset=self.opset,
            targets=self.targets,
            exporter=self.exporter,
        )
        return f"torch.onnx ({exporter_of(load_onnx(path))})"

    def feeds(self, rows: Array, specs: Sequence[TensorSpec]) -> Arrays:
        return in_turn(rows, [spec.name for spec in specs])

    def opened(self) -> Callable[[Arrays], list[Array]]:
        return lambda inputs: run_module_arrays(self.model, *inputs.values())

    def exact(self) -> Callable[[Arrays], list[Array]]:
        return lambda inputs: run_in_float64(self.model, *inputs.values())

    def probe(self, batch: int) -> Probe | None:
        return TorchProbe(self.model)

    def otherwise(self) -> ModuleSource | None:
        """The TorchScript exporter, which comes first, writes some operators as others that nearly are the same."""
        return dataclasses.replace(self, exporter="dynamo") if self.exporter == "auto" else None


def export_batches(
    source: torch.nn.Module | PathLike | FileInputs,
    paths: Mapping[int, PathLike],
    *,
    images: Array,
    opset: int | None = None,
    targets: Sequence[str] = (),
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    real: bool = True,
) -> dict[int, tuple[Step, ...]]:
    """Write simplified fixed-size ONNX files for several batches; each is compared with its source on `images`, and
    on constants, extremes and noise: the first one on each of them alone, the others on rows of all of them.

    Two batches are exported; where the others follow from these two, they are derived from them (`rebatch`), and
    exported like them where not. `Step.tool` says which it was.

    Args:
        source: a module as for `export_onnx`, an ONNX file whose batch is dynamic, or that with values for some of its
            inputs.
        paths: batch -> where its file goes.
        images: model-ready images (n, channels, height, width); repeated where a batch is larger than n, and run in
            turn where it is smaller.
        opset: of the files. When None, a module's is that of `export_onnx`, and an ONNX file keeps its own where all
            `targets` read that.
        targets: what the files are for.
        tolerance: of each file against the source.
        real: False where `images` are random values that stand for images: the steps' notes say so.

    Raises:
        VerificationError: a file differs from the source beyond the tolerance; what was there before is left alone.
        ModelError: a target lacks an operator of the network.
    """
    origin, asked = _source(source, images, opset, targets), _Asked(images, real, tolerance, tuple(targets))
    steps: dict[int, tuple[Step, ...]] = {}
    points = _points(sorted(paths))
    for batch in points:
        steps[batch] = _export(origin, Path(paths[batch]), batch, asked, each_alone=batch == points[0])
    for batch in sorted(set(paths) - set(points)):
        low, high = (load_onnx(paths[point]) for point in points)
        try:
            steps[batch] = (_derive(origin, rebatched(low, high, batch), Path(paths[batch]), asked),)
        except ModelError as error:
            step, *rest = _export(origin, Path(paths[batch]), batch, asked)
            steps[batch] = (step.model_copy(update={"notes": (f"not derived: {error}", *step.notes)}), *rest)
    return steps


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """The images that each file is compared on, the tolerance and the targets; see `export_batches`."""

    images: Array
    real: bool
    tolerance: Tolerance
    targets: tuple[str, ...]

    def inputs(self, origin: Source, specs: Sequence[TensorSpec]) -> Arrays:
        """All inputs by name, of as many runs as the images are enough for."""
        return origin.feeds(whole_runs(self.images, specs[0].shape[0]), specs)

    def trials(self, origin: Source, specs: Sequence[TensorSpec], *, each_alone: bool) -> InputSets:
        if each_alone:
            further: InputSets = {name: [inputs] for name, inputs in adversarial_inputs(specs).items()}
        else:
            further = {EXTREMES_IN_TURN: adversarial_runs(specs)}
        runs = runs_of(specs, self.inputs(origin, specs))
        return {**(image_inputs(runs) if self.real else {RANDOM: runs[:1]}), **further}


def _source(
    source: torch.nn.Module | PathLike | FileInputs, images: Array, opset: int | None, targets: Sequence[str]
) -> Source:
    if isinstance(source, str | Path):
        source = FileInputs.of(Path(source))
    if not isinstance(source, FileInputs):
        return ModuleSource(source, opset, tuple(targets))
    if opset is None:
        opset = min([opset_of(load_onnx(source.path, external=False)), *map(newest_opset, targets)])
    return OnnxSource(source, opset, batch_axes(source, images))


def _points(batches: Sequence[int]) -> tuple[int, ...]:
    """The batches to export. A batch of 1 is left out where that is possible: exporters and simplifiers drop what
    is without effect at 1, which makes its graph a different one."""
    if len(batches) <= 2:
        return tuple(batches)
    larger = [batch for batch in batches if batch > 1]
    return tuple(larger[:2])


def _export(origin: Source, path: Path, batch: int, asked: _Asked, *, each_alone: bool = False) -> tuple[Step, ...]:
    try:
        return _export_one_way(origin, path, batch, asked, each_alone=each_alone)
    except VerificationError as error:
        other = origin.otherwise()
        if other is None:
            raise
        try:
            step, *rest = _export_one_way(other, path, batch, asked, each_alone=each_alone)
        except EightfoldError:
            raise error from None
        return step.model_copy(update={"notes": (f"the first exporter's: {error}", *step.notes)}), *rest


def _export_one_way(origin: Source, path: Path, batch: int, asked: _Asked, *, each_alone: bool) -> tuple[Step, ...]:
    raw = path.with_suffix(".raw.onnx")
    try:
        tool = origin.write(cycled(asked.images, batch), raw)
        require_operators(load_onnx(raw, external=False), asked.targets)
        simplified = simplify_onnx(raw, inputs=asked.inputs(origin, _specs(raw)) if asked.real else None)
        step = _check(origin, raw, asked, tool, each_alone=each_alone)
        raw.replace(path)
    finally:
        _clear(raw, path)
    return step, simplified.step


def _derive(origin: Source, made: onnx.ModelProto, path: Path, asked: _Asked) -> Step:
    raw = path.with_suffix(".raw.onnx")
    try:
        save_onnx(made, raw)
        step = _check(origin, raw, asked, "derived from two other batches")
        raw.replace(path)
    finally:
        _clear(raw, path)
    return step


def _clear(raw: Path, path: Path) -> None:
    """Remove what was made on the way to `path`: the graph, and weights beside it that `path` does not refer to."""
    raw.unlink(missing_ok=True)
    weights = list(raw.parent.glob(f"{glob.escape(raw.stem)}.*.data"))
    needed = external_files(path) if weights and path.is_file() else ()
    for file in weights:
        if file.name not in needed:
            file.unlink()


def _check(origin: Source, path: Path, asked: _Asked, tool: str, *, each_alone: bool = False) -> Step:
    specs, exact = _specs(path), origin.exact()
    reference = Reference(
        _by_place(origin.opened()),
        asked.trials(origin, specs, each_alone=each_alone),
        origin.probe(specs[0].shape[0]),
        None if exact is None else _by_place(exact),
    )
    step = reference.verify(path, step="export", tolerance=asked.tolerance)
    return step.model_copy(update={"tool": tool})


def _by_place(asked: Callable[[Arrays], list[Array]]) -> Callable[[Arrays], Arrays]:
    def answer(inputs: Arrays) -> Arrays:
        return {str(place): array for place, array in enumerate(asked(inputs))}

    return answer


def _specs(path: Path) -> tuple[TensorSpec, ...]:
    return input_specs(load_onnx(path, external=False))
