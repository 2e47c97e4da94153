"""Bundles as an attacker would change them: with every digest made right again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from eightfold.files import sha256_of_bytes
from eightfold.runtime.bundle.bundle_names import MANIFEST_DIGEST_NAME, MANIFEST_NAME, manifest_digest_line

OWN_WEIGHTS = "own.weights"


def rewrite_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    change(data)
    write_manifest(bundle, json.dumps(data).encode())


def write_manifest(bundle: Path, data: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(data)
    (bundle / MANIFEST_DIGEST_NAME).write_text(manifest_digest_line(data))


def replace_file(bundle: Path, inside: str, data: bytes) -> None:
    (bundle / inside).write_bytes(data)
    entry = {"bytes": len(data), "sha256": sha256_of_bytes(data)}
    rewrite_manifest(bundle, lambda manifest: manifest["files"].update({inside: entry}))


def refer_outside(
    bundle: Path, inside: str, location: str, *, own: tuple[str, ...] = (OWN_WEIGHTS,), **numbers: int
) -> None:
    """Give a graph of a bundle a further tensor of three floats whose content lies at `location`.

    The artifact gets a weight file of 12 bytes for its own, unless `own` is empty.
    """
    model = onnx.load(str(bundle / inside))
    tensor = TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    kept = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}-before" if name == kept else name for name in node.output]
    model.graph.node.add(op_type="Add", input=[f"{kept}-before", "more"], output=[kept])
    replace_file(bundle, inside, model.SerializeToString())
    folder = inside.rpartition("/")[0]
    for name in own:
        replace_file(bundle, f"{folder}/{name}", bytes(12))
    further = [f"{folder}/{name}" for name in own]

    def list_them(manifest: dict[str, Any]) -> None:
        for artifact in manifest["artifacts"]:
            if artifact["path"] == inside:
                artifact["files"] = further

    rewrite_manifest(bundle, list_them)


def pack(bundle: Path, output: Path) -> Path:
    """A zip of a bundle directory as it is; `zip_bundle` would refuse it."""
    with zipfile.ZipFile(output, "w") as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(bundle).as_posix())
    return output
