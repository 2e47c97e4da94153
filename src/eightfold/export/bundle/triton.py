"""A model repository for NVIDIA Triton Inference Server from an artifact of a bundle.

`NAME/config.pbtxt` and `NAME/1/model.onnx` or `model.plan`, as
https://docs.nvidia.com/deeplearning/triton-inference-server has them. Artifacts are of one batch, so that the shapes in
the configuration are whole and `max_batch_size` is 0: Triton neither adds a batch axis nor joins requests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from eightfold.errors import BundleError, UsageError
from eightfold.files import PathLike, atomic_directory, write_text
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact

TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}
# Format -> Triton's platform, and the file that it looks for.
PLATFORMS = {"onnx": ("onnxruntime_onnx", "model.onnx"), "engine": ("tensorrt_plan", "model.plan")}
NAME = re.compile(r"[A-Za-z0-9_.-]+")
CONFIG, VERSION = "config.pbtxt", "1"


def write_triton(bundle: Bundle, artifact_id: str, repository: PathLike, *, name: str | None = None) -> Path:
    """Write one artifact as a model into a Triton model repository; returns the model's folder.

    Args:
        bundle: where the artifact is.
        artifact_id: an id of its manifest.
        repository: the repository's folder; other models in it are left alone.
        name: of the model; by default the artifact's id.

    Raises:
        BundleError: no such artifact, or one that Triton has no back end for.
        UsageError: a name that is none, or a folder of that name that is no model.
    """
    artifact = bundle.artifact(artifact_id)
    name = artifact_id if name is None else name
    if not NAME.fullmatch(name):
        raise UsageError(f"the model name {name!r}", allowed="letters, digits, '_', '.' and '-'")
    config, file = triton_config(artifact, name), _platform(artifact)[1]
    path = bundle.artifact_path(artifact)
    folder = Path(repository) / name
    with atomic_directory(folder, replaces=(CONFIG,)) as temporary:
        (temporary / VERSION).mkdir()
        shutil.copyfile(path, temporary / VERSION / file)
        for further in artifact.files:
            shutil.copyfile(bundle.file(further), temporary / VERSION / Path(further).name)
        write_text(temporary / CONFIG, config)
    return folder


def triton_config(artifact: Artifact, name: str) -> str:
    """The text of `config.pbtxt`."""
    lines = [f'name: "{name}"', f'platform: "{_platform(artifact)[0]}"', "max_batch_size: 0"]
    return "\n".join([*lines, _tensors("input", artifact.inputs), _tensors("output", artifact.outputs)]) + "\n"


def _platform(artifact: Artifact) -> tuple[str, str]:
    if artifact.format not in PLATFORMS or artifact.target.startswith("rtx"):
        raise BundleError(
            f"Triton has no back end for {artifact.id} ({artifact.format} for {artifact.target})",
            allowed="an ONNX file, or an engine of TensorRT",
            remedy="choose another artifact",
        )
    return PLATFORMS[artifact.format]


def _tensors(key: str, specs: Sequence[TensorSpec]) -> str:
    return "\n".join([f"{key} [", ",\n".join(f"  {_tensor(spec)}" for spec in specs), "]"])


def _tensor(spec: TensorSpec) -> str:
    dims = ", ".join(map(str, spec.shape))
    return f'{{ name: "{_escaped(spec.name)}" data_type: {TYPES[spec.dtype]} dims: [ {dims} ] }}'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
