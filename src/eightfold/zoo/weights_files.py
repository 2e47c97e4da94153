"""Files of weights: `.safetensors`, or `.pt` state dicts that need no unpickling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from eightfold.errors import ModelError
from eightfold.extras import require
from eightfold.files import PathLike

if TYPE_CHECKING:
    import torch

WEIGHTS_SUFFIXES = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")


def load_weights(model: torch.nn.Module, path: PathLike, *, unused: Sequence[str] = ()) -> None:
    """Load a `.safetensors` file, or a `.pt`/`.pth` state dict that needs no unpickling, into `model`.

    DataParallel's `module.` prefix is dropped.

    Args:
        unused: prefixes of tensors that the file may hold and the model has no use for.

    Raises:
        ModelError: the file cannot be read, or a tensor differs: the first one is named with both shapes.
    """
    state = _read_state(Path(path))
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(unused))}
    wanted = model.state_dict()
    for name in [*wanted, *state]:
        seen, need = state.get(name), wanted.get(name)
        if seen is None or need is None or seen.shape != need.shape:
            raise ModelError(
                f"{path}: {name} is {_shape(seen)}, the model has {_shape(need)}",
                remedy="name the model and the number of classes that these weights were trained with",
            )
    model.load_state_dict(state)


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    torch = require("torch", "read weights")
    if not path.is_file():
        raise ModelError(f"no weights file {path}", allowed="a .safetensors or .pt file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty", allowed="a .safetensors or .pt file", remedy="copy it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():  # of TorchScript archives, which the line below refuses
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise ModelError(
            f"{path} is not a plain state dict: it holds more than tensors, or is damaged",
            allowed="tensors only; eightfold never unpickles code",
            remedy="where you trust the file: torch.save(model.state_dict(), 'weights.pt')",
        ) from None
    return _state_in(state, path)


def _state_in(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The state dict that a checkpoint is, or the only one it holds beside epoch, optimizer and the like."""
    if _is_state(content):
        return dict(content)
    states = {name: part for name, part in content.items() if _is_state(part)} if isinstance(content, dict) else {}
    if len(states) != 1:
        seen = f"the state dicts {', '.join(states)}" if states else type(content).__name__
        raise ModelError(
            f"{path} holds {seen}",
            allowed="a state dict of tensors, or a checkpoint with one of them",
            remedy="save the one to use: torch.save(checkpoint['NAME'], 'weights.pt')",
        )
    return dict(next(iter(states.values())))


def _is_state(value: object) -> TypeGuard[dict[str, torch.Tensor]]:
    torch = require("torch", "read weights")
    return isinstance(value, dict) and bool(value) and all(isinstance(part, torch.Tensor) for part in value.values())


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    safetensors = require("safetensors", "read weights")
    load_file = require("safetensors.torch", "read weights").load_file
    try:
        return dict(load_file(str(path)))
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file ({error})", remedy="make it again") from None
