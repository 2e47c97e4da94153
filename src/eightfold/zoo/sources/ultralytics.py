"""Ultralytics networks as a model source (https://github.com/ultralytics/ultralytics, AGPL-3.0: an optional extra).

Detectors give their raw heads, one map per scale, which the decoder `yolo-dfl` reads; classifiers give logits. Heads of
other tasks give what they give in export mode.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UnknownNameError, first_line
from eightfold.extras import installed, require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import (
    CLASSIFY,
    RAW_OUTPUTS,
    LoadedModel,
    ModelSource,
    SourceOptions,
    SourceWarning,
    rest_of,
    sized,
)

if TYPE_CHECKING:
    from torch import nn

PURPOSE = "build a model of Ultralytics"
# The module of its networks, as a pickle names it.
NETWORKS = b"ultralytics.nn.tasks\n"
# A family's name takes the scale behind its number; the .yaml lists the scales.
FAMILY = re.compile(r"yolo(?:e-)?v?\d+")
SCALES = re.compile(r"^ +([nslmx]): \[", re.MULTILINE)
SIDES = {"classify": 224}
DEFAULT_SIDE = 640


class UltralyticsSource(ModelSource):
    """`ultralytics:NAME`, `FILE.yaml` with random weights, or `FILE.pt` with its own, which needs no prefix."""

    name = "ultralytics"
    form = "ultralytics:NAME|FILE.yaml|FILE.pt"
    gives = "a YOLO of Ultralytics by its raw head; a .pt is unpickled by their library"
    extra = "ultralytics"
    reads_names = True

    def takes(self, text: str) -> bool:
        return super().takes(text) or is_checkpoint(text)

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        name = rest_of(text) if super().takes(text) else text
        own = name.endswith((".pt", ".yaml", ".yml"))
        return text.removesuffix(name) + change(name) if own else text

    def brings_weights(self, text: str) -> bool:
        return text.endswith(".pt")

    def takes_weights(self, text: str) -> bool:
        return not text.endswith(".pt")

    def names(self) -> Sequence[str]:
        if not installed("ultralytics"):
            return ()
        return [f"ultralytics:{name}" for name in sorted(_configurations())]

    def task(self, text: str, size: Size) -> Task:
        return self.load(text, SourceOptions(size=size)).task

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        torch = require("torch", "build a model")
        torch.manual_seed(options.seed)
        name = rest_of(text) if super().takes(text) else text
        network, labels = _from_pt(name) if name.endswith(".pt") else (_from_yaml(name, options), ())
        task = require("ultralytics.nn.tasks", PURPOSE).guess_model_task(network)
        side = SIDES.get(task, DEFAULT_SIDE)
        preprocess = Preprocess(height=side, width=side, resize="letterbox")
        if task == "classify":
            preprocess = Preprocess(height=side, width=side, resize="center-crop", shorter_side=side, antialias=True)
        raw, read = raw_network(network, task)
        read = read.model_copy(update={"labels": labels})
        return LoadedModel(
            text,
            raw,
            sized(preprocess, options.size),
            read,
            brings_weights=name.endswith(".pt"),
            trace_arguments=(True,) if read.decode == "yolo-dfl" else (),
        )


def _configurations() -> dict[str, Path]:
    """Name -> the .yaml that describes it; one of several scales has a name for each: "yolov8n-seg" of
    `yolov8-seg.yaml`, ..."""
    package = require("ultralytics", "list its models")
    found: dict[str, Path] = {}
    for file in sorted((Path(str(package.__file__)).parent / "cfg" / "models").rglob("*.yaml")):
        family, dash, variant = file.stem.partition("-")
        scales = SCALES.findall(file.read_text(encoding="utf-8-sig")) if FAMILY.fullmatch(family) else []
        names = [f"{family}{scale}{dash}{variant}" for scale in scales] or [file.stem]
        found |= {name: file.with_name(f"{name}.yaml") for name in names}
    return found


def _from_yaml(name: str, options: SourceOptions) -> nn.Module:
    tasks = require("ultralytics.nn.tasks", PURPOSE)
    own = name.endswith((".yaml", ".yml"))
    if own and not Path(name).is_file():
        raise ModelError(f"no file {name}", allowed="a model .yaml of Ultralytics that exists", remedy="check the path")
    if not own and name not in _configurations():
        raise UnknownNameError.of("Ultralytics model", name, _configurations())
    path = name if own else str(_configurations()[name])
    try:
        with _quiet():
            config = tasks.yaml_model_load(path)
            build = _RTDETR if "rtdetr" in Path(path).stem else _BUILDERS[tasks.guess_model_task(config)]
            network: nn.Module = getattr(tasks, build)(config, nc=options.num_classes, verbose=False)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"Ultralytics cannot build {name} ({type(error).__name__}: {first_line(error)})",
            allowed="a model .yaml of the installed version",
        ) from None
    return network


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the summary that their library logs off the terminal."""
    logger = logging.getLogger("ultralytics")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


