"""Models as OpenVINO compiled them for this processor, kept between starts: compiling INT8 graphs takes seconds.

A file is `<SHA-256 of the rest><inputs and outputs as JSON, one line><what OpenVINO exported>`. One that is not whole
is as good as absent: OpenVINO itself would take damaged weights for good ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from eightfold.files import atomic_path, sha256_of_file
from eightfold.json_types import JsonMapping
from eightfold.onnx_graph.onnx_references import NotOnnxError, external_references
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.cache_folder import cache_folder

DIGEST_BYTES = 32
# Beyond, to read and to check takes longer than to compile: ResNet-18 in FP32 (47 MB) starts in 0.33 s instead of
# 0.27 s, ResNet-50 in INT8 (26 MB) in 0.26 s instead of 0.55 s.
LARGEST_BYTES = 32 << 20
# Those used last; the others go. An application starts with a few.
MOST_FILES = 16


@dataclass(frozen=True)
class Compiled:
    """A compiled model, and the inputs and outputs of the graph it was compiled from."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    blob: bytes


def cache_path(model: Path, version: str, machine: str, settings: JsonMapping) -> Path | None:
    """The file for one model, as one version of OpenVINO compiles it for one machine.

    None where nothing can be kept.
    """
    folder = cache_folder("openvino")
    try:
        files = _files_of(model)
        if sum(file.stat().st_size for file in files) > LARGEST_BYTES:
            return None
        digests = [sha256_of_file(file) for file in files]
    except (OSError, NotOnnxError):  # said better by whoever reads it next
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    key = json.dumps([digests, model.suffix, version, machine, cores, {**settings}], sort_keys=True)
    return None if folder is None else folder / f"{hashlib.sha256(key.encode()).hexdigest()}.blob"


def _files_of(model: Path) -> list[Path]:
    if model.suffix == ".xml":
        return [model, model.with_suffix(".bin")]
    weights = {reference.location for reference in external_references(model)}
    return [model, *(model.parent / name for name in sorted(weights))]


def load(path: Path) -> Compiled | None:
    """The model stored under that name; None if there is none, or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(memoryview(content)[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    end = content.index(b"\n", DIGEST_BYTES)
    specs, blob = json.loads(content[DIGEST_BYTES:end]), content[end + 1 :]
    inputs, outputs = (tuple(TensorSpec.model_validate(each) for each in specs[side]) for side in ("inputs", "outputs"))
    return Compiled(inputs, outputs, blob)


def store(path: Path, compiled: Compiled) -> None:
    """Keep it, if the disk takes it."""
    specs = {side: [spec.model_dump() for spec in getattr(compiled, side)] for side in ("inputs", "outputs")}
    body = json.dumps(specs).encode() + b"\n" + compiled.blob
    with contextlib.suppress(OSError):
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(body).digest() + body)
        _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.blob"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[MOST_FILES:]:
        file.unlink(missing_ok=True)
