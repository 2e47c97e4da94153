"""TensorRT engines (8.5 to 11) and TensorRT-RTX engines, whose Python API is the same. Only this module of the runtime
imports either."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eightfold.errors import BackendError, ModelError
from eightfold.extras import installed, require
from eightfold.files import sha256_of_file
from eightfold.json_types import JsonDict
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.base import Backend, Session, SessionOptions, Slot
from eightfold.runtime.backends.cuda.base import Cuda, nbytes_of
from eightfold.runtime.backends.cuda_memory import cuda_absent, open_cuda
from eightfold.runtime.backends.engine_fit import engine_requirements, holds_host_code, meets

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
# The C++ runtime reads the same.
TRUST_VARIABLE = "EIGHTFOLD_TRUST_ENGINE_CODE"
NAMED_TENSORS = ">=8.5"
EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


class TensorRtBackend(Backend):
    """One of the two modules."""

    formats = ("engine",)
    on_gpu = True

    def __init__(self, name: str, module: str, *, rank: int, targets: tuple[str, ...]) -> None:
        self.name = name
        self.rank = rank
        self.targets = targets
        self.module = module

    def absent(self) -> str | None:
        if not installed(self.module):
            return f"{self.module} is not installed (pip install 'eightfold[{EXTRAS[self.module]}]')"
        return cuda_absent()

    def open(self, path: Path, options: SessionOptions) -> Session:
        module = require(self.module, "run TensorRT engines")
        if self.module == "tensorrt" and not meets(module.__version__, NAMED_TENSORS):
            raise BackendError(
                f"TensorRT {module.__version__} does not tell its tensors by name",
                allowed="8.5 and later in Python",
                remedy="run the bundle with the C++ runtime: eightfold-run",
            )
        return TensorRtSession(self.name, module, open_cuda(options.device), path)


class TensorRtSession(Session):
    """One engine on one device. Each slot has an execution context, a stream and buffers of its own."""

    scope = "model+copies"

    def __init__(self, backend: str, module: Any, cuda: Cuda, path: Path) -> None:
        self.backend, self.version, self.cuda = backend, module.__version__, cuda
        flags = check_engine(path, module, cuda)
        self._logger = module.Logger(module.Logger.ERROR)
        self._runtime = module.Runtime(self._logger)
        if holds_host_code(flags):
            _require_trusted(path)
            self._runtime.engine_host_code_allowed = True
        here = cuda.compute_capability()
        with cuda.active():
            self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise _refused(path, f"{module.__name__} {module.__version__} cannot load it", here, module)
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        self.inputs = tuple(self._spec(name, path) for name in inputs)
        self.outputs = tuple(self._spec(name, path) for name in names if name not in inputs)

    def new_slot(self) -> Slot:
        with self.cuda.active():
            return TensorRtSlot(self)

    def _spec(self, name: str, path: Path) -> TensorSpec:
        shape, kind = tuple(self.engine.get_tensor_shape(name)), self.engine.get_tensor_dtype(name).name
        if any(size < 0 for size in shape):
            raise ModelError(f"{path}: {name!r} has shape {shape}", allowed="fixed sizes", remedy="build it again")
        if kind not in DTYPES:
            raise ModelError(f"{path}: {name!r} is {kind}", allowed=", ".join(DTYPES))
        return TensorSpec.model_validate({"name": name, "dtype": DTYPES[kind], "shape": shape})


class TensorRtSlot(Slot):
    """Pinned host arrays, device buffers, and after the first run a CUDA graph of copies and kernels."""

    def __init__(self, session: TensorRtSession) -> None:
        self._cuda = session.cuda
        self._context = session.engine.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT cannot make an execution context", remedy="free device memory")
        self._stream = self._cuda.stream()
        self.inputs = {spec.name: self._cuda.pinned(spec.shape, spec.dtype) for spec in session.inputs}
        self.outputs = {spec.name: self._cuda.pinned(spec.shape, spec.dtype) for spec in session.outputs}
        specs = (*session.inputs, *session.outputs)
        self._buffers = {spec.name: self._cuda.allocate(nbytes_of(spec.shape, spec.dtype)) for spec in specs}
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.address)
        # TensorRT allows capture only after a first run, which may still allocate.
        self._enqueue()
        self._stream.synchronize()
        self._graph = self._stream.record(self._enqueue)

    def run(self) -> None:
        with self._cuda.active():
            if self._graph is not None:
                self._graph.launch()
            else:
                self._enqueue()
            self._stream.synchronize()

    def _enqueue(self) -> None:
        for name, array in self.inputs.items():
            self._stream.upload(self._buffers[name], array)
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError("TensorRT failed while running", remedy="run: eightfold doctor")
        for name, array in self.outputs.items():
            self._stream.download(array, self._buffers[name])


def check_engine(path: Path, module: Any, cuda: Cuda) -> tuple[str, ...]:
    """Compares an engine's sidecar, if there is one, with this machine, for a clearer error than TensorRT's. Returns
    the flags of the build.

    Raises ModelError with the command that builds it here.
    """
    sidecar = Path(f"{path}.json")
    if not sidecar.is_file():
        return ()
    record = _record(sidecar)
    if record.get("engine_sha256", digest := sha256_of_file(path)) != digest:
        raise ModelError(
            f"{sidecar} is the record of another engine",
            allowed="an engine and its record as they were built",
            remedy="copy both again from where the engine was built, or build it again",
        )
    builder, version = str(record.get("builder")), str(record.get("builder_version"))
    flags = tuple(map(str, record["flags"])) if isinstance(record.get("flags"), list) else ()
    wanted = engine_requirements(builder, version, str(record.get("compute_capability") or ""), flags)
    here = cuda.compute_capability()
    if builder != module.__name__ or not meets(module.__version__, wanted[builder]):
        later = f" to run on {wanted[builder]}" if holds_host_code(flags) else ""
        seen = f"here is {module.__name__} {module.__version__}"
        raise _refused(path, f"it was built by {builder} {version}{later}, and {seen}", here, module)
    capability = wanted.get("compute_capability")
    if capability and not meets(here, capability):
        raise _refused(path, f"it was built for compute capability {capability}, and this GPU has {here}", here, module)
    if "STRIP_PLAN" in flags:
        raise ModelError(
            f"engine {path} was built without its weights",
            allowed="complete engines",
            remedy=f"put them back: eightfold refit {path.name} MODEL.onnx -o {path.name}",
        )
    return flags


def _require_trusted(path: Path) -> None:
    """Nothing in a bundle runs as code of the host unless whoever set this machine up allows it."""
    if os.environ.get(TRUST_VARIABLE) != "1":
        raise ModelError(
            f"engine {path} is version-compatible: it brings machine code along that runs in this process",
            allowed="engines without such code, or of a maker you trust",
            remedy=f"set {TRUST_VARIABLE}=1, or build it without --version-compatible",
        )


def _record(sidecar: Path) -> JsonDict:
    try:
        record = json.loads(sidecar.read_text())
    except ValueError:  # not JSON, or not even text
        record = None
    if not isinstance(record, dict):
        raise ModelError(
            f"{sidecar} is not the record that eightfold build writes",
            allowed="JSON with the builder's version",
            remedy="copy it again from where the engine was built, or build it again",
        )
    return record


def _refused(path: Path, why: str, capability: str, module: Any) -> ModelError:
    target = f"rtx:sm{capability.replace('.', '')}" if module.__name__ == "tensorrt_rtx" else "tensorrt"
    return ModelError(
        f"engine {path}: {why}",
        allowed="engines built by this very version for this GPU, or to run on others as well",
        remedy=f"build it here: eightfold build MODEL.onnx --target {target} -o {path.name}",
    )
