"""Weights files: reads tensors without unpickling code, and fits their names to a module.

Checkpoints of training frameworks differ from a plain state dict in wrappers around names (`module.`, `_orig_mod.`),
in dictionaries around dictionaries, and in a second, averaged copy (EMA). All of that is told by names alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from eightfold.errors import ModelError
from eightfold.extras import require
from eightfold.files import PathLike, refuse_lfs_pointer, require_model_file
from eightfold.zoo.weights_inside import parts_of

if TYPE_CHECKING:
    import torch

WEIGHTS_SUFFIXES = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")

State = Mapping[str, "torch.Tensor"]
Names = Mapping[str, str]  # name in the module -> name in the file

# Components that wrappers put between the names of modules: torch.compile, DataParallel and DDP.
WRAPPERS = ("_orig_mod", "module")
# Averaged weights, which their trainers evaluate: timm, ultralytics, DETR, mmengine, Lightning.
AVERAGED = frozenset({"ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema_weights"})
# Counters of batch norms and of torch.optim.swa_utils: no answer in evaluation mode depends on them.
COUNTERS = ("num_batches_tracked", "n_averaged")
DEEPEST_DICTIONARY = 2  # optimizers keep tensors one level deeper


class WeightsWarning(UserWarning):
    """Names were changed, or one of several sets of weights was chosen, so that a file fits a module."""


def load_weights(model: torch.nn.Module, path: PathLike, *, unused: Sequence[str] = ()) -> None:
    """Load a `.safetensors` file, or a `.pt`/`.pth` checkpoint that needs no unpickling, into `model`.

    The wrappers of torch.compile and DataParallel anywhere in a name, and a prefix that all names share, are removed
    where all names fit then; a WeightsWarning says so. Of several state dicts that fit, the averaged one (EMA) is
    taken. Counters that the file lacks keep their values. Where the file holds more than the network (losses, metrics),
    the rest is left out if every tensor of the network is there; a WeightsWarning names it.

    Args:
        unused: prefixes of tensors that the file may hold and the model has no use for.

    Raises:
        ModelError: no state dict of the file fits; names the first tensor that differs and both shapes. Or a tensor
            holds NaN.
    """
    need = model.state_dict()
    states = {
        where: {name: tensor for name, tensor in state.items() if not name.startswith(tuple(unused))}
        for where, state in _states_in(_read(Path(path)), Path(path)).items()
    }
    fitting = {where: fit for where, state in states.items() if (fit := _fit(state, need)) is not None}
    fitting = fitting or {
        where: fit for where, state in states.items() if (fit := _fit_inside(state, need, path)) is not None
    }
    chosen = [where for where in fitting if AVERAGED.intersection(where.split("."))] or list(fitting)
    if len(chosen) != 1:
        raise _refusal(path, {where: states[where] for where in chosen or states}, need)
    names, note = fitting[chosen[0]]
    choice = f"took {chosen[0]!r} of {', '.join(map(repr, fitting))}" if len(fitting) > 1 else ""
    if choice or note:
        warnings.warn(WeightsWarning(f"{path}: {'; '.join(filter(None, (choice, note)))}"), stacklevel=2)
    state = states[chosen[0]]
    broken = next((names[own] for own in need if own in names and _has_nan(state[names[own]])), None)
    if broken is not None:
        raise ModelError(
            f"{path}: {broken!r} holds NaN", allowed="trained weights", remedy="save them before training diverges"
        )
    model.load_state_dict({own: state[names[own]] if own in names else tensor for own, tensor in need.items()})


def _has_nan(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _refusal(path: PathLike, states: Mapping[str, State], need: State) -> ModelError:
    if len(states) > 1:
        return ModelError(
            f"{path} holds the state dicts {', '.join(states)}",
            allowed="a state dict of tensors, or a checkpoint with one of them",
            remedy="save the one to use: torch.save(checkpoint['NAME'], 'weights.pt')",
        )
    state = next(iter(states.values()))
    closest = max((names for names, _ in _namings(state, need)), key=lambda names: len(need.keys() & names.keys()))
    seen = {own: state[name] for own, name in closest.items()}
    name = next(name for name in [*need, *seen] if not _same(name, seen, need))
    return ModelError(
        f"{path}: {name} is {_shape(seen.get(name))}, the model has {_shape(need.get(name))}",
        remedy="name the model and the number of classes that these weights were trained with",
    )


def _fit(state: State, need: State) -> tuple[Names, str] | None:
    """The module's names for those of the file, and the change that this takes; None where no change makes all fit."""
    for names, note in _namings(state, need):
        seen = {own: state[name] for own, name in names.items()}
        if all(_same(name, seen, need) for name in {**need, **seen}):
            return {own: name for own, name in names.items() if own in need}, note
    return None


