"""A small detector of squares, discs and triangles: draws the images, trains the network in a minute, and leaves what
recipes/detector.yaml needs.

Usage: python examples/shapes.py [DIRECTORY]
DIRECTORY: where images, annotations and weights go; runs/shapes when left out. A detector of your own takes this one's
place: name its function, its weights and its images in the recipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

NAMES = ("square", "disc", "triangle")
HEIGHT, WIDTH, STRIDE = 96, 128, 16
LARGEST = 48  # pixels


class ShapeDetector(nn.Module):
    """Raw outputs for the decoder `yolo-dfl` with reg_max 1: (batch, 4 sides + classes, height / 16, width / 16)."""

    def __init__(self, num_classes: int = len(NAMES), width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, width // 2, 2), _layer(width // 2, width, 2))
        self.body = nn.ModuleList([_layer(width, 2 * width, 2), _layer(2 * width, 2 * width, 2)])
        self.block = nn.Sequential(_layer(2 * width, 2 * width, 1), _layer(2 * width, 2 * width, 1))
        self.head = nn.Conv2d(2 * width, 4 + num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        for layer in self.body:
            maps = layer(maps)
        outputs: Tensor = self.head(maps + self.block(maps))
        return outputs


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[tuple[int, tuple[int, int, int, int]]]]:
    """An image (HEIGHT, WIDTH, 3) of up to three shapes on noise; class and box (x, y, width, height) of each."""
    image = rng.integers(60, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    objects: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(rng.integers(1, 4)):
        side = int(rng.integers(16, LARGEST))
        x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
        if any(abs(x - a) < side + c and abs(y - b) < side + d for _, (a, b, c, d) in objects):
            continue
        index, colour = int(rng.integers(0, len(NAMES))), rng.integers(150, 256, 3).tolist()
        _put(image, index, x, y, side, colour)
        objects.append((index, (x, y, side, side)))
    return image, objects


def _put(image: NDArray[np.uint8], index: int, x: int, y: int, side: int, colour: list[int]) -> None:
    if NAMES[index] == "square":
        cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), colour, -1)
    elif NAMES[index] == "disc":
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, colour, -1)
    else:
        corners = np.array([(x, y + side - 1), (x + side - 1, y + side - 1), (x + side // 2, y)], np.int32)
        cv2.fillPoly(image, [corners], colour)


def write_part(folder: Path, count: int, seed: int) -> None:
    """`count` images, and what is in them as COCO has it."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[Any] = []
    annotations: list[Any] = []
    rng = np.random.default_rng(seed)
    for place in range(count):
        pixels, objects = draw(rng)
        name = f"{place:04d}.png"
        cv2.imwrite(str(folder / name), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        images.append({"id": place, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations += [{"image_id": place, "category_id": index, "bbox": box} for index, box in objects]
    for number, each in enumerate(annotations, 1):
        each.update(id=number, iscrowd=0, area=each["bbox"][2] * each["bbox"][3])
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))


def targets_of(objects: list[tuple[int, tuple[int, int, int, int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells answer for an object (the one that holds its centre), its class there, and the distances to its sides
    in strides."""
    rows, columns = HEIGHT // STRIDE, WIDTH // STRIDE
    there, classes, sides = (
        torch.zeros(rows, columns),
        torch.zeros(len(NAMES), rows, columns),
        torch.zeros(4, rows, columns),
    )
    for index, (x, y, width, height) in objects:
        row, column = int((y + height / 2) / STRIDE), int((x + width / 2) / STRIDE)
        middle_x, middle_y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
        there[row, column], classes[index, row, column] = 1, 1
        near = [middle_x - x, middle_y - y, x + width - middle_x, y + height - middle_y]
        sides[:, row, column] = torch.tensor(near) / STRIDE
    return there, classes, sides


def loss_of(outputs: Tensor, there: Tensor, classes: Tensor, sides: Tensor) -> Tensor:
    """Cross-entropy at every cell, and the overlap of the boxes at those that hold an object's centre."""
    likely = binary_cross_entropy_with_logits(outputs[:, 4:], classes, reduction="sum")
    found, wanted = relu(outputs[:, :4]), sides
    shared = torch.minimum(found, wanted)
    overlap = (shared[:, 0] + shared[:, 2]) * (shared[:, 1] + shared[:, 3])
    area = (found[:, 0] + found[:, 2]) * (found[:, 1] + found[:, 3])
    wanted_area = (wanted[:, 0] + wanted[:, 2]) * (wanted[:, 1] + wanted[:, 3])
    iou = overlap / (area + wanted_area - overlap + 1e-6)
    far = (outputs[:, :4] - wanted).abs().sum(1)
    return (likely + ((1 - iou + far) * there).sum()) / there.sum().clamp(min=1)


def train(model: nn.Module, *, steps: int, batch: int = 32, seed: int = 0) -> None:
    """Fit `model` to freshly drawn images; the same seed gives the same weights."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        drawn = [draw(rng) for _ in range(batch)]
        images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float() / 255
        there, classes, sides = (
            torch.stack(part) for part in zip(*(targets_of(each) for _, each in drawn), strict=True)
        )
        optimizer.zero_grad()
        loss_of(model(images), there, classes, sides).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
    model.eval()


def main(directory: str = "runs/shapes") -> None:
    folder = Path(directory)
    write_part(folder / "data" / "train", 256, seed=1)
    write_part(folder / "data" / "test", 128, seed=2)
    torch.manual_seed(0)
    model = ShapeDetector()
    train(model, steps=300)
    save_file(model.state_dict(), str(folder / "weights.safetensors"))
    print(f"wrote {folder}; next: eightfold run recipes/detector.yaml")


if __name__ == "__main__":
    main(*sys.argv[1:])
