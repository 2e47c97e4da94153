"""Writes manifest.schema.json, the JSON schema of a bundle's manifest, from the code. `make docs` runs it."""

from __future__ import annotations

import json
from pathlib import Path

from eightfold.runtime.manifest import Manifest

SCHEMA = Path(__file__).parent / "manifest.schema.json"


def manifest_schema() -> str:
    """The schema as indented JSON, `kind` and `schema` included, which every value carries."""
    schema = Manifest.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    fixed = {"kind": {"const": Manifest.kind}, "schema": {"const": Manifest.schema_number}}
    schema["properties"] = {**fixed, **schema["properties"]}
    schema["required"] = [*fixed, *schema["required"]]
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(manifest_schema())
