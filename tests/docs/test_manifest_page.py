from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from docs.generate_manifest import SCHEMA, manifest_schema
from onnx import TensorProto, helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.bundle_names import MANIFEST_NAME
from eightfold.runtime.bundle.manifest import Metric, Step, Task
from tests.hostile_manifests import ACCEPTED


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("documented")
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["out"])], "g", shape[:1], shape[1:])
    onnx.save(helper.make_model(graph), str(folder / "net.onnx"))
    metric = Metric(name="top1", value=0.9, data="digest", images=10)
    steps = [Step(name="simplify", tool="onnxsim", max_abs_error=1e-6, max_rel_error=float("inf"), cosine=1.0)]
    artifact = onnx_artifact(
        folder / "net.onnx", id="net", inside="onnx/net.onnx", variant="v", metrics=[metric], steps=steps
    )
    bundle = write_bundle(
        folder / "bundle",
        name="documented",
        task=Task(kind="classify", decode="classify", labels=("a", "b"), options={"top": 1}),
        preprocess=Preprocess(height=8, width=8),
        artifacts=[artifact],
        files={"onnx/net.onnx": folder / "net.onnx"},
    )
    return (bundle / MANIFEST_NAME).read_text()


def validate(manifest: str) -> None:
    """The oracle: another implementation of JSON Schema, with the file that is published."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(manifest), schema)


def test_the_published_schema_is_the_codes() -> None:
    assert SCHEMA.read_text() == manifest_schema(), "run: make docs"


def test_the_schema_fixes_kind_and_number() -> None:
    schema = json.loads(manifest_schema())
    assert schema["properties"]["kind"] == {"const": "bundle manifest"}
    assert {"kind", "schema", "name", "files"} <= set(schema["required"])


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_readers_take_is_what_the_schema_allows(manifest: str, name: str) -> None:
    validate(ACCEPTED[name](manifest).decode())


@pytest.mark.parametrize("change", ['"schema": 2', '"schema": "1"', '"schema": 1, "more": 1'])
def test_the_schema_refuses(manifest: str, change: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest.replace('"schema": 1', change))


@pytest.mark.slow
def test_the_manifest_of_a_whole_run_is_what_the_schema_allows(tiny_run: Path) -> None:
    validate((tiny_run / "bundle" / MANIFEST_NAME).read_text())
