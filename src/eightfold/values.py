"""The base of the values that pass between stages: frozen, with a JSON form, a schema number and a digest.

A value needs no torch, no device and no file to be made, printed, compared or tested.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from eightfold.errors import EightfoldError, UsageError, why_unread
from eightfold.files import PathLike, sha256_of_bytes, write_text

# A list of nothing but numbers, as json indents it. JSON's strings hold no line breaks, so none of them matches.
_NUMBERS = re.compile(r"\[\n\s+([-+.\deE]+(?:,\n\s+[-+.\deE]+)*)\n\s*\]")


def _lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return {key: _lists(item) for key, item in value.items()} if isinstance(value, dict) else value


# What is not looked into: any object of JSON, with lists as JSON has them.
JsonObject = Annotated[dict[str, Any], BeforeValidator(_lists)]


if TYPE_CHECKING:  # it has no public name, and the expression below is no type to a checker
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _ErrorsInOneLine(ModelMetaclass):
    """Turns pydantic's page of text into one line where a value is constructed by a call; `model_validate` keeps it."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise UsageError(
                f"{cls.__name__}: {first_fault(error)}", remedy=f"see help(eightfold.{cls.__name__})"
            ) from error


class Frozen(BaseModel, metaclass=_ErrorsInOneLine):
    """A part of a value: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Value(Frozen):
    """A value with an identity of its own. Sub-classes set `kind`, `schema_number` and `error`."""

    kind: ClassVar[str]
    schema_number: ClassVar[int] = 1
    error: ClassVar[type[EightfoldError]] = EightfoldError
    # True: JSON must state kind and schema, and "1" and 1.0 are no whole numbers, as for readers in other languages.
    strict_json: ClassVar[bool | None] = None
    # Keys that came later and are left out while they are empty, so that digests of older values stay.
    omitted_when_empty: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _with_schema(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = {key: value for key, value in handler(self).items() if value or key not in self.omitted_when_empty}
        return {"kind": self.kind, "schema": self.schema_number, **content}

    @model_validator(mode="before")
    @classmethod
    def _check_schema(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        kind, number = data.pop("kind", cls.kind), data.pop("schema", cls.schema_number)
        if kind != cls.kind:
            raise cls.error(f"this JSON holds a {kind!r}", allowed=cls.kind, remedy="pass the right file")
        if type(number) is not int or number != cls.schema_number:
            raise cls.error(
                f"{cls.kind} has schema {number!r:.40}",
                allowed=f"schema {cls.schema_number}",
                remedy=f"read it with {cls._writer(data)}",
            )
        return data

    @classmethod
    def _writer(cls, data: dict[str, Any]) -> str:
        """Versions that can read `data`, which has an unknown schema."""
        return "the eightfold version that wrote it"

    def to_json(self) -> str:
        """Indented JSON with sorted keys, numbers in a row on one line; the same value always gives the same text."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hex digits."""
        data = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256_of_bytes(data.encode())

    def save(self, path: PathLike) -> Path:
        """Write the JSON form to `path` atomically; returns it."""
        write_text(path, self.to_json())
        return Path(path)

    @classmethod
    def from_json(cls, text: str, *, source: str = "JSON") -> Self:
        """Parse and validate. Raises `cls.error`, naming `source` and the first key at fault.

        What two readers of JSON could take differently is refused: a key twice, NaN, numbers beyond a double.
        """
        try:
            data = json.loads(
                text, object_pairs_hook=_once_each, parse_constant=_finite, parse_float=_finite, parse_int=_whole
            )
        except (ValueError, RecursionError) as error:  # not JSON, or numbers and nesting beyond what Python takes
            raise cls.error(
                f"{source} is not JSON ({error})", allowed=f"a {cls.kind} file", remedy="make it again"
            ) from None
        if cls.strict_json and isinstance(data, dict) and not {"kind", "schema"} <= data.keys():
            raise cls.error(
                f"{source} does not say its kind and schema", allowed=f"a {cls.kind} file", remedy="make it again"
            )
        try:
            return cls.model_validate(data, strict=cls.strict_json)
        except ValidationError as error:
            raise cls.error(
                f"{source}: {first_fault(error)}", allowed=f"a valid {cls.kind}", remedy="make it again"
            ) from None
        except EightfoldError as error:  # of the schema of this value, or of one within it
            raise cls.error(f"{source}: {error.seen}", allowed=error.allowed, remedy=error.remedy) from None

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read the JSON form from `path`. Raises the class's own error."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise cls.error(f"cannot read {path} ({why_unread(error)})", allowed=f"a {cls.kind} file") from None
        return cls.from_json(text, source=str(path))

    def describe(self) -> str:
        """A few lines for a person."""
        raise NotImplementedError


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose lists become tuples, as strict validation wants them."""
    found = {_text(key): _immutable(value) for key, value in pairs}
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _immutable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_immutable(item) for item in value)
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    text.encode()  # half a surrogate pair, which only Python takes for a character, is a UnicodeEncodeError
    return text


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number:.20} is not a finite number")
    return value


def _whole(number: str) -> int:
    _finite(number)  # other readers keep them as doubles
    return int(number)


def first_fault(error: ValidationError) -> str:
    """The first key at fault and what is wrong with it, on one line."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "value"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place}"
    if fault["type"] == "missing":
        return f"missing key {place}"
    own = fault.get("ctx", {}).get("error")  # what a validator raised, without pydantic's words in front
    said = str(own) if isinstance(own, ValueError | AssertionError) else f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
    return f"{place}: {said} (seen {fault['input']!r:.60})"
