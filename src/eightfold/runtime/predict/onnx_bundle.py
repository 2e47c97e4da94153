"""A lone ONNX file as a bundle, for `Predictor` and `eightfold predict`: its task and preprocessing are guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, ModelError
from eightfold.files import PathLike, require_model_file, sha256_of_file
from eightfold.onnx_graph.onnx_references import external_references
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends import BACKENDS, open_session, usable_backends
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_store import DirectoryStore
from eightfold.runtime.bundle.guess_task import guess_task
from eightfold.runtime.bundle.manifest import Artifact, FileEntry, Manifest, Task

CHANNELS = (1, 3, 4)


def bundle_of_onnx(path: PathLike, *, task: Task | None = None, preprocess: Preprocess | None = None) -> Bundle:
    """The file as a bundle with one artifact, in memory.

    Args:
        path: a fixed-size .onnx file with one image input.
        task: the meaning of its outputs; guessed from their shapes when None, see `guess_task`.
        preprocess: how an image becomes its input; when None, RGB in [0, 1], letterboxed for detectors, else stretched.

    Raises:
        ModelError: no such file, axes of unknown length, several inputs, or none that takes images.
    """
    path = Path(path)
    require_model_file(path, "ONNX file", allowed="an .onnx file that exists")
    path = path.absolute()  # not behind links: weights lie beside the link
    reading = [name for name in usable_backends() if "onnx" in BACKENDS[name].formats]
    if not reading:
        raise BackendError(
            f"nothing installed here reads {path.name}",
            allowed="onnxruntime or OpenVINO",
            remedy="run: eightfold doctor",
        )
    session: Any = open_session(path, reading[0])
    image, layout = _image_input(path, session.inputs)
    height, width = image.shape[2:] if layout == "nchw" else image.shape[1:3]
    size = (height, width)
    found = task or guess_task([spec.shape for spec in session.outputs], size, _names(session))
    if found.kind == "tensors":
        _require_rows(path, session.outputs, image.shape[0])
    rules = preprocess or Preprocess.model_validate(
        {
            "height": height,
            "width": width,
            "channels": image.shape[1] if layout == "nchw" else image.shape[3],
            "layout": layout,
            "dtype": image.dtype,
            "resize": "letterbox" if found.kind == "detect" else "stretch",
        }
    )
    files = [path, *(path.parent / name for name in sorted({each.location for each in external_references(path)}))]
    manifest = Manifest(
        name=path.stem,
        task=found,
        preprocess=rules,
        artifacts=(
            Artifact(
                id=path.stem,
                variant="file",
                format="onnx",
                precision="fp32",
                target="any",
                batch=image.shape[0],
                path=path.name,
                files=tuple(_inside(path, files[1:])),
                inputs=session.inputs,
                outputs=session.outputs,
            ),
        ),
        files={
            name: FileEntry(bytes=file.stat().st_size, sha256=sha256_of_file(file))
            for name, file in zip(_inside(path, files), files, strict=True)
        },
    )
    return Bundle(path, manifest, _OwnFiles(path.parent))


class _OwnFiles(DirectoryStore):
    """Files that the user named. Those of a model hub's cache are links; nobody else chose where they lead."""

    def size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise self._unreadable(name, error) from None


def _inside(path: Path, files: Iterable[Path]) -> list[str]:
    return [file.relative_to(path.parent).as_posix() for file in files]


def _image_input(path: Path, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, str]:
    if len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].dtype in ("float32", "uint8"):
        shape = inputs[0].shape
        if shape[1] in CHANNELS:
            return inputs[0], "nchw"
        if shape[3] in CHANNELS:
            return inputs[0], "nhwc"
    seen = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in inputs)
    raise ModelError(
        f"{path} takes {seen}",
        allowed="one input of images, float32 or uint8 (batch, channels, height, width)",
        remedy="make a bundle of it, with constants for other inputs: eightfold export",
    )


def _require_rows(path: Path, outputs: Sequence[TensorSpec], batch: int) -> None:
    """Refuse outputs that no image has a row of, such as a constant: each image would be answered with a part of it."""
    for spec in outputs:
        if spec.shape[:1] != (batch,):
            raise ModelError(
                f"output {spec.name!r} of {path} has the shape {spec.shape} for {batch} images",
                allowed="outputs with a row for each image",
                remedy="leave it out of the graph, or export with the decoder that reads it: eightfold export --task",
            )


def _names(session: Any) -> str:
    """The names of classes in the metadata, where the backend shows that."""
    raw: Any = getattr(session, "raw", None)
    if not hasattr(raw, "get_modelmeta"):
        return ""
    return str(raw.get_modelmeta().custom_metadata_map.get("names", ""))
