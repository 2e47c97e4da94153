from __future__ import annotations

import json

from docs.generate_manifest import SCHEMA, manifest_schema


def test_the_published_schema_is_the_codes() -> None:
    assert SCHEMA.read_text() == manifest_schema(), "run: make docs"


def test_the_schema_fixes_kind_and_number() -> None:
    schema = json.loads(manifest_schema())
    assert schema["properties"]["kind"] == {"const": "bundle manifest"}
    assert {"kind", "schema", "name", "files"} <= set(schema["required"])
