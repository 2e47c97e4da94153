"""A network's weights among others: trainers keep losses, metrics and a teacher in the state dict of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# As many names of what is left out are shown.
SHOWN = 3


@dataclass(frozen=True)
class Part:
    """The tensors of a network within a larger state dict.

    Attributes:
        prefix: before their names; "" where there is none.
        names: name in the network -> name in the file.
        left_out: names in the file that belong to something else.
    """

    prefix: str
    names: Mapping[str, str]
    left_out: tuple[str, ...]

    def describe(self) -> str:
        """The tensors that were left out, in a few words."""
        shown = ", ".join(self.left_out[:SHOWN]) + (", ..." if len(self.left_out) > SHOWN else "")
        many = f"{len(self.left_out)} tensors that the network does not have"
        return f"left out {many if len(self.left_out) > 1 else 'a tensor that the network does not have'}: {shown}"


def parts_of(
    names: Mapping[str, str],
    need: Mapping[str, object],
    same: Callable[[str, str], bool],
    counts: Callable[[str], bool],
) -> Iterator[Part]:
    """Every place in a state dict where all tensors of a network lie, in the order of the file.

    A tensor that is left out belongs to something else: it lies outside of the network's prefix, or its first name is
    none of the network's own. The weights of a deeper network are thus none of a shallow one.

    Args:
        names: name, without wrappers -> name in the file.
        need: the tensors of the network, by name.
        same: whether a tensor of the network fits one of the file.
        counts: whether a name is that of a counter, which a file may lack.
    """
    wanted = [name for name in need if not counts(name)]
    if not wanted:
        return
    own = {name.partition(".")[0] for name in need}
    ends = [name for name in names if name == wanted[0] or name.endswith(f".{wanted[0]}")]
    for prefix in dict.fromkeys(name.removesuffix(wanted[0]) for name in ends):
        found = {name: names[f"{prefix}{name}"] for name in need if f"{prefix}{name}" in names}
        if not all(name in found and same(name, found[name]) for name in wanted):
            continue
        placed = {f"{prefix}{name}" for name in found}
        rest = [name for name in names if name not in placed]
        beside = (name.removeprefix(prefix) for name in rest if name.startswith(prefix) and not counts(name))
        if not any(_is_own(name, own) for name in beside):
            yield Part(prefix, found, tuple(names[name] for name in rest))


def _is_own(name: str, own: set[str]) -> bool:
    """True if a name may be that of a further layer of the network: layers in a row have numbers."""
    first = name.partition(".")[0]
    return first in own or (first.isdigit() and any(each.isdigit() for each in own))
