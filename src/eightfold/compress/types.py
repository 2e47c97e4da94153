"""Type aliases for the inputs of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

Args: TypeAlias = tuple[Any, ...]
"""Positional arguments of one call."""
Kwargs: TypeAlias = Mapping[str, Any]
"""Keyword arguments of one call."""
Batches: TypeAlias = Sequence[Args]
"""Positional arguments of one call per batch."""
Loss: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs, target) -> scalar."""
Metric: TypeAlias = Callable[[nn.Module], float]
"""A network -> its metric, larger is better."""
ExampleInputs: TypeAlias = Tensor | Args | Kwargs | list[Any]
"""A tensor, a tuple of arguments, a dictionary of keywords, or a list: one argument, or several calls in order."""
ImageBatches: TypeAlias = Tensor | Iterable[Any]
"""One tensor [n, ...], or one call per item: a tensor, a tuple of arguments, or a list as one argument."""
