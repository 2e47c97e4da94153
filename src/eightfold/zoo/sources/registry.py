"""The registry of model sources: each is one file in this folder and one entry of `SOURCES`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from pathlib import Path

from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.extras import require
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions, bind_inputs
from eightfold.zoo.sources.darknet.model_source import DarknetSource
from eightfold.zoo.sources.function import FunctionSource
from eightfold.zoo.sources.hf import HuggingFaceSource
from eightfold.zoo.sources.modnet.model_source import ModnetSource
from eightfold.zoo.sources.onnx_file import OnnxFileSource
from eightfold.zoo.sources.pruned_folder import PrunedFolderSource
from eightfold.zoo.sources.smp import SmpSource
from eightfold.zoo.sources.timm import TimmSource
from eightfold.zoo.sources.torchvision_classify import TorchvisionClassifierSource
from eightfold.zoo.sources.torchvision_detect import TorchvisionDetectorSource
from eightfold.zoo.sources.torchvision_segment import TorchvisionSegmenterSource
from eightfold.zoo.sources.ultralytics import UltralyticsSource
from eightfold.zoo.weights import WEIGHTS_SUFFIXES, load_weights

# The first that takes a text loads it: files and prefixes come before plain names and functions.
SOURCES: list[ModelSource] = [
    OnnxFileSource(),
    PrunedFolderSource(lambda text: source_of(text), lambda text, options: load_source(text, options)),
    TimmSource(),
    UltralyticsSource(),
    SmpSource(),
    HuggingFaceSource(),
    DarknetSource(),
    ModnetSource(),
    FunctionSource(),
    TorchvisionClassifierSource(),
    TorchvisionDetectorSource(),
    TorchvisionSegmenterSource(),
]


def register_source(source: ModelSource) -> None:
    """Make a source known to every command and recipe. A name that is taken is refused."""
    if source.name in {each.name for each in SOURCES}:
        raise UsageError(f"the model source {source.name!r} exists", allowed="a new name", remedy="choose another name")
    functions = next(place for place, each in enumerate(SOURCES) if isinstance(each, FunctionSource))
    SOURCES.insert(functions, source)  # before the one that takes every text with a colon


def forms() -> str:
    """All ways to name a network, in one line."""
    return ", ".join(source.form for source in SOURCES)


def source_of(text: str) -> ModelSource:
    """The source that loads `text`.

    Raises:
        UnknownNameError: no source takes it; the closest names are given.
        UsageError: it is a file of weights or of code.
        ModelError: it is a path at which there is nothing.
    """
    for source in SOURCES:
        if source.takes(text):
            if isinstance(source, FunctionSource):
                _refuse_unknown_prefix(text)
            return source
    _refuse_file(text)
    if "/" in text and not Path(text).exists():
        raise ModelError(f"there is no file or folder {text}", allowed=forms(), remedy="check the path")
    require("torchvision", f"look up the model {text!r}")
    raise UnknownNameError(f"unknown model {text!r}", allowed=forms(), remedy=_suggestion(text))


def options_for(text: str, options: SourceOptions) -> SourceOptions:
    """The options for one of several networks: without weights and classes where it has its own."""
    if source_of(text).takes_weights(text):
        return options
    return dataclasses.replace(options, weights=None, num_classes=None)


def load_source(text: str, options: SourceOptions | None = None) -> LoadedModel:
    """Load the network that `text` names: a name, `prefix:NAME`, `package.module:function`, a file or a folder.

    Raises:
        UnknownNameError: no such network, with the closest names.
        UsageError: weights or classes for a source that has its own, or fewer than one class.
        ModelError: the network cannot be built, or the weights do not fit.
        MissingExtraError: the library of the source is not installed.
    """
    options = options or SourceOptions()
    if options.num_classes is not None and options.num_classes < 1:
        raise UsageError(f"{options.num_classes} classes", allowed="1 or more")
    source = source_of(text)
    if not source.takes_weights(text) and (options.weights is not None or options.num_classes is not None):
        raise UsageError(
            f"weights or a number of classes beside {text}",
            allowed="those of a network that is named: this one has its own",
        )
    loaded = source.load(text, options)
    if not loaded.is_file:
        if options.weights is not None:
            load_weights(loaded.module, options.weights, unused=source.unused_weights)
        bind_inputs(loaded.module, options.inputs)
    arguments = {**options.recorded(), **loaded.arguments}
    brings = loaded.brings_weights or options.weights is not None
    return dataclasses.replace(loaded, arguments=arguments, brings_weights=brings)


def known_names() -> list[str]:
    """Every name that some installed library knows, as it is written to name a network."""
    return [name for source in SOURCES for name in source.names()]


def _refuse_unknown_prefix(text: str) -> None:
    """A prefix that is nearly one of ours, and no module that can be imported."""
    prefix, _, rest = text.partition(":")
    close = difflib.get_close_matches(prefix, [source.name for source in SOURCES if ":" in source.form], n=1)
    if close and "." not in prefix and importlib.util.find_spec(prefix) is None:
        raise UnknownNameError(
            f"unknown model source {prefix!r}", allowed=forms(), remedy=f"did you mean {f'{close[0]}:{rest}'!r}?"
        )


def _suggestion(text: str) -> str:
    names = known_names()
    plain = {name.rpartition(":")[2]: name for name in reversed(names)}
    close = difflib.get_close_matches(text, names, n=3) or [
        plain[name] for name in difflib.get_close_matches(text, plain, n=3)
    ]
    if not close:
        return "run: eightfold sources"
    return f"did you mean {' or '.join(map(repr, close))}?"


def _refuse_file(text: str) -> None:
    """Refuses weights or code given as a network, with the right form."""
    path = Path(text)
    if path.suffix in WEIGHTS_SUFFIXES:
        raise UsageError(
            f"{text} in place of a network",
            allowed=forms(),
            remedy=f"such a file holds weights without the network: name that, with {text} as its weights"
            + (f"; of Ultralytics' own: ultralytics:{text}" if path.suffix == ".pt" else ""),
        )
    if path.suffix in (".cfg", ".weights"):
        raise UsageError(
            f"{text} in place of a network",
            allowed=forms(),
            remedy=f"write darknet:{path.with_suffix('.cfg')}"
            + (f"+{text}" if path.suffix == ".weights" else f", or darknet:{text}+FILE.weights"),
        )
    if path.suffix == ".py" or Path(f"{text}.py").is_file():
        raise UsageError(f"{text} in place of a network", allowed=forms(), remedy=f"write {path.stem}:FUNCTION")
    if path.is_dir():
        raise UsageError(
            f"the folder {text} in place of a network",
            allowed="a folder that eightfold prune wrote, with plan.json and source.json",
            remedy="prune the network again, or load it in a function of your own with ef.load_pruned",
        )
