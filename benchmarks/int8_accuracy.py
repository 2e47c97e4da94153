"""INT8 top-1 against FP32 on real digits: a trained ResNet-18, the same with badly scaled channels, and MobileNetV2.

Usage: python benchmarks/int8_accuracy.py [--demo runs/demo]

The first network is the demo's own pruned one, from the directory that `make demo` leaves.

The badly scaled ResNet-18 computes the same function: in every block the channels between the two convolutions are
multiplied by factors from 1e-2 to 1e2, and the second convolution divides them out. Plain per-tensor min-max must fail
on it, or the comparison would prove nothing.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from digit_networks import Digits, load_digits, trained
from torch import nn

from eightfold.calib.calibrate import calibrate
from eightfold.calib.observers import METHODS
from eightfold.export.int8.equalize import equalize
from eightfold.export.int8.quantize import quantize
from eightfold.export.int8.score import top1_score
from eightfold.export.targets import TARGETS
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.pipeline.job.job import Job
from eightfold.recipe import read_recipe
from eightfold.runtime.devices.devices import describe_device

HERE = Path(__file__).parent
BATCH = 50
CALIBRATION_IMAGES = 256
PER_TENSOR = dataclasses.replace(TARGETS["cpu-x86"], name="cpu-x86, one scale per weight", per_channel=False)


def badly_scaled(model: nn.Module) -> nn.Module:
    """A copy of a ResNet-18 whose blocks stretch channels and undo it."""
    model = copy.deepcopy(model)
    random = np.random.default_rng(0)
    for block in model.modules():
        if type(block).__name__ == "BasicBlock":
            width = block.bn1.num_features
            factor = torch.from_numpy(10 ** random.uniform(-2, 2, width)).float()
            with torch.no_grad():
                block.bn1.weight.mul_(factor)
                block.bn1.bias.mul_(factor)
                block.conv2.weight.div_(factor[None, :, None, None])
    return model


def top1(path: Path, digits: Digits) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    answers = [session.run(None, {name: images.numpy()})[0].argmax(1) for images in digits.test_images.split(BATCH)]
    return float((np.concatenate(answers) == digits.test_labels.numpy()).mean() * 100)


def rows_for(name: str, model: nn.Module, digits: Digits, folder: Path) -> list[tuple[str, str, float]]:
    path = export_onnx(model, folder / "model.onnx", batch=BATCH, image_size=64)
    images: Any = digits.train_images[:CALIBRATION_IMAGES].numpy()
    equal, report = equalize(path, folder / "equal.onnx", images=images)
    print(name, report.describe(), flush=True)
    rows = [(name, "FP32", top1(path, digits))]
    recipes = [
        ("plain: min-max, one scale per weight", path, "minmax", PER_TENSOR),
        *((method, path, method, TARGETS["cpu-x86"]) for method in ("minmax", "percentile", "entropy", "mse")),
        *((f"equalized, {method}", equal, method, TARGETS["cpu-x86"]) for method in ("entropy", "mse")),
    ]
    for label, source, method, target in recipes:
        ranges = calibrate(source, images, None, method=method)  # type: ignore[arg-type]
        int8, _ = quantize(source, ranges, folder / "int8.onnx", target=target, form="qdq")
        rows.append((name, label, top1(int8, digits)))
        print(*rows[-1], flush=True)
    return rows


def demo_rows(run: Path, folder: Path) -> list[tuple[str, str, float]]:
    """The demo's pruned network on the demo's own test images; its training images calibrate."""
    job = Job(read_recipe(HERE.parent / "recipes" / "demo.yaml"), run)
    path, preprocess = run / "onnx" / "pruned-fp32-b16.onnx", job.recipe.preprocess
    if not path.exists():
        raise SystemExit(f"{path} is not there: run `make demo` first, or name another directory with --demo")
    chosen = job.train_images.sample(CALIBRATION_IMAGES, seed=job.recipe.seed)
    score = top1_score(job.test_images, preprocess)
    rows = [("the demo's pruned ResNet-18", "FP32", score.of(path))]
    for method in METHODS:
        ranges = calibrate(path, chosen, preprocess, method=method)
        int8, _ = quantize(path, ranges, folder / "int8.onnx", form="qdq")
        rows.append((rows[0][0], method, score.of(int8)))
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="directory that `make demo` left")
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    resnet = trained("resnet18", digits)
    models = {"ResNet-18": resnet, "ResNet-18, badly scaled": badly_scaled(resnet)}
    models["MobileNetV2"] = trained("mobilenet_v2", digits)
    with tempfile.TemporaryDirectory() as folder:
        rows = demo_rows(options.demo, Path(folder))
        rows += [row for name, model in models.items() for row in rows_for(name, model, digits, Path(folder))]
    lines = ["| network | INT8 | top-1 % | against FP32 |", "|---|---|---|---|"]
    floats = {name: score for name, label, score in rows if label == "FP32"}
    lines += [f"| {name} | {label} | {score:.1f} | {score - floats[name]:+.1f} |" for name, label, score in rows]
    head = (
        f"# INT8 accuracy\n\n1,000 digits; {CALIBRATION_IMAGES} others calibrate. Target cpu-x86; mse is the default.\n"
    )
    text = "\n".join([head, *lines, "", "```", describe_device().describe(), "```", ""])
    print(text)
    (HERE / "results" / "int8_accuracy.md").write_text(text)


if __name__ == "__main__":
    main()
