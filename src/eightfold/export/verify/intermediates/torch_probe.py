"""The inner tensors of a torch module: every ATen call is seen while the module runs, and layers give their names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from eightfold.arrays import Array, Arrays
from eightfold.export.verify.intermediates.probe import Intermediate, Intermediates, See
from eightfold.export.verify.module_runs import evaluating, output_tensors, run_module
from eightfold.extras import require

if TYPE_CHECKING:
    import torch

MARK = "_eightfold_place"
# Calls that move values, beside those that make views.
MOVES = frozenset({"clone", "copy_", "_to_copy", "_unsafe_view", "contiguous"})


@dataclasses.dataclass(frozen=True, eq=False)
class TorchProbe:
    """A module that takes tensors of images, in the order of its inputs."""

    module: torch.nn.Module

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        torch = require("torch", "run the torch module")
        device = next((parameter.device for parameter in self.module.parameters()), "cpu")
        examples = [torch.from_numpy(array).to(device) for array in inputs.values()]
        for example in examples:
            setattr(example, MARK, -1)
        book = _Book(see, wanted)
        with evaluating(self.module), book.names(self.module), _dispatching(book):
            output = run_module(self.module, *examples)
        places = [getattr(tensor, MARK, -1) for _, tensor in output_tensors(output)]
        return Intermediates(tuple(book.tensors), tuple(place for place in places if place >= 0))


class _Book:
    """Writes down what each call makes. A tensor carries its place as an attribute; -1 is an input of the network."""

    def __init__(self, see: See, wanted: Collection[int] | None) -> None:
        self.tensors: list[Intermediate] = []
        self._see, self._wanted = see, wanted
        self._path: list[str] = []
        self._calls: dict[str, int] = {}

    def note(self, func: Any, sources: Collection[int], made: Any) -> None:
        op = str(func.overloadpacket.__name__)
        moves = op in MOVES or any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if not hasattr(tensor, "is_floating_point"):
                continue
            self._add(tensor, op, sources, moves)
            if func._schema.is_mutable and tensor._base is not None:  # the whole changes with its part
                self._add(tensor._base, op, {*sources, *_places([tensor._base])}, moves)

    def _add(self, tensor: torch.Tensor, op: str, sources: Collection[int], moves: bool) -> None:
        place, path = len(self.tensors), self._path[-1] if self._path else ""
        known = tuple(sorted(source for source in sources if source >= 0))
        self.tensors.append(Intermediate(self._numbered(f"{path}:{op.rstrip('_')}" if path else op), op, known, moves))
        setattr(tensor, MARK, place)
        if tensor.is_floating_point() and (self._wanted is None or place in self._wanted):
            self._see(place, _array_of(tensor))

    def _numbered(self, name: str) -> str:
        """Names of what happens several times get a number from the second time on."""
        self._calls[name] = self._calls.get(name, 0) + 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"

    def _rename(self, place: int, name: str) -> None:
        self.tensors[place] = dataclasses.replace(self.tensors[place], name=name)

    def _behind_moves(self, place: int, start: int) -> int:
        """The computed tensor behind reshapes at a layer's end; not before `start`."""
        tensor = self.tensors[place]
        while tensor.moves and len(tensor.sources) == 1 and tensor.sources[0] >= start:
            (place,) = tensor.sources
            tensor = self.tensors[place]
        return place

    @contextlib.contextmanager
    def names(self, module: torch.nn.Module) -> Iterator[None]:
        """While it runs, each of its layers names what is made in it; what a leaf returns bears its name alone."""
        handles = []
        for path, part in module.named_modules():
            entered: list[int] = []
            handles.append(part.register_forward_pre_hook(self._enter(path, entered)))
            handles.append(
                part.register_forward_hook(self._leave(path, entered, leaf=not any(True for _ in part.children())))
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, entered: list[int]) -> Any:
        def enter(*_: Any) -> None:
            self._path.append(path)
            entered.append(len(self.tensors))

        return enter

    def _leave(self, path: str, entered: list[int], *, leaf: bool) -> Any:
        def leave(_module: Any, _inputs: Any, output: Any) -> None:
            self._path.pop()
            start = entered.pop()
            returned = [place for place in _places(tensor for _, tensor in output_tensors(output)) if place >= start]
            if leaf and path and returned:
                name = self._numbered(path)
                for count, place in enumerate(returned):
                    self._rename(self._behind_moves(place, start), name if len(returned) == 1 else f"{name}.{count}")

        return leave


def _fills_anew(func: Any) -> bool:
    """True if a call makes a tensor shaped like another: it depends on that one's size alone."""
    name = str(func.overloadpacket.__name__)
    return name.startswith("new_") or name.endswith("_like")


def _places(tensors: Any) -> list[int]:
    return [getattr(tensor, MARK) for tensor in tensors if hasattr(tensor, MARK)]


def _array_of(tensor: torch.Tensor) -> Array:
    import torch

    plain = tensor.detach().cpu()
    array: Array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


@contextlib.contextmanager
def _dispatching(book: _Book) -> Iterator[None]:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            sources = set() if _fills_anew(func) else set(_places(tree_leaves((args, kwargs or {}))))
            made = func(*args, **(kwargs or {}))
            if sources:
                book.note(func, sources, made)
            return made

    with Watching():  # type: ignore[no-untyped-call]  # as above
        yield
