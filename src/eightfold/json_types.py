"""Type aliases for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

JsonDict: TypeAlias = dict[str, Any]
"""An object of JSON."""
Json: TypeAlias = JsonDict | list[Any] | str | float | bool | None
"""A value of JSON."""
JsonMapping: TypeAlias = Mapping[str, Any]
"""An object of JSON that is not changed."""
