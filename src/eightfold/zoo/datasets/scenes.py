"""Generated detection scenes: shapes with textures of their own on textured backgrounds that look like photographs.

Backgrounds are noise with the 1/f spectrum of natural images, with gradients of light; shapes are turned, shaded,
partly hidden by others, blurred and noisy. Image n of a seed is the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import atomic_directory, write_text

if TYPE_CHECKING:
    from types import ModuleType

SHAPES = (
    "disc",
    "box",
    "triangle",
    "star",
    "ring",
    "cross",
    "bar",
    "pentagon",
    "crescent",
    "heart",
    "arrow",
    "diamond",
)
LEAST_SHOWN = 0.35  # of a shape's area: less is no object
Form = Literal["coco", "yolo"]


@dataclass(frozen=True)
class SceneOptions:
    """
    Attributes:
        classes: 3 or 12 of SHAPES, or any number up to 12.
        size: side of the square images in pixels.
        most: the largest number of shapes in an image.
        seed: of all images.
    """

    classes: int = 3
    size: int = 320
    most: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """An image uint8 [size, size, 3] RGB; boxes float64 [n, 4] as x0, y0, x1, y1 in pixels; labels int64 [n]; classes
    uint8 [size, size] of the pixels, 0 for the background, a label plus 1 on a shape, however little of it shows."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: NDArray[np.uint8]


def scene(number: int, options: SceneOptions | None = None) -> Scene:
    """The scene of that number."""
    options = options or SceneOptions()
    if not 1 <= options.classes <= len(SHAPES):
        raise UsageError(f"{options.classes} classes of scenes", allowed=f"1 to {len(SHAPES)}")
    rng = np.random.default_rng((options.seed, number))
    size = options.size
    image = _texture(rng, size)
    owner = np.full((size, size), -1)
    areas, labels = [], []
    for index in range(int(rng.integers(1, options.most + 1))):
        label = int(rng.integers(options.classes))
        mask = _shape(SHAPES[label], rng, size)
        surface = 0.45 * _texture(rng, size) + 0.55 * rng.uniform(0, 1, 3)
        image = np.where(mask[..., None], np.clip(surface, 0, 1), image)
        owner[mask] = index
        areas.append(int(mask.sum()))
        labels.append(label)
    kept = [i for i in range(len(labels)) if (owner == i).sum() > max(16, LEAST_SHOWN * areas[i])]
    boxes = [_box(owner == i) for i in kept]
    return Scene(
        _photographed(image, rng),
        np.array(boxes).reshape(-1, 4),
        np.array([labels[i] for i in kept], np.int64),
        np.array([*(label + 1 for label in labels), 0], np.uint8)[owner],  # owner -1 is the background
    )


def write_scenes(
    directory: Path, *, train: int = 1000, test: int = 200, form: Form = "coco", options: SceneOptions | None = None
) -> Path:
    """Write scenes as a data set for detection: `train/` and `test/` with images and annotations.

    Args:
        form: "coco": one annotations.json beside the images; "yolo": data.yaml, images/ and labels/ in each part.
    """
    options = options or SceneOptions()
    cv2 = require("cv2", "write images")
    first = 0
    with atomic_directory(directory) as temporary:
        for part, count in (("train", train), ("test", test)):
            scenes = [(number, scene(number, options)) for number in range(first, first + count)]
            first += count
            (_write_coco if form == "coco" else _write_yolo)(cv2, temporary / part, scenes, options)
        if form == "yolo":
            names = "\n".join(f"  {place}: {name}" for place, name in enumerate(SHAPES[: options.classes]))
            write_text(temporary / "data.yaml", f"train: train/images\nval: test/images\nnames:\n{names}\n")
    return directory


def _write_coco(cv2: ModuleType, folder: Path, scenes: Sequence[tuple[int, Scene]], options: SceneOptions) -> None:
    folder.mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, each in scenes:
        name = f"{number:06d}.png"
        cv2.imwrite(str(folder / name), each.image[..., ::-1])
        images.append({"id": number, "file_name": name, "width": options.size, "height": options.size})
        for box, label in zip(each.boxes.tolist(), each.labels.tolist(), strict=True):
            extent = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": extent,
                    "area": extent[2] * extent[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(SHAPES[: options.classes])]
    data = {"images": images, "annotations": annotations, "categories": categories}
    write_text(folder / "annotations.json", json.dumps(data))


