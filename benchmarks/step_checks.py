"""One step of an export against the one before it: the same inputs through both, and the first tensor that differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.arrays import Array, Arrays
from eightfold.export.verify.intermediates.diverging import require_alike
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from eightfold.export.verify.test_inputs import in_turn
from eightfold.export.verify.verify import (
    Tolerance,
    compare_arrays,
    compare_in_order,
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
