"""Networks of the recovery benchmark, with their images, their measure, and their labels where there are any.

`detector` is the YOLOv8n that the package nudenet ships, on crops of photographs that packages ship; two photographs
are held out, and never seen by pruning, least squares or recovery. Its measure is mAP50 against its own detections
(score > 0.25) on 48 crops of those two. `fashion` is a ResNet trained here on Fashion-MNIST; its measure is top-1 on
the 10,000 test images. `fashion-small` has half the width and a third of the epochs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eightfold.calib.images.decode import read_image
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.onnx.graph_file import onnx_module
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.recover.views import Augment, PictureViews
from eightfold.compress.train.train import LearningRateSchedule, train
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.average_precision import average_precision
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.zoo.datasets.fashion import read_fashion

HELD_OUT = ("ultralytics/assets/zidane.jpg", "ultralytics/assets/bus.jpg")
PHOTOGRAPHS = (
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    *(f"skimage/data/{name}" for name in ("coffee.png", "camera.png", "astronaut.png", "gravel.png", "brick.png")),
    *(f"skimage/data/{name}" for name in ("motorcycle_left.png", "hubble_deep_field.jpg", "retina.jpg", "ihc.png")),
    *(f"skimage/data/{name}" for name in ("rocket.jpg", "chelsea.png", "coins.png")),
    "sklearn/datasets/images/flower.jpg",
    "sklearn/datasets/images/china.jpg",
)
SIDE = 320
FITTED, FASHION_IMAGES, TEST_CROPS = 256, 500, 48
Measure = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        images: model-ready, for widths and least squares.
        source: unlabelled images, as `recover` takes them.
        last: weights of the layers whose outputs the heads read, for the mimicking of the last feature.
        labelled: number of a step -> a labelled batch of all the training images, and the loss; None without labels.
        output: "logits" or "boxes".
    """

    original: nn.Module
    images: Tensor
    source: Any
    augment: Augment
    measure: Measure
    last: tuple[str, ...]
    batch: int
    labelled: Callable[[int], Batch] | None = None
    loss: Callable[[Any, Any], Tensor] = cross_entropy
    preprocess: Preprocess | None = None


def detector(seed: int, work: Path) -> Case:
    """The shipped YOLOv8n."""
    original = onnx_module(_shipped("nudenet/320n.onnx"), size=(SIDE, SIDE)).eval()
    augment = Augment(crop=0.3, flip=True, colour=0.2)
    return Case(
        original,
        _crops(PHOTOGRAPHS, FITTED, 5 + seed, augment),
        [read_image(_shipped(name)) for name in PHOTOGRAPHS],
        augment,
        _agreement(original, _crops(HELD_OUT, TEST_CROPS, 123, augment)),
        ("model.22.cv[23].[012].1.conv.weight",),
        batch=8,
        preprocess=Preprocess(height=SIDE, width=SIDE),
    )


def _shipped(name: str) -> Path:
    """A file that an installed package ships."""
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"this row needs the package {package}")
    return Path(spec.submodule_search_locations[0]) / rest


def _crops(names: Sequence[str], count: int, seed: int, augment: Augment) -> Tensor:
    """Random crops of photographs [count, 3, SIDE, SIDE]."""
    pictures = [read_image(_shipped(name)) for name in names]
    views = PictureViews(pictures, Preprocess(height=SIDE, width=SIDE), 1, augment, seed)
    rng = np.random.default_rng(seed)
    rows = [views._view(place % len(pictures), rng, augment) for place in range(count)]
    return torch.from_numpy(np.stack(rows))


