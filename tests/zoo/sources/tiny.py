"""A small network of each model source, in files where its source reads files, with weights and labelled images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import eightfold as ef
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

CLASSES, IMAGES = 3, 4
OWN_CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 32, 3, 2)
        self.head = nn.Linear(32, num_classes)

    def forward(self, images, gain=1.0):
        x = torch.relu(self.second(torch.relu(self.first(images))))
        return gain * self.head(x.mean((2, 3)))
"""
YOLO = """
nc: 3
scales: {n: [1.0, 1.0, 1024]}
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""
DARKNET = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=3
size=1
stride=1
activation=linear
[avgpool]
[softmax]
"""


@dataclass(frozen=True)
class TinyNetwork:
    """How a command names a network.

    Attributes:
        text: the model source.
        options: of the command line that it needs: `--weights`, `--classes`, `--size`.
        kind: of its task.
    """

    text: str
    options: tuple[str, ...] = ()
    kind: str = "classify"


def onnx_file(folder: Path) -> TinyNetwork:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, CLASSES))
    return TinyNetwork(str(ef.export_onnx(network, folder / "net.onnx", batch=1, image_size=32)))


def pruned_folder(folder: Path) -> TinyNetwork:
    """Of the ONNX file: a folder of a module imports its code, which `function` does as well."""
    ef.prune(onnx_file(folder).text, output=folder / "pruned")
    return TinyNetwork(str(folder / "pruned"))


def function(folder: Path) -> TinyNetwork:
    """The folder has to be on the path."""
    (folder / "tiny_own_code.py").write_text(OWN_CODE)
    return _with_weights("tiny_own_code:Net", folder, size=32)


def timm(folder: Path) -> TinyNetwork:
    pytest.importorskip("timm", reason="the extra [timm] is not installed")
    return _with_weights("timm:test_resnet", folder, size=32)


def ultralytics(folder: Path) -> TinyNetwork:
    """A checkpoint, as their trainer writes it: the network itself, pickled."""
    pytest.importorskip("ultralytics", reason="the extra [ultralytics] is not installed")
    return TinyNetwork(f"ultralytics:{ultralytics_checkpoint(folder)}", ("--size", "32"), "detect")


def ultralytics_checkpoint(folder: Path) -> Path:
    from ultralytics.models import YOLO as Yolo

    (folder / "yolov8n-tiny.yaml").write_text(YOLO)
    model = Yolo(folder / "yolov8n-tiny.yaml", verbose=False)
    model.save(folder / "best.pt")
    return folder / "best.pt"


def smp(folder: Path) -> TinyNetwork:
    pytest.importorskip("segmentation_models_pytorch", reason="the extra [smp] is not installed")
    return _with_weights("smp:Linknet/tu-test_resnet", folder, size=32, kind="segment")


def hf(folder: Path) -> TinyNetwork:
    transformers = pytest.importorskip("transformers", reason="the extra [hf] is not installed")
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=CLASSES
    )
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).save_pretrained(folder / "hf")
    return TinyNetwork(f"hf:{folder / 'hf'}", ("--size", "32"))


def darknet(folder: Path) -> TinyNetwork:
    from eightfold.zoo.sources.darknet.source import open_darknet
    from eightfold.zoo.sources.darknet.weights import save_weights

    (folder / "net.cfg").write_text(DARKNET)
    save_weights(open_darknet(str(folder / "net.cfg")).network, folder / "net.weights")
    return TinyNetwork(f"darknet:{folder / 'net.cfg'}+{folder / 'net.weights'}")


def modnet(folder: Path) -> TinyNetwork:
    return _with_weights("modnet", folder, size=64, kind="matte", classes=None)


def torchvision_classify(folder: Path) -> TinyNetwork:
    return _with_weights("shufflenet_v2_x0_5", folder, size=32)


def torchvision_detect(folder: Path) -> TinyNetwork:
    return _with_weights("ssdlite320_mobilenet_v3_large", folder, size=64, kind="detect")


def torchvision_segment(folder: Path) -> TinyNetwork:
    return _with_weights("lraspp_mobilenet_v3_large", folder, size=32, kind="segment")


# By the name of the source.
TINY: dict[str, Callable[[Path], TinyNetwork]] = {
    "onnx": onnx_file,
    "pruned": pruned_folder,
    "function": function,
    "timm": timm,
    "ultralytics": ultralytics,
    "smp": smp,
    "hf": hf,
    "darknet": darknet,
    "modnet": modnet,
    "torchvision": torchvision_classify,
    "torchvision-detect": torchvision_detect,
    "torchvision-segment": torchvision_segment,
}


def _with_weights(
    text: str, folder: Path, *, size: int, kind: str = "classify", classes: int | None = CLASSES
) -> TinyNetwork:
    loaded = load_source(text, SourceOptions(num_classes=classes, size=(size, size)))
    state = {name: tensor.clone() for name, tensor in loaded.module.state_dict().items()}  # MODNet shares some
    save_file(state, folder / "weights.safetensors")
    chosen = () if classes is None else ("--classes", str(classes))
    options = ("--weights", str(folder / "weights.safetensors"), *chosen, "--size", str(size))
    return TinyNetwork(text, options, kind)


def labelled_images(folder: Path, kind: str) -> Path:
    """Noise with labels, in the form that `eightfold evaluate --data` takes for a kind of task."""
    return {"classify": _classes, "detect": _boxes, "segment": _masks, "matte": _alphas}[kind](folder)


def photographs(folder: Path, count: int = IMAGES, *, seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        cv2.imwrite(str(path), random.integers(0, 256, (40, 48, 3), np.uint8))
    return paths


def _classes(folder: Path) -> Path:
    for label in range(CLASSES):
        photographs(folder / str(label), 1)
    return folder


def _boxes(folder: Path) -> Path:
    names = [path.name for path in photographs(folder)]
    images = [{"id": place, "file_name": name, "height": 40, "width": 48} for place, name in enumerate(names)]
    boxes = [
        {"id": place, "image_id": place, "category_id": place % CLASSES, "bbox": [4, 4, 20, 20], "area": 400,
         "iscrowd": 0}
        for place in range(len(names))
    ]  # fmt: skip
    categories = [{"id": number, "name": str(number)} for number in range(CLASSES)]
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return folder / "boxes.json"


def _masks(folder: Path) -> Path:
    _maps(folder / "masks", [np.full((40, 48), place % CLASSES, np.uint8) for place in range(IMAGES)])
    photographs(folder / "images")
    return folder


def _alphas(folder: Path) -> Path:
    _maps(folder / "alphas", [np.full((40, 48), 255 * (place % 2), np.uint8) for place in range(IMAGES)])
    photographs(folder / "images")
    return folder


def _maps(folder: Path, maps: Sequence[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for place, each in enumerate(maps):
        cv2.imwrite(str(folder / f"{place}.png"), each)
