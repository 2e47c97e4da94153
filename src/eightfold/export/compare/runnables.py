"""Whatever can be run, ready to run: torch modules, ONNX files, OpenVINO models, engines, artifacts of bundles.

Engines and OpenVINO models run with the runtime's own back ends. Where one is missing, because there is no GPU, say,
the error tells what could be done instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.arrays import Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.openvino_probe import OpenVinoProbe
from eightfold.export.verify.intermediates.probe import Probe
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from eightfold.export.verify.module_runs import input_names
from eightfold.export.verify.sessions import BACKEND_OF_BUILDER, session_runner
from eightfold.export.verify.verify import run_module_arrays, runner
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends import usable_backends
from eightfold.runtime.bundle.bundle import Bundle

if TYPE_CHECKING:
    import torch

SUFFIXES = (".onnx", ".xml", ".engine", ".plan")


@dataclasses.dataclass(frozen=True)
class Runnable:
    """Something that answers inputs.

    Attributes:
        name: as it was named.
        run: outputs by name for inputs by name; by their place where they have no names.
        inputs: what it takes; empty for a torch module, which does not say the shape.
        names: of a torch module's inputs, tensors of images of one shape.
        probe: shows its inner tensors; None where it has none to show.
        silence: why not, in words that follow its name.
        preprocess: how images become its input, where a bundle says it.
        owner: the bundle that the file was unpacked from; the file goes when it does.
        path: the file; None for a torch module.
        record: of an engine.
        maker: for the name of an inner tensor, what computes it, in words; "" where nothing is known.
        remark: what a reader of its layers has to know.
    """

    name: str
    run: Callable[[Arrays], Arrays]
    inputs: tuple[TensorSpec, ...] = ()
    names: tuple[str, ...] = ()
    probe: Probe | None = None
    silence: str = "shows no inner tensors"
    preprocess: Preprocess | None = None
    owner: Bundle | None = None
    path: Path | None = None
    record: EngineRecord | None = None
    maker: Callable[[str], str] = lambda _: ""
    remark: str = ""

    def fed(self, inputs: Arrays) -> Arrays:
        """Another network's inputs under the names and in the floating-point type that this one has, in order."""
        if not self.inputs:
            return inputs
        return {
            spec.name: array if array.dtype.kind != "f" else array.astype(spec.dtype)
            for spec, array in zip(self.inputs, inputs.values(), strict=True)
        }


def runnable_of(what: torch.nn.Module | PathLike | Runnable) -> Runnable:
    """Open what can be run.

    Args:
        what: a torch module; a path that ends in .onnx, .xml (OpenVINO), .engine or .plan (with its record beside it);
            "BUNDLE:ARTIFACT", or a bundle that holds one artifact.

    Raises:
        BackendError: nothing here can run it, e.g. an engine where there is no GPU.
        UsageError: it is none of these, or a bundle of several artifacts.
    """
    if isinstance(what, Runnable):
        return what
    if not isinstance(what, str | Path):
        return _of_module(what)
    name = str(what)
    bundle, colon, artifact = name.rpartition(":")
    if colon and not Path(name).exists():
        return _of_bundle(name, bundle, artifact)
    if Path(name).suffix in SUFFIXES:
        return _of_file(name, Path(name))
    if Path(name).exists():
        return _of_bundle(name, name, "")
    raise UsageError(
        f"there is no {name}", allowed=f"a file ending in {', '.join(SUFFIXES)}, a bundle, BUNDLE:ARTIFACT"
    )


def _of_module(module: torch.nn.Module) -> Runnable:
    names = input_names(module)

    def run(inputs: Arrays) -> Arrays:
        if len(inputs) != len(names):
            raise UsageError(
                f"{len(inputs)} inputs ({', '.join(inputs)}) for {type(module).__name__}",
                allowed=f"{len(names)}: {', '.join(names)}",
            )
        return {str(place): array for place, array in enumerate(run_module_arrays(module, *inputs.values()))}

    return Runnable(type(module).__name__, run, names=names, probe=TorchProbe(module))


def _of_bundle(name: str, path: str, artifact_id: str) -> Runnable:
    bundle = Bundle.open(path)
    known = [artifact.id for artifact in bundle.manifest.artifacts]
    if not artifact_id and len(known) != 1:
        raise UsageError(
            f"{path} holds {len(known)} artifacts", allowed=" or ".join(f"{path}:{each}" for each in known)
        )
    return runnable_of_artifact(bundle, artifact_id or known[0], name)


def runnable_of_artifact(bundle: Bundle, artifact_id: str, name: str = "") -> Runnable:
    """One artifact of an open bundle, named BUNDLE:ARTIFACT by default. Raises as `runnable_of` does."""
    artifact = bundle.artifact(artifact_id)
    found = _of_file(name or f"{bundle.path}:{artifact_id}", bundle.artifact_path(artifact))
    return dataclasses.replace(found, preprocess=bundle.manifest.preprocess_of(artifact), owner=bundle)


def _of_file(name: str, path: Path) -> Runnable:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", allowed="a file that exists")
    if path.suffix == ".onnx":
        return _of_onnx(name, path)
    if path.suffix == ".xml":
        found = _of_session(name, path, "openvino", "compare the ONNX file that it was made from")
        return dataclasses.replace(found, probe=OpenVinoProbe(path))
    record = EngineRecord.of(path)
    hint = "run this on the device that the engine is for, or compare the ONNX file that it was built from"
    backend = BACKEND_OF_BUILDER.get(record.builder, record.builder)
    found = _of_session(name, path, backend, hint, record.options.device)
    return dataclasses.replace(found, record=record, silence="is an engine, which keeps its inner tensors to itself")


def _of_onnx(name: str, path: Path) -> Runnable:
    inputs, _ = tensor_specs(load_onnx(path))
    try:
        return Runnable(name, runner(path), inputs, probe=OnnxProbe(path), path=path)
    except ModelError:
        # onnxruntime has no bfloat16 convolution on CPUs; OpenVINO does.
        if "openvino" not in usable_backends():
            raise
    return dataclasses.replace(_of_session(name, path, "openvino", "export it in float32"), probe=OpenVinoProbe(path))


def _of_session(name: str, path: Path, backend: str, remedy: str, device: int = 0) -> Runnable:
    run, inputs = session_runner(path, backend, name=name, remedy=remedy, device=device)
    return Runnable(name, run, inputs, path=path)
