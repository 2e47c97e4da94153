"""Accuracy after pruning of a module with batch norms, and of its exported file, where they are folded.

Usage: python benchmarks/onnx_folded_norms.py

Three small networks are trained on the digits of scikit-learn (1,797 images of 8x8, enlarged to 16x16; 1,400 train, 397
test). Each is pruned at the keep ratio, as a module and as an ONNX file whose batch norms the exporter folded, by the
same score and with the same images for compensation; top-1 on the test images.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eightfold as ef

RESULT = Path(__file__).parent / "results" / "onnx_folded_norms.md"
METHODS = ("none", "mean", "lsq")
SCORES = ("l2", "bn_scale", "lsq")


def block(inputs: int, outputs: int, stride: int = 1, groups: int = 1, kernel: int = 3) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*block(width, width), *block(width, width)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(*block(1, 32), *block(32, 64, 2), *block(64, 64), *block(64, 128, 2), *head(128)),
    "residual": lambda: nn.Sequential(*block(1, 32), Residual(32), *block(32, 64, 2), Residual(64), *head(64)),
    "depthwise": lambda: nn.Sequential(
        *block(1, 32), *block(32, 32, groups=32), *block(32, 64, kernel=1), *block(64, 64, 2, groups=64),
        *block(64, 128, kernel=1), *head(128),
    ),
}  # fmt: skip


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = F.interpolate(torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, scale_factor=2)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.tensor(data.target)[order]


def trained(build: Callable[[], nn.Module], x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch left it untyped
            optimizer.step()
    return model.eval()


def accuracy_of_module(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def accuracy_of_file(path: Path, x: Tensor, y: Tensor) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return float(np.mean(answers.argmax(1) == y.numpy()))


def rows_for(name: str, keep: float, epochs: int, folder: Path) -> list[str]:
    images, labels = digits()
    x, y, test_x, test_y = images[:1400], labels[:1400], images[1400:], labels[1400:]
    model, file = trained(NETWORKS[name], x, y, epochs), folder / f"{name}.onnx"
    torch.onnx.export(model, (x[:1],), str(file), dynamo=False, dynamic_axes={"input": {0: "n"}}, input_names=["input"])
    before, rows = accuracy_of_module(model, test_x, test_y), []
    for score in SCORES:
        for method in METHODS:
            options = {"keep_ratio": keep, "score": score, "compensation": method, "images": x[:256]}
            module = copy.deepcopy(model)
            ef.prune(module, x[:1], **options)
            ef.prune(file, output=folder / "pruned.onnx", **options)
            seen = accuracy_of_module(module, test_x, test_y), accuracy_of_file(folder / "pruned.onnx", test_x, test_y)
            rows.append(f"| {name} | {before:.1%} | {score} | {method} | {seen[0]:.1%} | {seen[1]:.1%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = [
        "# Pruning with batch norms and with folded ones",
        "",
        f"Top-1 on 397 test digits; keep ratio {options.keep}, {options.epochs} epochs, 256 images to compensate.",
        "",
        "| network | before | score | compensation | module with batch norm | file, folded |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            lines += rows_for(name, options.keep, options.epochs, Path(folder))
            print(*lines[-len(SCORES) * len(METHODS) :], sep="\n", flush=True)
    RESULT.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