def _agreement(original: nn.Module, held: Tensor) -> Measure:
    truth = _detections(original, held, 0.25)
    objects = tuple(
        Objects(each.boxes.astype(np.float64), each.classes, np.zeros(len(each.boxes), bool)) for each in truth
    )
    classes = 1 + max((int(each.classes.max()) for each in truth if len(each.classes)), default=0)
    blank = tuple(np.zeros((SIDE, SIDE, 3), np.uint8) for _ in truth)
    images = BoxedImages(blank, classes=tuple(map(str, range(classes))), objects=objects)
    merged = BoxedImages(
        blank,
        classes=("object",),
        objects=tuple(Objects(each.boxes, each.classes * 0, np.zeros(len(each.boxes), bool)) for each in objects),
    )

    def measure(model: nn.Module) -> dict[str, float]:
        found = _detections(model.eval(), held, 0.01)
        anything = [Detections(each.boxes, each.scores, each.classes * 0, each.labels) for each in found]
        return {
            "agreement": average_precision(images, found)["map50"],
            "boxes alone": average_precision(merged, anything)["map50"],
            "objects": sum(len(each.classes) for each in truth),
        }

    return measure


def _detections(model: nn.Module, images: Tensor, threshold: float) -> list[Detections]:
    """Of a YOLOv8 head [batch, 4 + classes, positions], boxes in pixels of the crop."""
    from torchvision.ops import batched_nms

    with torch.no_grad():
        outputs = torch.cat([model(part) for part in images.split(8)])
    found = []
    for output in outputs:
        scores, labels = output[4:].max(0)
        keep = scores > threshold
        centre, extent = output[:2, keep].T, output[2:4, keep].T
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], 1)
        best = batched_nms(boxes, scores[keep], labels[keep], 0.45)
        classes = labels[keep][best].numpy()
        names = tuple(str(label) for label in classes.tolist())
        found.append(Detections(boxes[best].numpy(), scores[keep][best].numpy(), classes, names))
    return found


class Residual(nn.Module):
    """Two convolutions with a shortcut, which a third fits to a change of width."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """act(f(x) + skip(x))."""
        return torch.relu(self.body(x) + self.skip(x))


def fashion(seed: int, work: Path, width: int = 32, epochs: int = 10) -> Case:
    """A ResNet of `width`, twice and four times as many channels."""
    part, test = read_fashion("train"), read_fashion("test")
    inputs, targets = _ready(part.images), torch.from_numpy(part.labels.astype(np.int64))
    test_inputs, test_targets = _ready(test.images), torch.from_numpy(test.labels.astype(np.int64))

    def top1(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            found = torch.cat([model.eval()(each).argmax(1) for each in test_inputs.split(250)])
        return {"top1": float((found == test_targets).float().mean())}

    def labelled(step: int) -> Batch:
        chosen = torch.randint(len(inputs), (128,), generator=torch.Generator().manual_seed(1_000_003 * seed + step))
        images = inputs[chosen]
        return Batch((torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images),), targets[chosen])

    chosen = np.random.default_rng(seed).permutation(len(inputs))[:FASHION_IMAGES]
    return Case(
        _fashion_network(inputs, targets, work / f"fashion-{width}-{epochs}.pt", width, epochs),
        inputs[chosen],
        inputs[chosen],
        Augment(crop=0.85, flip=True, colour=0.1),
        top1,
        ("7.body.3.weight",),
        batch=32,
        labelled=labelled,
    )


def _fashion_network(inputs: Tensor, targets: Tensor, file: Path, width: int, epochs: int) -> nn.Module:
    """Trained once; the weights are kept."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    shapes = [(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)]
    stages = [Residual(inputs * width, outputs * width, stride) for inputs, outputs, stride in shapes]
    model = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    count = len(inputs)

    def batches(epoch: int) -> Any:
        turn = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
        for part in turn[: count // 128 * 128].split(128):
            yield (inputs[part].flip(3) if epoch % 2 else inputs[part]), targets[part]

    schedule = LearningRateSchedule(epochs, count // 128, 0.1, 5e-4, seed=0)
    train(model, batches, cross_entropy, schedule, checkpoint=file.with_suffix(".safetensors"))
    torch.save(model.state_dict(), file)
    return model.eval()


def _ready(images: Any) -> Tensor:
    """Model input [n, 1, 28, 28]."""
    return (torch.from_numpy(np.asarray(images, np.float32)) / 255 - 0.286).div(0.353).unsqueeze(1)


CASES: dict[str, Callable[[int, Path], Case]] = {
    "detector": detector,
    "fashion": fashion,
    "fashion-small": partial(fashion, width=16, epochs=3),
}
