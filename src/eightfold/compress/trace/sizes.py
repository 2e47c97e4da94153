"""Integers that a module keeps beside its tensors and reads as widths: found by value, updated with the channels.

Layers of torch itself (and their sub-classes) are not concerned as long as they hold tensors: surgery updates them by
their type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from eightfold.compress.trace.components import Grouping
from eightfold.compress.trace.groups import SizeLink
from eightfold.compress.trace.rules.base import RawSize, Record
from eightfold.compress.trace.spans import runs

# Parts of names of integers that never count channels, though they may equal a width.
_NO_WIDTH = ("kernel", "stride", "pad", "dilat", "reso", "window", "size", "index", "level", "num_layers")
# What `sync_sizes` sets on torch's own layers.
_SYNCED = frozenset(
    ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels",
     "num_groups", "num_parameters", "num_embeddings", "embedding_dim", "normalized_shape")
)  # fmt: skip
_TORCH_LAYERS = (
    nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU,
    nn.Embedding,
)  # fmt: skip


def links(model: nn.Module, record: Record, grouping: Grouping) -> tuple[SizeLink, ...]:
    """Attributes that equal a size argument made of channels, in the module that passed it."""
    found: dict[tuple[str, str], SizeLink] = {}
    for size, name in (*_by_dimension(model, record), *_by_value(model, record)):
        placed = runs(grouping.places(size.labels))
        parts = tuple((grouping.groups[group].id, spans) for group, spans in placed if group >= 0)
        found.setdefault((size.module, name), SizeLink(size.module, name, size.value, parts))
    return tuple(found.values())


def _by_value(model: nn.Module, record: Record) -> Iterator[tuple[RawSize, str]]:
    for size in record.sizes:
        names = integers_of(model, size.module, size.value)
        exact = _dimension_list(model, size.module)
        for name in names if size.position is None else _at(names, size.position):
            if not exact or not name.startswith(f"{exact}["):
                yield size, name


def _by_dimension(model: nn.Module, record: Record) -> Iterator[tuple[RawSize, str]]:
    """Entries of lists that modules declare as the sizes of their result's dimensions."""
    for size in record.dimensions:
        name = f"{_dimension_list(model, size.module)}[{size.position}]"
        if not name.startswith("[") and get_size(model.get_submodule(size.module), name) == size.value:
            yield size, name


def _dimension_list(model: nn.Module, path: str) -> str:
    return str(getattr(model.get_submodule(path), "sizes_by_dimension", ""))


def integers_of(model: nn.Module, path: str, value: int) -> list[str]:
    """Names of the attributes of the module at `path` that hold the integer `value` and may be widths.

    An entry of a list or tuple is named like `splits[0]`.
    """
    module = model.get_submodule(path)
    if type(module).__module__.startswith("torch.nn") and not _bare_norm(module):
        return []
    synced = _SYNCED if isinstance(module, _TORCH_LAYERS) and not _bare_norm(module) else frozenset()
    names = [name for name, held in _integers(module) if held == value and name.partition("[")[0] not in synced]
    return [name for name in names if not any(part in name for part in _NO_WIDTH) or _is_width(name)]


def _is_width(name: str) -> bool:
    """`hidden_size` and `embed_size` count channels, as `window_size` does not."""
    return name.endswith("size") and any(part in name for part in ("hidden", "embed", "channel", "feature"))


def _at(names: list[str], position: int) -> list[str]:
    """Without the entries of lists that stand at another position."""
    return [name for name in names if not name.endswith("]") or name.endswith(f"[{position}]")]


def _bare_norm(module: nn.Module) -> bool:
    """A norm without tensors: only its integers give its width."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(module, norms) and not any(True for _ in (*module.parameters(), *module.buffers()))


def _integers(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, held in vars(module).items():
        if type(held) is int:
            yield name, held
        elif isinstance(held, (list, tuple)) and not name.startswith("_"):
            yield from ((f"{name}[{i}]", entry) for i, entry in enumerate(held) if type(entry) is int)


def get_size(module: nn.Module, attribute: str) -> Any:
    """The value that `attribute` ("groups", "splits[0]") names, None when it is absent."""
    name, index = _parse(attribute)
    held = getattr(module, name, None)
    if index is None:
        return held
    return held[index] if isinstance(held, (list, tuple)) and index < len(held) else None


def set_size(module: nn.Module, attribute: str, value: int) -> None:
    """Set a size attribute of a module, or one entry of a tuple ("name[0]")."""
    name, index = _parse(attribute)
    if index is not None:
        entries = list(getattr(module, name))
        entries[index] = value
        setattr(module, name, type(getattr(module, name))(entries))
    else:
        setattr(module, name, value)


def _parse(attribute: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)\[(\d+)\]", attribute)
    return (match[1], int(match[2])) if match else (attribute, None)
