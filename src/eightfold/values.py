"""The base of the values that pass between stages: frozen, with a JSON form, a schema number and a digest.

A value needs no torch, no device and no file to be made, printed, compared or tested.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from eightfold.errors import EightfoldError
from eightfold.files import PathLike, sha256_of_bytes, write_text

# A list of nothing but numbers, as json indents it. JSON's strings hold no line breaks, so none of them matches.
_NUMBERS = re.compile(r"\[\n\s+([-+.\deE]+(?:,\n\s+[-+.\deE]+)*)\n\s*\]")


class Frozen(BaseModel):
    """A part of a value: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Value(Frozen):
    """A value with an identity of its own. Sub-classes set `kind`, `schema_number` and `error`."""

    kind: ClassVar[str]
    schema_number: ClassVar[int] = 1
    error: ClassVar[type[EightfoldError]] = EightfoldError

    @model_serializer(mode="wrap")
    def _with_schema(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, "schema": self.schema_number, **handler(self)}

    @model_validator(mode="before")
    @classmethod
    def _check_schema(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        kind, number = data.pop("kind", cls.kind), data.pop("schema", cls.schema_number)
        if kind != cls.kind:
            raise cls.error(f"this JSON holds a {kind!r}", allowed=cls.kind, remedy="pass the right file")
        if number != cls.schema_number:
            raise cls.error(
                f"{cls.kind} has schema {number}",
                allowed=f"schema {cls.schema_number}",
                remedy="read it with the eightfold version that wrote it",
            )
        return data

    def to_json(self) -> str:
        """Indented JSON with sorted keys, numbers in a row on one line; the same value always gives the same text."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hex digits."""
        data = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256_of_bytes(data.encode())

    def save(self, path: PathLike) -> Path:
        write_text(path, self.to_json())
        return Path(path)

    @classmethod
    def from_json(cls, text: str, *, source: str = "JSON") -> Self:
        """Parse and validate. Raises `cls.error`, naming `source` and the first key at fault."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # not JSON, or numbers and nesting beyond what Python takes
            raise cls.error(
                f"{source} is not JSON ({error})", allowed=f"a {cls.kind}", remedy="make it again"
            ) from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise cls.error(
                f"{source}: {first_fault(error)}", allowed=f"a valid {cls.kind}", remedy="make it again"
            ) from None

    @classmethod
    def load(cls, path: PathLike) -> Self:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise cls.error(f"cannot read {path} ({error})", allowed=f"a {cls.kind} file") from None
        return cls.from_json(text, source=str(path))

    def describe(self) -> str:
        """A few lines for a person."""
        raise NotImplementedError


def first_fault(error: ValidationError) -> str:
    """The first key at fault and what is wrong with it, on one line."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "value"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place}"
    if fault["type"] == "missing":
        return f"missing key {place}"
    return f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]} (seen {fault['input']!r:.60})"
