"""Functions of the user's own code as a model source."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError, ModelError
from eightfold.extras import require
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions, no_exit
from eightfold.zoo.user_code import UserCode, code_of, import_current, names_in

if TYPE_CHECKING:
    from torch import nn

SIDE = 224
DEFAULT_CLASSES = 1000
FORM = "package.module:function"


class FunctionSource(ModelSource):
    """`package.module:function`: called with `num_classes=` where it takes that, else with nothing."""

    name = "function"
    form = FORM
    gives = "the torch module that a function of your own returns, with the weights it loaded"
    extra = "compress"

    def takes(self, text: str) -> bool:
        return ":" in text

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        return text

    def brings_weights(self, text: str) -> bool:
        return True

    def code(self, text: str) -> UserCode | None:
        return code_of(text.partition(":")[0])

    def check(self, text: str) -> None:
        module, _, function = text.partition(":")
        known = names_in(module)
        if known is None:
            dotted = module.removesuffix(".py").replace("/", ".")
            raise ModelError(
                f"cannot find {text} (no module {module!r} here)",
                allowed=f"{FORM} of a module that can be imported from here",
                remedy="check its name" if dotted == module else f"write {dotted}:{function}",
            )
        if known and function not in known:
            close = difflib.get_close_matches(function, sorted(known), n=1)
            raise ModelError(
                f"cannot find {text} (module {module!r} has no {function!r})",
                allowed="a function or class of that module",
                remedy=f"did you mean {close[0]!r}?" if close else "check its name",
            )

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        module_name, _, function = text.partition(":")
        classes = DEFAULT_CLASSES if options.num_classes is None else options.num_classes
        network = call_function(module_name, function, classes, options.seed)
        height, width = options.size or (SIDE, SIDE)
        return LoadedModel(text, network, Preprocess(height=height, width=width), brings_weights=True, runs_code=True)


def call_function(module_name: str, function: str, num_classes: int, seed: int = 0) -> nn.Module:
    """The torch module that `module_name:function` returns.

    Raises:
        ModelError: the function is absent, fails, exits, or returns something else.
    """
    torch, source = require("torch", "build a model"), f"{module_name}:{function}"
    torch.manual_seed(seed)
    try:
        with no_exit(source):
            build = getattr(import_current(module_name), function)
    except (ModuleNotFoundError, AttributeError) as error:
        dotted = module_name.removesuffix(".py").replace("/", ".")
        raise ModelError(
            f"cannot find {source} ({error})",
            allowed=f"{FORM} of a module that can be imported from here",
            remedy="check its name" if dotted == module_name else f"write {dotted}:{function}",
        ) from None
    except Exception as error:  # what the user's own code raises, of whatever class
        raise _failed(source, error) from error
    if isinstance(build, torch.nn.Module) or not callable(build):
        raise ModelError(
            f"{source} is a {type(build).__name__}",
            allowed="a function or class that gives a new torch.nn.Module in each call",
            remedy=f"write in {module_name}: def build(): return ...",
        )
    with no_exit(source):
        model = _call(build, source, num_classes)
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"{source} returned {type(model).__name__}", allowed="a torch.nn.Module")
    network: nn.Module = model
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
    """True if a function with **kwargs passed its arguments to one that does not take them."""
    return (
        isinstance(error, TypeError)
        and signature.parameters.keys().isdisjoint(arguments)
        and any(f"unexpected keyword argument '{name}'" in str(error) for name in arguments)
    )
