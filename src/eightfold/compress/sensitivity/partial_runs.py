"""Forward passes after a change of some weights: only operators that depend on these weights run again.

A recorded pass keeps the results of its operators. When the pass is repeated, an operator whose arguments are the
recorded ones gives its recorded result, whatever Python code called it. Results that no later pass can ask for are
released, so that about one map for each layer stays in memory. A network that changes what it has already read, or
that takes another path, is run as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

COMPARED_AT_MOST = 1 << 16  # values, of constants that are made anew in each pass
RELEASED_AT_LEAST = 1 << 18  # bytes; sizes and indices may be read by other means than operators


@dataclass
class _Call:
    """An operator that ran: its arguments, its result, and for one that works in place the value before."""

    func: Any
    leaves: list[Any]
    output: Any
    versions: list[int]
    mutated: Tensor | None = None
    before: Tensor | None = None

    @cached_property
    def views(self) -> bool:
        """True if the output shares memory with an argument that it does not work on in place."""
        if self.mutated is not None:
            return False
        read = {_storage(tensor) for tensor in self.tensors()}
        return any(_storage(tensor) in read for tensor in _tensors_of(self.output))

    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above


class _Record(_Mode):  # type: ignore[no-untyped-call]  # as above
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, _ = tree_flatten((args, kwargs or {}))
        mutated = _mutated(func, args)
        before = mutated.clone() if mutated is not None else None
        versions = [leaf._version if isinstance(leaf, Tensor) else 0 for leaf in leaves]
        output = func(*args, **(kwargs or {}))
        self.calls.append(_Call(func, leaves, output, versions, mutated, before))
        return output


def _mutated(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    return args[0] if func._schema.is_mutable and args and isinstance(args[0], Tensor) else None


class _Replay(_Mode):  # type: ignore[no-untyped-call]  # as above
    def __init__(self, calls: Sequence[_Call], changed: Collection[int]) -> None:
        super().__init__()
        self._calls, self._changed, self._next = calls, set(changed), 0
        self._held: list[Any] = []  # so that no id is given to another tensor meanwhile
        self._views: dict[int, Tensor] = {}  # recorded views, by the ids of what stands for them in this pass
        self.restored: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, _ = tree_flatten((args, kwargs or {}))
        call = self._calls[self._next] if self._next < len(self._calls) else None
        self._next += 1
        if call is None or call.func is not func or len(leaves) != len(call.leaves):
            raise _OtherPathError
        if all(self._same(mine, theirs) for mine, theirs in zip(leaves, call.leaves, strict=True)):
            return tree_map(self._view, call.output) if call.views else call.output
        if any(isinstance(leaf, Tensor) and _is_empty(leaf) for leaf in leaves):
            raise _OtherPathError
        mutated = _mutated(func, args)
        if mutated is not None and mutated is call.mutated and id(mutated) not in self._changed:
            assert call.before is not None, "the recorded call works in place"
            self.restored.append((mutated, mutated.clone()))
            mutated.copy_(call.before)
            self._changed.add(id(mutated))
        output = func(*args, **(kwargs or {}))
        self._held.append(output)
        return output

    def _view(self, recorded: Any) -> Any:
        """The same values as a new tensor: torch refuses to make one tensor a view twice."""
        if not isinstance(recorded, Tensor):
            return recorded
        view = recorded.detach()
        self._held.append(view)
        self._views[id(view)] = recorded
        return view

    def restore(self) -> None:
        """Give recorded results back the values that in-place operators of this pass took from them."""
        for tensor, value in reversed(self.restored):
            tensor.copy_(value)

    def _same(self, mine: Any, theirs: Any) -> bool:
        if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
            return type(mine) is type(theirs) and bool(mine == theirs)
        if self._views.get(id(mine), mine) is theirs:
            return id(theirs) not in self._changed
        alike = mine.shape == theirs.shape and mine.dtype == theirs.dtype and mine.numel() <= COMPARED_AT_MOST
        if not alike or _is_empty(mine) or _is_empty(theirs) or _storage(mine) == _storage(theirs):
            return False  # of one storage: a view of what has changed
        return torch.equal(mine, theirs)


class _OtherPathError(Exception):
    """The network runs other operators than those recorded."""


@dataclass
class Recording:
    """A recorded pass of `model(*args)`.

    Args:
        model: in evaluation mode.
        changes: each a set of ids of parameters and buffers that change together between passes.

    Attributes:
        output: of the network as it was when recorded.
        whole: True where every pass runs all operators.
    """

    model: nn.Module
    args: tuple[Any, ...]
    changes: Sequence[Collection[int]]
    output: Any = field(init=False)
    whole: bool = field(init=False, default=False)
    kept_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        record = _Record()
        with torch.no_grad(), record:
            self.output = self.model(*self.args)
        self._calls = record.calls
        self.whole = any(map(_reads_what_changes, self._calls)) or any(map(_changes_part, self._calls))
        if self.whole:
            self._calls = []
        else:
            self._release()

    def run(self, changed: Collection[int]) -> Any:
        """The output now that the tensors with these ids hold other values."""
        if not self.whole:
            replay = _Replay(self._calls, changed)
            try:
                with torch.no_grad(), replay:
                    output = self.model(*self.args)
                return tree_map(_copied, output) if replay.restored else output
            except _OtherPathError:
                self.whole, self._calls = True, []
            finally:
                with torch.no_grad():
                    replay.restore()
        with torch.no_grad():
            return self.model(*self.args)

    def _release(self) -> None:
        """Keep the storages that some change makes an operator read again; empty the others."""
        depends: dict[int, int] = {}
        for number, ids in enumerate(self.changes):
            for each in ids:
                depends[each] = depends.get(each, 0) | 1 << number
        needed = {_storage(t) for t in _tensors_of(self.output)}
        own = {_storage(t) for t in (*self.model.parameters(), *self.model.buffers(), *_tensors_of(self.args))}
        made = {id(t) for call in self._calls for t in _tensors_of(call.output)}
        own |= {_storage(t) for call in self._calls for t in call.tensors() if id(t) not in made}
        for call in self._calls:
            mask = 0
            for tensor in call.tensors():
                mask |= depends.get(id(tensor), 0)
            for tensor in call.tensors():
                if mask & ~depends.get(id(tensor), 0):
                    needed.add(_storage(tensor))
            if call.mutated is not None:
                call.before = call.before if mask & ~depends.get(id(call.mutated), 0) else None
                depends[id(call.mutated)] = mask
            depends.update((id(tensor), mask) for tensor in _tensors_of(call.output))
        storages = {_storage(t): t.untyped_storage() for call in self._calls for t in _tensors_of(call.output)}
        for key, storage in storages.items():
            if key not in needed | own and storage.nbytes() >= RELEASED_AT_LEAST:
                storage.resize_(0)
        self.kept_bytes = sum(storage.nbytes() for key, storage in storages.items() if key not in own)


def _reads_what_changes(call: _Call) -> bool:
    """A value that an operator read was changed in place later: the recorded tensor no longer holds it."""
    return call.mutated is None and any(
        leaf._version != version
        for leaf, version in zip(call.leaves, call.versions, strict=True)
        if isinstance(leaf, Tensor)
    )


def _changes_part(call: _Call) -> bool:
    """An operator works in place on a part of a tensor, or on several."""
    if not call.func._schema.is_mutable:
        return False
    return call.mutated is None or call.mutated._is_view()


def _is_empty(tensor: Tensor) -> bool:
    """True if the values were released."""
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _tensors_of(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
