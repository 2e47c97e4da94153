"""Every step of the way is checked against the one before it: same inputs through both, differences measured, and a
failure that names the first tensor that differs. `Reference` does the same on several inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError
from eightfold.export.verify.intermediates.diverging import first_diverging
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import Probe
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from eightfold.export.verify.test_inputs import in_turn
from eightfold.export.verify.verify import (
    Difference,
    Tolerance,
    compare_arrays,
    compare_in_order,
    require_within,
    run_module_arrays,
    run_onnx,
    step_from,
)
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import torch


def verify_onnx(before: PathLike, after: PathLike, inputs: Arrays, *, step: str, tolerance: Tolerance) -> Step:
    """Run both ONNX files on `inputs` with onnxruntime on the CPU and compare the outputs.

    Raises:
        VerificationError: beyond the tolerance; the message names the first tensor on the way that differs.
    """
    found = compare_arrays(run_onnx(before, inputs), run_onnx(after, inputs))
    require_alike(found, tolerance, step=step, probes=(OnnxProbe(before), OnnxProbe(after)), inputs=inputs)
    return step_from(found, name=step)


def verify_module(
    model: torch.nn.Module, onnx_path: PathLike, images: Array, *, tolerance: Tolerance, tool: str = "torch.onnx"
) -> Step:
    """Run a torch module in evaluation mode and its ONNX file on `images` (batch, channels, height, width);
    of several inputs each gets them, in another order.

    Raises:
        VerificationError: beyond the tolerance; the message names the first layer of the module that differs.
    """
    inputs = in_turn(images, [spec.name for spec in input_specs(load_onnx(onnx_path, external=False))])
    found = compare_in_order(run_module_arrays(model, *inputs.values()), run_onnx(onnx_path, inputs))
    probes = TorchProbe(model), OnnxProbe(onnx_path)
    require_alike(found, tolerance, step="export", probes=probes, inputs=inputs)
    return step_from(found, name="export", tool=tool)


def require_alike(
    found: tuple[Difference, ...],
    tolerance: Tolerance,
    *,
    step: str,
    probes: tuple[Probe | None, Probe | None],
    inputs: Arrays,
) -> None:
    """Raise VerificationError where an output is beyond the tolerance, naming the first tensor of the network before
    the step from which on the two differ, or the output where one of them shows no others."""
    if any(item.beyond(tolerance) for item in found):
        require_within(found, tolerance, step=step, first=first_beyond(*probes, inputs, tolerance))


def first_beyond(before: Probe | None, after: Probe | None, inputs: Arrays, tolerance: Tolerance) -> str:
    """The first tensor of `before` from which on the two differ by more; "" where one of them shows no tensors."""
    if before is None or after is None:
        return ""
    try:
        return first_diverging(before, after, (inputs, inputs), tolerance)
    except ModelError:  # some graphs run as a whole only; that the step failed is the news
        return ""
