"""The description of a loaded network, and the interface of a model source.

A source is one file in this folder with one class, and one line in `registry.SOURCES`. Its library is imported inside
its functions, so that every source can be listed with the base install alone.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.surgery.source_record import SourceRecord
from eightfold.errors import ModelError
from eightfold.json_types import JsonDict, JsonMapping
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.compress.onnx.graph_file import OnnxGraph
    from eightfold.zoo.user_code import UserCode

RAW_OUTPUTS = Task(kind="tensors", decode="tensors")
CLASSIFY = Task(kind="classify", decode="classify")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SourceWarning(UserWarning):
    """A source imports the user's code, or a library of its own unpickles a file."""


@dataclass(frozen=True)
class SourceOptions:
    """Requested properties of a network. None leaves each to the source.

    Attributes:
        num_classes: outputs of the network.
        size: (height, width) of its images in pixels.
        weights: a .safetensors or weights-only .pt file.
        inputs: further arguments of `forward` by name; lists become float32 tensors.
        seed: of the random weights.
    """

    num_classes: int | None = None
    size: Size | None = None
    weights: Path | None = None
    inputs: JsonMapping = field(default_factory=dict)
    seed: int = 0

    def recorded(self) -> JsonDict:
        """The arguments that build the architecture again, for `source.json`."""
        found = {"num_classes": self.num_classes, "inputs": dict(self.inputs)}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class LoadedModel:
    """A network from any source, with all that its source knows of it.

    Attributes:
        source: the text that named it.
        network: a torch module, or the path of an ONNX file.
        preprocess: how an image becomes its input; the size is that of the example inputs.
        task: what its outputs mean; kind "tensors" where the source does not know.
        brings_weights: its weights are trained ones as far as the source knows, so that no file has to be named.
        arguments: JSON-able; what `load_source` needs beside `source` to build the architecture again.
        exportable: "" where it can be exported, else the reason why not.
        runs_code: loading it imports a module of the user's own code.
        trace_arguments: further positional arguments with which a trace reaches every layer, such as heads that only
            training runs.
        write_native: writes the network as it is then, pruned or not, into a folder in its own library's format, and
            returns the files; raises ModelError where that format cannot hold it.
    """

    source: str
    network: nn.Module | Path
    preprocess: Preprocess
    task: Task = RAW_OUTPUTS
    brings_weights: bool = False
    arguments: JsonMapping = field(default_factory=dict)
    exportable: str = ""
    runs_code: bool = False
    trace_arguments: tuple[Any, ...] = ()
    write_native: Callable[[Path], tuple[Path, ...]] | None = None

    @property
    def size(self) -> Size:
        """(height, width) of the example inputs in pixels."""
        return self.preprocess.height, self.preprocess.width

    @property
    def name(self) -> str:
        """A short name for files and bundles: "yolov8n" of "ultralytics:yolov8n", "net" of "runs/net.onnx"."""
        last = self.source.rpartition(":")[2]
        return Path(last).stem if "/" in last or "." in last else last

    @property
    def is_file(self) -> bool:
        """True if the network is an ONNX file."""
        return isinstance(self.network, Path)

    @functools.cached_property
    def graph(self) -> OnnxGraph:
        """The graph of an ONNX file with the module that runs it, read once.

        Raises:
            TraceError: an operator cannot run in torch.
            ModelError: the network is no file, or one that is quantized already.
        """
        from eightfold.compress.onnx.graph_file import open_onnx

        if not isinstance(self.network, Path):
            raise ModelError(f"{self.source} is a torch module", allowed="an ONNX file")
        return open_onnx(self.network, size=self.size)

    @property
    def module(self) -> nn.Module:
        """The torch module; of an ONNX file the one that runs its graph. Raises as `graph`."""
        return self.graph.module if isinstance(self.network, Path) else self.network

    def record(self) -> SourceRecord:
        """The record for `source.json` of a pruned folder."""
        return SourceRecord(
            source=self.source,
            directory=str(Path.cwd()),
            arguments=dict(self.arguments),
            size=self.size,
            task=self.task,
            preprocess=self.preprocess,
            runs_code=self.runs_code,
        )

    def example_inputs(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        """One zero tensor float32 (batch, channels, height, width) for each image input of a module; random values for
        the inputs that an ONNX file declares."""
        import torch

        if self.is_file:
            from eightfold.compress.onnx.inputs import example_inputs

            return example_inputs(self.graph.module.inputs, size=self.size, batch=batch)

        from eightfold.export.verify.module_runs import input_names

        count = len(input_names(self.module))
        return tuple(torch.zeros(batch, self.preprocess.channels, *self.size) for _ in range(count))


class ModelSource(ABC):
    """One kind of text that names a network.

    Attributes:
        name: unique among the sources; also the prefix of those that have one.
        form: how it is written, as `eightfold sources` shows it.
        gives: one line on what it loads.
        extra: the pip extra that it needs.
        unused_weights: prefixes of tensors that published weights hold and the network here has no use for.
        reads_names: its library also reads properties of the network in the names of files.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    gives: ClassVar[str]
    extra: ClassVar[str]
    unused_weights: ClassVar[tuple[str, ...]] = ()
    reads_names: ClassVar[bool] = False

    def takes(self, text: str) -> bool:
        """True if `text` is written in this source's form. The network itself need not exist."""
        return text.startswith(f"{self.name}:")

    def brings_weights(self, text: str) -> bool:
        """True if the network that `text` names may come with trained weights."""
        return False

    def takes_weights(self, text: str) -> bool:
        """True if a file of weights and a number of classes can be given beside it."""
        return True

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        """`text` with each path of a file or folder in it changed. Runs tell by the content behind these paths that a
        network is another one, and `compress` writes them from the root into its recipe.

        By default `text` itself, or what follows its first colon, where there is such a file or folder.
        """
        for path in (text, rest_of(text)):
            if path and Path(path).exists() and text not in self.names():
                return text.removesuffix(path) + change(path)
        return text

    def names(self) -> Sequence[str]:
        """The known names in full ("timm:resnet18"), for suggestions; none where they cannot be listed."""
        return ()

    def task(self, text: str, size: Size) -> Task:
        """The meaning of the outputs for images of (height, width), without building the network where possible."""
        return RAW_OUTPUTS

    def check(self, text: str) -> None:  # noqa: B027  # most have nothing to look up
        """Raises what `load` would, as far as that shows without building the network or running its code."""

    def code(self, text: str) -> UserCode | None:
        """The user's own code behind the network, where there is any."""
        return None

    @abstractmethod
    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        """Load the network. `options.weights` and `options.inputs` are applied by the registry afterwards."""


def rest_of(text: str) -> str:
    """The part of `prefix:REST` behind the first colon."""
    return text.partition(":")[2]


def sized(preprocess: Preprocess, size: Size | None) -> Preprocess:
    """`preprocess` at the requested (height, width), at its own where none is requested."""
    return preprocess if size is None else preprocess.at_size(*size)


def bind_inputs(module: nn.Module, inputs: JsonMapping) -> nn.Module:
    """Fix further arguments of `module.forward`, in place; parameter names stay as they are.

    Raises:
        ModelError: forward() has no such argument.
    """
    import inspect

    import torch

    if not inputs:
        return module
    known = inspect.signature(module.forward).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        for name in inputs:
            if name not in known:
                raise ModelError(f"{type(module).__name__}.forward has no argument {name!r}", allowed=", ".join(known))
    values = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in inputs.items()}
    module.forward = functools.partial(module.forward, **values)
    return module


@contextlib.contextmanager
def no_exit(name: str) -> Iterator[None]:
    """Turn exit() in the user's own code into a ModelError; signals that end this process pass."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > 128:
            raise
        said = f" ({stop.code})" if isinstance(stop.code, str) else ""
        raise ModelError(
            f"{name} called exit(){said}",
            allowed="code that returns a torch.nn.Module",
            remedy="look at what it printed above: a file that it needs may be absent",
        ) from None
