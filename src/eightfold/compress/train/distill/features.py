"""Feature pairs: modules of student and teacher whose outputs are compared, found by running both.

Names pair modules, so that pairs survive pruning: widths may differ, and blocks may be missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.types import Args
from eightfold.errors import ModelError, UnknownNameError
from eightfold.export.verify.module_runs import evaluating

Shapes = dict[str, tuple[int, ...]]


@contextlib.contextmanager
def recorded(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that forward passes inside fill: name of a module -> its output. Raises UnknownNameError."""
    modules, found = dict(model.named_modules()), dict[str, Tensor]()
    for name in names:
        if name not in modules:
            raise UnknownNameError.of("module", name, modules)

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.pop(name, None)  # so that the order is that of the last call
                found[name] = output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def map_shapes(model: nn.Module, args: Args) -> Shapes:
    """Shapes [batch, channels, height, width] of modules that give maps, in the order in which they end."""
    names = [name for name, _ in model.named_modules() if name]
    with evaluating(model), torch.no_grad(), recorded(model, names) as found:
        model(*args)
    return {name: tuple(output.shape) for name, output in found.items() if output.dim() == 4}


def feature_pairs(student: Shapes, teacher: Shapes) -> dict[str, str]:
    """For each map size, the last module that both networks have: student's name -> teacher's name.

    Raises:
        ModelError: no module gives a map of the same size in both.
    """
    last: dict[tuple[int, ...], str] = {}
    for name, shape in student.items():
        if teacher.get(name, ())[2:] == shape[2:] and min(shape[2:]) > 1:
            last[shape[2:]] = name
    if not last:
        raise ModelError(
            "student and teacher share no module that gives maps of one size",
            allowed="networks with modules of the same names, as pruning leaves them",
            remedy="name the pairs: student's module=teacher's module",
        )
    return {name: name for name in last.values()}


def require_pairs(pairs: Mapping[str, str], student: Shapes, teacher: Shapes) -> None:
    """Raises UnknownNameError or ModelError where a pair gives no maps of one size."""
    for own, theirs in pairs.items():
        for name, shapes in ((own, student), (theirs, teacher)):
            if name not in shapes:
                raise UnknownNameError.of("module that gives maps", name, shapes)
        if student[own][2:] != teacher[theirs][2:]:
            raise ModelError(
                f"the pair {own}={theirs} has maps of {student[own][2:]} and {teacher[theirs][2:]}",
                allowed="modules with maps of one size",
            )