_RTDETR = "RTDETRDetectionModel"
_BUILDERS = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "classify": "ClassificationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
}


def is_checkpoint(text: str) -> bool:
    """True if a .pt file holds a network of Ultralytics. Nothing is unpickled: its classes are looked for by name."""
    if not text.endswith(".pt") or not Path(text).is_file() or not zipfile.is_zipfile(text):
        return False
    with zipfile.ZipFile(text) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(NETWORKS in archive.read(name) for name in pickles)


def _from_pt(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The network of a checkpoint and the names of its classes."""
    ultralytics = require("ultralytics", "load a checkpoint of Ultralytics")
    if not Path(name).is_file():  # their library would look for it on the internet
        raise ModelError(f"no file {name}", allowed="a .pt of Ultralytics that exists", remedy="check the path")
    warnings.warn(
        f"{name} is unpickled by Ultralytics' library, which runs any code that the file holds: load only files that "
        "you trust",
        SourceWarning,
        stacklevel=5,
    )
    try:
        network: nn.Module = ultralytics.YOLO(name).model.float()
    except Exception as error:  # pickle raises anything at all
        raise ModelError(
            f"Ultralytics cannot load {name} ({type(error).__name__}: {first_line(error)})",
            allowed="a .pt that its library wrote",
        ) from None
    names = getattr(network, "names", {})
    return network, tuple(str(names[key]) for key in sorted(names))


def raw_network(network: nn.Module, task: str) -> tuple[nn.Module, Task]:
    """A network of Ultralytics that gives raw outputs under the same parameter names, and how these are read."""
    from torch import nn as torch_nn

    from eightfold.zoo.sources.ultralytics_heads import RawYolo

    layers: Any = network.get_submodule("model")
    head = layers[-1]
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    if task == "classify":
        return RawYolo(layers, network.save), CLASSIFY  # type: ignore[arg-type]  # a list of layer numbers
    if task == "detect" and isinstance(getattr(head, "cv2", None), torch_nn.ModuleList):
        options: dict[str, Any] = {"reg_max": int(head.reg_max)}
        if head.end2end:
            options |= {"nms": False, "multi_label": True}
        return RawYolo(layers, network.save), Task(kind="detect", decode="yolo-dfl", options=options)  # type: ignore[arg-type]  # as above
    head.export = True
    return network, _exported_task(head, task)


def _exported_task(head: Any, task: str) -> Task:
    """The task that reads the boxes that a head decodes in export mode; end-to-end heads of these tasks give
    tensors."""
    if getattr(head, "end2end", False):
        return RAW_OUTPUTS
    if task == "segment":
        return Task(kind="detect", decode="yolo-masks")
    if task == "obb":
        return Task(kind="detect", decode="yolo-oriented")
    if task == "pose":
        points, dimensions = head.kpt_shape
        return Task(kind="detect", decode="yolo-keypoints", options={"keypoints": points, "dimensions": dimensions})
    return RAW_OUTPUTS
