"""Writes manifest.schema.json, the JSON schema of a bundle's manifest, from the code. `make docs` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Manifest
from eightfold.values import Value

SCHEMA = Path(__file__).parent / "manifest.schema.json"


def manifest_schema() -> str:
    """The schema as indented JSON, `kind` and `schema` included, which every value carries and a manifest must."""
    schema = Manifest.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"] = {**_fixed(Manifest), **schema["properties"]}
    inner = schema["$defs"]["Preprocess"]
    inner["properties"] = {**_fixed(Preprocess), **inner["properties"]}
    schema["required"] = ["kind", "schema", *schema["required"]]
    return json.dumps(schema, indent=1) + "\n"


def _fixed(value: type[Value]) -> dict[str, Any]:
    return {"kind": {"const": value.kind}, "schema": {"const": value.schema_number}}


if __name__ == "__main__":
    SCHEMA.write_text(manifest_schema())
