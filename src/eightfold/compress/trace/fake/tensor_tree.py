"""The tensors in the arguments or results of an operator, which are at most lists and dictionaries of them.

Every operator of a trace is asked several times; torch's general tree functions take ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def tensors_in(values: Iterable[object]) -> list[Tensor]:
    """The tensors among `values`, and those inside of lists, tuples and dictionaries, in order."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
        elif isinstance(value, dict):
            found += tensors_in(value.values())
    return found
