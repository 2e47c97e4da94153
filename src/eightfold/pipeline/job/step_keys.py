"""Content that the steps of a run depend on beside the files of earlier steps: weights, code, images, versions, device.

Everything here is compared by content. A name or a path counts only where the result quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.extras import EXTRA_OF
from eightfold.files import digest_of
from eightfold.json_types import JsonDict
from eightfold.onnx_graph.onnx_references import NotOnnxError, external_references
from eightfold.versions import installed_version

if TYPE_CHECKING:
    from eightfold.pipeline.job.job import Job
    from eightfold.zoo.sources.base import ModelSource

# Packages whose version may change what a kind of step computes.
IMAGES = ("eightfold", "numpy", "cv2")
MODULES = (*IMAGES, "torch", "torchvision", "timm", "scipy")
GRAPHS = (*IMAGES, "onnx", "onnxruntime")


def versions(names: Sequence[str]) -> JsonDict:
    """{"versions": name -> version of each installed package}."""
    found = {name: installed_version(name) for name in names}
    return {"versions": {name: version for name, version in found.items() if version}}


def model_key(job: Job) -> JsonDict:
    """The network at the start: its source with the code behind it, its weights, the seed."""
    section = job.recipe.model
    weights = {} if section.weights is None else {"weights": digest_of(section.weights)}
    form, content = _source_content(section.source, job.directory)
    named = section.model_dump(exclude={"source", "weights", "code"})
    return {"model": {**named, "source": form, **weights}, **content, "seed": job.recipe.seed}


def image_key(job: Job) -> JsonDict:
    """Images as they reach the network: the same files, drawn by the same seed, prepared alike."""
    return {"preprocess": job.recipe.preprocess.model_dump(mode="json"), "seed": job.recipe.seed}


def device_key() -> JsonDict:
    """This machine, as far as times depend on it."""
    from eightfold.runtime.bench.latency import device_identity
    from eightfold.runtime.devices.devices import describe_device

    return {"device": [str(part) for part in device_identity(describe_device())]}


def _source_content(text: str, outside: Path) -> tuple[str, JsonDict]:
    """A model source without its paths, and the content behind it: files, the user's modules, versions of libraries.

    Args:
        outside: the run directory, whose files are results.
    """
    from eightfold.compress.surgery.source_record import MODEL, SOURCE, SourceRecord
    from eightfold.zoo.sources.pruned_folder import source_in
    from eightfold.zoo.sources.registry import source_of

    source = source_of(text)
    form, content = _source_files(source, text)
    libraries = versions([name for name, extra in EXTRA_OF.items() if extra == source.extra])["versions"]
    if (code := source.code(text)) is not None:
        content["code"] = code.digests(outside=outside)
        libraries |= code.versions()
    if (record := Path(text) / SOURCE).is_file() and not (Path(text) / MODEL).is_file():
        stored = SourceRecord.load(record)
        origin, behind = _source_content(source_in(stored, source_of(stored.source)), outside)
        content["pruned from"] = {"source": origin, **behind}
    return form, {**content, "libraries": libraries}


def _source_files(source: ModelSource, text: str) -> tuple[str, JsonDict]:
    """A model source with the kind of each file in place of its path, and the digests of the files: the same file is
    the same under every spelling of its path."""
    files: dict[str, Path] = {}

    def kind_of(path: str) -> str:
        kind = Path(path).name if source.reads_names else Path(path).suffix.removeprefix(".") or "folder"
        files[kind] = Path(path)
        return kind

    form = source.with_paths(text, kind_of)
    for path in tuple(files.values()):
        files |= _external_weights(path)
    return form, {"files": {kind: digest_of(path) for kind, path in files.items()}} if files else {}


def _external_weights(path: Path) -> Mapping[str, Path]:
    if path.suffix != ".onnx":
        return {}
    try:
        names = {reference.location for reference in external_references(path)}
    except (OSError, NotOnnxError):  # refused where the model is opened
        return {}
    return {name: path.parent / name for name in names if (path.parent / name).is_file()}
