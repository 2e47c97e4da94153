"""Type aliases for arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of any shape and type."""
Arrays: TypeAlias = Mapping[str, Array]
"""Arrays by name, such as the inputs of a network."""
