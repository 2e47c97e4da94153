"""Kinds of field cases: one generator each, found by `benchmarks/field_cases.py`.

A kind is a function that yields cases, registered under a name and the entry of the list of faults that it covers:

    @kind("generated names", entry="8")
    def cases(random: Random) -> Iterator[Case]:
        yield Case("conv1_scale beside conv1", lambda folder: ...)

A module of this folder holds kinds of one area; whatever lies here is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from random import Random
from typing import Literal

Expected = Literal["right", "refused", "either"]
"""What a case may come to: a right result, one line that refuses it, or one of both."""


class WrongResult(Exception):
    """A result that differs from what an oracle gives."""


@dataclass(frozen=True)
class Case:
    """One input and what is done with it.

    Args:
        name: says what is special about it.
        run: does it in an empty folder; returns when the result is right, raises WrongResult when it is not.
        expected: "right" where a refusal would be wrong, "refused" where a result would be.
        words: what a refusal has to say, where that matters.
    """

    name: str
    run: Callable[[Path], None]
    expected: Expected = "right"
    words: str = ""


Generator = Callable[[Random], Iterator[Case]]


@dataclass(frozen=True)
class Kind:
    """Cases of one kind, and the entry of the list of field faults that they belong to."""

    name: str
    entry: str
    cases: Generator


KINDS: dict[str, Kind] = {}


def kind(name: str, *, entry: str) -> Callable[[Generator], Generator]:
    """Register a generator of cases."""

    def register(generator: Generator) -> Generator:
        if name in KINDS:
            raise ValueError(f"two kinds are called {name!r}")
        KINDS[name] = Kind(name, entry, generator)
        return generator

    return register


def require(condition: bool, seen: str) -> None:
    """Raise WrongResult unless `condition` holds."""
    if not condition:
        raise WrongResult(seen)


def load_kinds() -> dict[str, Kind]:
    """All kinds, by name, in the order of the modules that hold them."""
    for module in sorted(each.name for each in iter_modules(__path__)):
        import_module(f"{__name__}.{module}")
    return KINDS
