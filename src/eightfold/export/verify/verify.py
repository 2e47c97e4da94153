"""Parts of every step's check: networks that run, differences that are measured, tolerances that hold."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError, VerificationError, first_line
from eightfold.export.verify.sqnr import NO_ERROR_DB, sqnr_db
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import fits_protobuf, load_onnx, save_onnx
from eightfold.runtime.bundle.manifest import Step
from eightfold.scratch import scratch_folder
from eightfold.values import Frozen

if TYPE_CHECKING:
    import onnx
    import torch

# onnxruntime's names of the types that inputs have.
NUMPY_TYPES = {f"tensor({name})": name for name in ("uint8", "int8", "int32", "int64", "bool", "float16")} | {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
Runnable: TypeAlias = "PathLike | bytes | onnx.ModelProto"
# Outputs by name for inputs by name.
Run = Callable[[Arrays], Arrays]


class Tolerance(Frozen):
    """Largest differences that a step may cause. None means that the figure is recorded but not judged."""

    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None


class Difference(Frozen):
    """Difference between two versions of one tensor.

    Attributes:
        max_abs_error: largest absolute difference.
        max_rel_error: that, over the largest magnitude of the reference: 1e-4 means four digits of the full scale.
        cosine: cosine of the angle between the two as vectors; 1 for two zero tensors.
        sqnr_db: 10 log10 of the reference's energy over the error's; NO_ERROR_DB where they are the same.
    """

    tensor: str
    max_abs_error: float
    max_rel_error: float
    cosine: float
    sqnr_db: float = NO_ERROR_DB

    def beyond(self, tolerance: Tolerance) -> str:
        """The figures that exceed the tolerance, in words; "" if none does. NaN never passes."""
        limits = (
            ("max abs error", self.max_abs_error, tolerance.max_abs_error, self.max_abs_error),
            ("max relative error", self.max_rel_error, tolerance.max_rel_error, self.max_rel_error),
        )
        words = [
            f"{name} {seen:.3g} > {limit:g}"
            for name, seen, limit, _ in limits
            if limit is not None and not seen <= limit
        ]
        if tolerance.cosine is not None and not self.cosine >= tolerance.cosine:
            words.append(f"cosine {self.cosine:.6f} < {tolerance.cosine:g}")
        return ", ".join(words)


def difference(tensor: str, reference: Array, seen: Array) -> Difference:
    """Compare in float64. Raises VerificationError where the shapes differ."""
    if reference.shape != seen.shape:
        raise VerificationError(
            f"tensor {tensor!r} has shape {seen.shape}", allowed=f"{reference.shape}, as the reference has"
        )
    a, b = reference.astype(np.float64).ravel(), seen.astype(np.float64).ravel()
    if np.array_equal(a, b, equal_nan=True):
        return Difference(tensor=tensor, max_abs_error=0.0, max_rel_error=0.0, cosine=1.0)
    with np.errstate(invalid="ignore"):  # what is not finite shows as NaN
        max_abs = float(np.max(np.abs(a - b)))
        scale, norms = float(np.max(np.abs(a))), float(np.linalg.norm(a) * np.linalg.norm(b))
        return Difference(
            tensor=tensor,
            max_abs_error=max_abs,
            max_rel_error=max_abs / scale if scale > 0 else float("inf"),
            cosine=float(a @ b / norms) if norms != 0 else 0.0,
            sqnr_db=sqnr_db(float(a @ a), float((a - b) @ (a - b))),
        )


def compare_arrays(reference: Arrays, seen: Arrays) -> tuple[Difference, ...]:
    """Differences of the tensors in `reference`, by name where the names agree and else in order."""
    if set(reference) != set(seen):
        return compare_in_order(list(reference.values()), seen)
    return tuple(difference(name, array, seen[name]) for name, array in reference.items())


def in_order_of(reference: Arrays, seen: Arrays) -> list[Array]:
    """The tensors that stand for those of `reference`, as `compare_arrays` has it."""
    return list(seen.values()) if set(reference) != set(seen) else [seen[name] for name in reference]


def compare_in_order(reference: Sequence[Array], seen: Arrays) -> tuple[Difference, ...]:
    """The same where the reference has no names."""
    if len(reference) != len(seen):
        raise VerificationError(f"{len(seen)} outputs", allowed=f"{len(reference)}, as the reference has")
    pairs = zip(seen.items(), reference, strict=True)
    return tuple(difference(name, array, other) for (name, other), array in pairs)


def step_from(differences: Sequence[Difference], *, name: str, tool: str = "", notes: Sequence[str] = ()) -> Step:
    """The worst figures over all tensors, as the manifest keeps them."""
    return Step(
        name=name,
        tool=tool,
        max_abs_error=max(item.max_abs_error for item in differences),
        max_rel_error=max(item.max_rel_error for item in differences),
        cosine=min(item.cosine for item in differences),
        notes=tuple(notes),
    )


def require_within(differences: Sequence[Difference], tolerance: Tolerance, *, step: str, first: str = "") -> None:
    """Raise VerificationError if any tensor is beyond the tolerance, naming `first` or else that tensor."""
    for item in differences:
        words = item.beyond(tolerance)
        if words:
            raise VerificationError(
                f"{step} changed output {item.tensor!r}: {words}; first diverging tensor: {first or item.tensor!r}",
                remedy="the file from before the step was left as it was",
            )


def run_module_arrays(model: torch.nn.Module, *images: Array) -> list[Array]:
    """A torch module's outputs for its inputs, flattened, in evaluation mode and on the model's device."""
    from eightfold.export.verify.module_runs import evaluating, output_tensors, run_module

    torch = require("torch", "run the torch module")
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    with evaluating(model):
        output = run_module(model, *(torch.from_numpy(each).to(device) for each in images))
    return [tensor.detach().cpu().numpy() for _, tensor in output_tensors(output)]


def run_in_float64(model: torch.nn.Module, *images: Array) -> list[Array]:
    """The same with a copy of the module in float64. Raises ModelError where it has none, or does not run so."""
    try:
        exact = copy.deepcopy(model).double()
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({error})", allowed="modules that can be copied"
        ) from error
    return run_module_arrays(exact, *(each.astype(np.float64) for each in images))


def run_onnx(path: Runnable, inputs: Arrays, *, optimize: bool = True) -> dict[str, Array]:
    """Outputs by name. Raises ModelError where onnxruntime refuses the file or the inputs."""
    return runner(path, optimize=optimize)(inputs)


def runner(path: Runnable, *, optimize: bool = True) -> Callable[[Arrays], dict[str, Array]]:
    """A function that runs an ONNX file or graph on inputs by name, as `run_onnx` does, and opens it only once."""
    ort = require("onnxruntime", "check ONNX files numerically")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 0
    # Idle threads sleep: others work beside this.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _refusals(path), _opened(path) as source:
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    types = {each.name: NUMPY_TYPES.get(each.type, "") for each in session.get_inputs()}

    def run(inputs: Arrays) -> dict[str, Array]:
        _require_types(path, types, inputs)
        with _refusals(path):
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _require_types(path: Runnable, types: Mapping[str, str], inputs: Arrays) -> None:
    """Raise ModelError where an input is given values of another type than it takes."""
    for name, array in inputs.items():
        wanted = types.get(name, "")
        if wanted and array.dtype != wanted:
            shown = path if isinstance(path, str | Path) else "the graph"
            raise ModelError(
                f"input {name!r} of {shown} is given {array.dtype}",
                allowed=f"{wanted}, the type that it takes",
                remedy=f"give the Preprocess dtype: {wanted}" if wanted in ("float32", "uint8") else "",
            )


@contextlib.contextmanager
def _opened(source: Runnable) -> Iterator[str | bytes]:
    """A path or bytes for onnxruntime to open. A graph in memory goes through a file if it is more than protobuf
    holds."""
    if isinstance(source, bytes):
        yield source
    elif isinstance(source, str | Path):
        yield str(source)
    elif fits_protobuf(source):
        yield source.SerializeToString()
    else:
        with scratch_folder() as folder:
            yield str(save_onnx(source, folder / "graph.onnx"))


@contextlib.contextmanager
def _refusals(path: Runnable) -> Iterator[None]:
    try:
        yield
    # onnxruntime's exceptions derive from RuntimeError or Exception, depending on their kind.
    except Exception as error:
        shown = path if isinstance(path, str | Path) else "the graph"
        if isinstance(path, str | Path):
            load_onnx(path)  # says what is wrong with the files, if they are at fault
        raise ModelError(
            f"onnxruntime refuses {shown} ({first_line(error)})",
            allowed="a valid fixed-size ONNX file",
        ) from error


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """`model`, changed to have `names` as its outputs."""
    from onnx import ValueInfoProto

    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(names))
    return model
