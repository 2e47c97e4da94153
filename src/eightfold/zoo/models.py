"""Model sources: turns a name into a network with random weights, and a weights file into its values.

A source is `NAME` (torchvision; a detector comes with its raw head), `timm:NAME`, or `package.module:function` (your
own; called with `num_classes=` if it takes that, else with nothing).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from eightfold.errors import EightfoldError, ModelError, UnknownNameError, UsageError
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Task

if TYPE_CHECKING:
    import torch

SOURCES = "a torchvision name, timm:NAME, or package.module:function of your own"
WEIGHTS_SUFFIXES = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")


def build_model(source: str, *, num_classes: int, seed: int = 0) -> torch.nn.Module:
    """Construct the network named by `source` with `num_classes` outputs; the seed fixes its random weights.

    Raises:
        UnknownNameError: no such model, with the closest name.
        UsageError: a file where a name is wanted, or less than one class.
        ModelError: your own function is absent, fails, or does not return a torch module.
    """
    torch = require("torch", "build a model")
    if num_classes < 1:
        raise UsageError(f"{num_classes} classes", allowed="1 or more")
    torch.manual_seed(seed)
    prefix, colon, rest = source.partition(":")
    if not colon:
        return _from_torchvision(source, num_classes)
    if prefix == "timm":
        return _from_timm(rest, num_classes)
    return _from_function(prefix, rest, num_classes)


def task_of(source: str, size: tuple[int, int]) -> Task:
    """What the outputs of a model source mean for images of this (height, width): that of torchvision's and timm's
    names is known, else they are tensors."""
    prefix, colon, _ = source.partition(":")
    if source.endswith(".onnx") or (colon and prefix != "timm"):
        return Task(kind="tensors", decode="tensors")
    if not colon and source in _raw_heads():
        from eightfold.zoo.raw_heads import raw_head_task

        return raw_head_task(source, size)
    return Task(kind="classify", decode="classify")


def _raw_heads() -> list[str]:
    require("torchvision", "build a torchvision model")
    from eightfold.zoo.raw_heads import raw_head_names

    return raw_head_names()


def _refuse_file(source: str) -> None:
    """Weights or code in the place of a network's name: what to write instead."""
    path = Path(source)
    if path.suffix in WEIGHTS_SUFFIXES:
        raise UsageError(
            f"{source} where a network is to be named",
            allowed=SOURCES,
            remedy=f"such a file holds weights without the network: name that, with {source} as its weights",
        )
    if path.suffix == ".py" or Path(f"{source}.py").is_file():
        raise UsageError(
            f"{source} where a network is to be named", allowed=SOURCES, remedy=f"write {path.stem}:FUNCTION"
        )


def _from_torchvision(name: str, num_classes: int) -> torch.nn.Module:
    models = require("torchvision", "build a torchvision model").models
    known, detectors = models.list_models(module=models), _raw_heads()
    if name in detectors:
        from eightfold.zoo.raw_heads import RawHead, build_detector

        return RawHead(build_detector(name, num_classes))
    if name not in known:
        _refuse_file(name)
        raise UnknownNameError.of("model", name, [*known, *detectors])
    model: torch.nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return model


def _from_timm(name: str, num_classes: int) -> torch.nn.Module:
    timm = require("timm", "build a timm model")
    if not timm.is_model(name):
        raise UnknownNameError.of("timm model", name, timm.list_models())
    model: torch.nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return model


def _from_function(module_name: str, function: str, num_classes: int) -> torch.nn.Module:
    nn = require("torch.nn", "build a model")
    source = f"{module_name}:{function}"
    try:
        build = getattr(importlib.import_module(module_name), function)
    except (ModuleNotFoundError, AttributeError) as error:
        dotted = module_name.removesuffix(".py").replace("/", ".")
        raise ModelError(
            f"cannot find {source} ({error})",
            allowed=SOURCES,
            remedy="check that the module can be imported from here"
            if dotted == module_name
            else f"write {dotted}:{function}",
        ) from None
    except Exception as error:  # what the user's own code raises, of whatever class
        raise _failed(source, error) from error
    model = _call(build, source, num_classes)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{source} returned {type(model).__name__}", allowed="a torch.nn.Module")
    network: torch.nn.Module = model
    return network


def _failed(source: str, error: Exception) -> EightfoldError:
    if isinstance(error, EightfoldError):
        return error
    return ModelError(
        f"{source} failed with {type(error).__name__}: {error}", remedy="eightfold --debug ... shows where in its code"
    )


def _call(build: Callable[..., object], name: str, num_classes: int) -> object:
    """`build(num_classes=...)` if it takes that, else `build()`: then the number is fixed in its code."""
    signature = inspect.signature(build)
    for arguments in ({"num_classes": num_classes}, {}):
        try:
            signature.bind(**arguments)
        except TypeError:
            continue
        try:
            return build(**arguments)
        except Exception as error:  # as above
            if _hands_on(signature, arguments, error):
                continue
            raise _failed(name, error) from error
    raise ModelError(
        f"{name}{signature} cannot be called with num_classes={num_classes}, nor with nothing",
        allowed="a function with a parameter num_classes, or one that needs no argument; it returns a torch.nn.Module",
    )


def _hands_on(signature: inspect.Signature, arguments: Mapping[str, object], error: Exception) -> bool:
    """Whether a function with **kwargs gave what it was called with to one that does not take it."""
    return (
        isinstance(error, TypeError)
        and signature.parameters.keys().isdisjoint(arguments)
        and any(f"unexpected keyword argument '{name}'" in str(error) for name in arguments)
    )


def load_weights(model: torch.nn.Module, path: PathLike) -> None:
    """Load a `.safetensors` file, or a `.pt`/`.pth` state dict that needs no unpickling, into `model`.

    DataParallel's `module.` prefix is dropped. Raises ModelError naming the first tensor that differs and both shapes.
    """
    state = _read_state(Path(path))
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
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