def _fit_inside(state: State, need: State, path: PathLike) -> tuple[Names, str] | None:
    """As `_fit`, for a network among other tensors. Raises ModelError where there are several such networks."""
    bare = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in state}
    parts = list(parts_of(bare, need, lambda own, full: need[own].shape == state[full].shape, _counts))
    chosen = [part for part in parts if AVERAGED.intersection(part.prefix.split("."))] or parts
    if len(chosen) > 1:
        raise ModelError(
            f"{path} holds the network {len(chosen)} times, as {' and '.join(repr(part.prefix) for part in chosen)}",
            allowed="one network, or one and its average (EMA)",
            remedy="save the state dict of the one to use: torch.save(module.NAME.state_dict(), 'weights.pt')",
        )
    if not chosen:
        return None
    (part,) = chosen
    cut = f"took what begins with {part.prefix!r}" if part.prefix else ""
    return part.names, _both(cut, part.describe() if part.left_out else "")


def _same(name: str, state: State, need: State) -> bool:
    if name not in state or name not in need:
        return _counts(name)
    return state[name].shape == need[name].shape


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS


def _namings(state: State, need: State) -> Iterator[tuple[Names, str]]:
    """Ways to read a file's names: as they are, without wrappers, without a common prefix, with the module's own."""
    bare = [".".join(part for part in name.split(".") if part not in WRAPPERS) for name in state]
    found = " and ".join(f"'{word}.'" for word in WRAPPERS if any(word in name.split(".") for name in state))
    for new, note in ((list(state), ""), *([(bare, f"removed {found} from the names")] if found else [])):
        yield _names(new, state), note
        for prefix in _prefixes(new):
            cut = [name.removeprefix(prefix) for name in new]
            yield _names(cut, state), _both(note, f"removed the prefix {prefix!r} from the names")
        for prefix in _prefixes(need):
            longer = [f"{prefix}{name}" for name in new]
            yield _names(longer, state), _both(note, f"put {prefix!r} before the names")


def _both(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _names(new: Iterable[str], state: State) -> Names:
    return dict(zip(new, state, strict=True))


def _prefixes(names: Iterable[str]) -> list[str]:
    """The dotted beginnings that all names share, counters excepted, the shortest first."""
    parts = [name.split(".")[:-1] for name in names if not _counts(name)]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return [".".join(shared[: end + 1]) + "." for end in range(len(shared))]


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))


def _read(path: Path) -> object:
    torch = require("torch", "read weights")
    require_model_file(path, "weights file", allowed="a .safetensors or .pt file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty", allowed="a .safetensors or .pt file", remedy="copy it again")
    refuse_lfs_pointer(path)
    if path.suffix == ".weights":
        raise ModelError(
            f"{path} is a file of Darknet",
            allowed="a .safetensors or .pt file",
            remedy=f"name its network with it: darknet:FILE.cfg+{path}",
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    import pickle

    try:
        with warnings.catch_warnings():  # of TorchScript archives, which the line below refuses
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):  # OSError: of an archive that is cut off
        raise ModelError(
            f"{path} is not a plain state dict: it holds more than tensors, or is damaged",
            allowed="tensors only; eightfold never unpickles code",
            remedy="where you trust the file: torch.save(model.state_dict(), 'weights.pt')",
        ) from None


def _states_in(content: object, path: Path) -> dict[str, State]:
    """The state dict that a checkpoint is, or those that it holds beside epoch, optimizer and the like."""
    found = dict(_nested(content, ""))
    if found:
        return found
    raise ModelError(
        f"{path} holds {type(content).__name__}",
        allowed="a state dict of tensors, or a checkpoint with one of them",
        remedy="save the one to use: torch.save(checkpoint['NAME'], 'weights.pt')",
    )


def _nested(content: object, where: str, depth: int = 0) -> Iterator[tuple[str, State]]:
    if _is_state(content):
        yield where, content
    elif isinstance(content, dict) and depth < DEEPEST_DICTIONARY:
        for name, part in content.items():
            yield from _nested(part, f"{where}.{name}".lstrip("."), depth + 1)


def _is_state(value: object) -> TypeGuard[dict[str, torch.Tensor]]:
    torch = require("torch", "read weights")
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in value.items())


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    safetensors = require("safetensors", "read weights")
    load_file = require("safetensors.torch", "read weights").load_file
    try:
        return dict(load_file(str(path)))
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file ({error})", remedy="make it again") from None