def _write_yolo(cv2: ModuleType, folder: Path, scenes: Sequence[tuple[int, Scene]], options: SceneOptions) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, each in scenes:
        cv2.imwrite(str(folder / "images" / f"{number:06d}.png"), each.image[..., ::-1])
        lines = [
            f"{label} {(x0 + x1) / 2 / options.size:.6f} {(y0 + y1) / 2 / options.size:.6f} "
            f"{(x1 - x0) / options.size:.6f} {(y1 - y0) / options.size:.6f}"
            for (x0, y0, x1, y1), label in zip(each.boxes.tolist(), each.labels.tolist(), strict=True)
        ]
        (folder / "labels" / f"{number:06d}.txt").write_text("".join(line + "\n" for line in lines))


def _texture(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Colour noise [size, size, 3] in [0, 1] whose amplitude falls with frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1 / size
    slope = rng.uniform(0.9, 1.6)
    shared = rng.standard_normal((size, size, 1))
    noise = 0.7 * shared + 0.3 * rng.standard_normal((size, size, 3))
    spectrum = np.fft.rfft2(noise, axes=(0, 1)) / frequency[..., None] ** slope
    waves = np.fft.irfft2(spectrum, s=(size, size), axes=(0, 1))
    waves = (waves - waves.mean((0, 1))) / (waves.std((0, 1)) + 1e-9)
    found: NDArray[np.float64] = np.clip(rng.uniform(0.2, 0.8, 3) + 0.15 * waves, 0, 1)
    return found


def _shape(name: str, rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """Mask [size, size] of a shape at a random place, turn and scale."""
    radius = size * rng.uniform(0.06, 0.22)
    centre = rng.uniform(radius, size - radius, 2)
    turn = rng.uniform(-0.5, 0.5) if name in ("triangle", "heart", "arrow") else rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] - centre[:, None, None]
    u = (np.cos(turn) * x + np.sin(turn) * y) / radius
    v = (-np.sin(turn) * x + np.cos(turn) * y) / radius
    return _inside(name, u, v)


def _inside(name: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the shape of that name, in units of its radius; v points down."""
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    found: NDArray[np.bool_] = {
        "disc": lambda: r < 0.9,
        "box": lambda: np.maximum(abs(u), abs(v)) < 0.75,
        "triangle": lambda: (v < 0.6) & (v > 2 * abs(u) - 0.9),
        "star": lambda: r < 0.45 + 0.5 * abs(np.cos(2.5 * angle)) ** 2,
        "ring": lambda: (r < 0.95) & (r > 0.55),
        "cross": lambda: (np.minimum(abs(u), abs(v)) < 0.25) & (np.maximum(abs(u), abs(v)) < 0.9),
        "bar": lambda: (abs(u) < 0.95) & (abs(v) < 0.25),
        "pentagon": lambda: r * np.cos((angle % (2 * np.pi / 5)) - np.pi / 5) < 0.72,
        "crescent": lambda: (r < 0.9) & (np.hypot(u - 0.45, v) > 0.7),
        "heart": lambda: (u**2 + v**2 - 0.45) ** 3 + u**2 * v**3 < 0,
        "arrow": lambda: ((abs(u) < 0.22) & (abs(v) < 0.9)) | ((v < -0.1) & (v > abs(u) * 1.2 - 0.95)),
        "diamond": lambda: abs(u) * 1.5 + abs(v) < 0.95,
    }[name]()
    return found


def _box(mask: NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def _photographed(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light from one side, a soft lens and the noise of a sensor."""
    size = len(image)
    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size - 0.5
    light = 1 + rng.uniform(0, 0.4) * (np.cos(direction) * x + np.sin(direction) * y)
    lit = image * light[..., None]
    soft = (lit + np.roll(lit, 1, 0) + np.roll(lit, 1, 1) + np.roll(lit, (1, 1), (0, 1))) / 4
    noisy = soft + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    found: NDArray[np.uint8] = (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)
    return found
