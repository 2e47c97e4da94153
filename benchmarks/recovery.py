"""Label-free recovery: agreement or accuracy after least squares and after recovery, by widths and keep ratio.

    python benchmarks/recovery.py detector --keep 0.75 --rule measured --minutes 20
    python benchmarks/recovery.py fashion --keep 0.5 --rule uniform --minutes 5

`detector` is the YOLOv8n that the package nudenet ships, on crops of photographs that packages ship: two are held out,
and never seen by pruning, least squares or recovery. Its agreement is mAP50 against its own detections (score > 0.25)
on 48 crops of those two. `fashion` is a ResNet trained here on Fashion-MNIST, recovered from 500 images without their
labels. Each row is written to benchmarks/results/recovery.json; a killed run goes on when it is called again.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import eightfold as ef
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.onnx.graph_file import onnx_module
from eightfold.compress.train.recover.recover import RecoverOptions
from eightfold.compress.train.recover.views import Augment, PictureViews
from eightfold.compress.train.train import Schedule, train
from eightfold.files import write_text
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.average_precision import average_precision
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.zoo.datasets.fashion import read_fashion

HERE = Path(__file__).parent / "results"
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
CROPS = Augment(crop=0.3, flip=True, colour=0.2)
FASHION_VIEWS = Augment(crop=0.85, flip=True, colour=0.1)


def shipped(name: str) -> Path:
    """A file that an installed package ships."""
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"this row needs the package {package}")
    return Path(spec.submodule_search_locations[0]) / rest


def crops(names: Sequence[str], count: int, seed: int) -> Tensor:
    """Random crops of photographs [count, 3, SIDE, SIDE]."""
    pictures = [read_image(shipped(name)) for name in names]
    views = PictureViews(pictures, Preprocess(height=SIDE, width=SIDE), 1, CROPS, seed)
    rng = np.random.default_rng(seed)
    rows = [views._view(place % len(pictures), rng, CROPS) for place in range(count)]
    return torch.from_numpy(np.stack(rows))


def detections(model: nn.Module, images: Tensor, threshold: float) -> list[Detections]:
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


def agreement_of(original: nn.Module) -> Callable[[nn.Module], float]:
    """mAP50 against the original's own detections, with the held-out photographs."""
    held = crops(HELD_OUT, 48, seed=123)
    truth = detections(original, held, 0.25)
    objects = tuple(
        Objects(each.boxes.astype(np.float64), each.classes, np.zeros(len(each.boxes), bool)) for each in truth
    )
    classes = 1 + max((int(each.classes.max()) for each in truth if len(each.classes)), default=0)
    blank = tuple(np.zeros((SIDE, SIDE, 3), np.uint8) for _ in truth)
    images = BoxedImages(blank, classes=tuple(map(str, range(classes))), objects=objects)
    return lambda model: average_precision(images, detections(model.eval(), held, 0.01))["map50"]


def detector(row: dict[str, Any], options: argparse.Namespace) -> None:
    """Fill in the agreements after each step."""
    original = onnx_module(shipped("nudenet/320n.onnx"), size=(SIDE, SIDE)).eval()
    agreement = agreement_of(original)
    photographs = [read_image(shipped(name)) for name in PHOTOGRAPHS]
    compressed(row, options, original, crops(PHOTOGRAPHS, 256, seed=5), agreement, photographs, CROPS)


def fashion(row: dict[str, Any], options: argparse.Namespace) -> None:
    """Fill in top-1 on the 10,000 test images after each step."""
    test = read_fashion("test")
    labels = torch.from_numpy(test.labels.astype(np.int64))
    original = fashion_network(options.train_images, options.epochs)

    def top1(model: nn.Module) -> float:
        with torch.no_grad():
            found = torch.cat([model.eval()(part).argmax(1) for part in ready(test.images).split(250)])
        return float((found == labels).float().mean())

    chosen = np.random.default_rng(options.seed).permutation(60_000)[:500]
    images = ready(read_fashion("train").images[chosen])
    compressed(row, options, original, images, top1, images, FASHION_VIEWS)


def compressed(
    row: dict[str, Any],
    options: argparse.Namespace,
    original: nn.Module,
    images: Tensor,
    measure: Callable[[nn.Module], float],
    source: Any,
    augment: Augment,
) -> None:
    """Prune, fit, recover; measure after each."""
    row["original"] = measure(original)
    started = time.process_time()
    plan = ef.plan_pruning(
        original, images[:1], rule=options.rule, score=options.score, keep_ratio=options.keep, images=images[:64]
    )
    pruned = copy.deepcopy(original)
    ef.apply_plan(pruned, plan)
    row["macs"] = ef.count_macs(pruned, images[:1]) / ef.count_macs(original, images[:1])
    row["removed"] = measure(pruned)
    ef.compensate(pruned, original, plan, images)
    row["least_squares"] = measure(pruned)
    row["cpu_seconds_before_recovery"] = round(time.process_time() - started)
    if options.minutes:
        done = ef.recover(
            pruned,
            original,
            source,
            plan=plan,
            minutes=options.minutes,
            preprocess=Preprocess(height=SIDE, width=SIDE),
            options=RecoverOptions(augment=augment, rate=options.rate, patience=20),
            checkpoint=HERE / f".recovery-{options.network}-{options.keep:g}-{options.rule}.safetensors",
            seed=options.seed,
        )
        row |= {"recovered": measure(pruned), "steps": done.steps, "outputs_before": done.started}
        row["outputs_after"] = done.after


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


def fashion_network(images: int, epochs: int) -> nn.Module:
    """A ResNet of 32, 64 and 128 channels, trained here once; the weights are kept."""
    torch.manual_seed(0)
    stages = [
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 64, 1),
        Residual(64, 128, 2),
        Residual(128, 128, 1),
    ]
    stem = [nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    model = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    file = HERE / f".fashion-{images}-{epochs}.pt"
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    data = read_fashion("train")
    order = np.random.default_rng(0).permutation(len(data.images))[:images]
    inputs, targets = ready(data.images[order]), torch.from_numpy(data.labels[order].astype(np.int64))

    def batches(epoch: int) -> Any:
        turn = torch.randperm(images, generator=torch.Generator().manual_seed(epoch))
        for part in turn[: images // 128 * 128].split(128):
            flipped = inputs[part].flip(3) if epoch % 2 else inputs[part]
            yield flipped, targets[part]

    schedule = Schedule(epochs, images // 128, 0.1, 5e-4, seed=0)
    train(model, batches, cross_entropy, schedule, checkpoint=file.with_suffix(".safetensors"))
    torch.save(model.state_dict(), file)
    file.with_suffix(".safetensors").unlink(missing_ok=True)
    return model.eval()


def ready(images: Any) -> Tensor:
    """Model input [n, 1, 28, 28]."""
    return (torch.from_numpy(np.asarray(images, np.float32)) / 255 - 0.286).div(0.353).unsqueeze(1)


def main() -> None:
    """Measure one row, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("detector", "fashion"))
    parser.add_argument("--keep", type=float, default=0.75)
    parser.add_argument("--rule", default="measured")
    parser.add_argument("--score", default="l2")
    parser.add_argument("--minutes", type=float, default=20.0, help="of recovery; 0: least squares alone")
    parser.add_argument("--rate", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-images", type=int, default=60_000, help="of Fashion-MNIST, for the original")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    file = HERE / "recovery.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    row: dict[str, Any] = dict(vars(options), machine=platform.processor() or platform.machine())
    ({"detector": detector, "fashion": fashion}[options.network])(row, options)
    write_text(file, json.dumps([*rows, row], indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
