"""Generated scenes with a class for each pixel: images/, masks/ and classes.txt, as segmentation reads them."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import PathLike, atomic_directory, write_text
from eightfold.zoo.datasets.scenes import SHAPES, SceneOptions, scene

LEAST_SIDE = 32


def write_masked_scenes(
    directory: PathLike, *, train: int, test: int, side: int, classes: int = 3, seed: int = 0
) -> Path:
    """Write `train/` and `test/`, each with `images/N.png` and `masks/N.png`, and `classes.txt`: the background, which
    is class 0, and the shapes. Whole or not at all."""
    if side < LEAST_SIDE or min(train, test) < 1:
        raise UsageError(
            f"{train} and {test} scenes of {side} pixels", allowed=f"1 or more, of {LEAST_SIDE} pixels or more"
        )
    cv2 = require("cv2", "write images")
    options = SceneOptions(classes=classes, size=side, seed=seed)
    with atomic_directory(directory, replaces=("train", "test")) as folder:
        for part, numbers in (("train", range(train)), ("test", range(train, train + test))):
            for name in ("images", "masks"):
                (folder / part / name).mkdir(parents=True)
            for number in numbers:
                found = scene(number, options)
                cv2.imwrite(str(folder / part / f"images/{number:06d}.png"), found.image[..., ::-1])
                cv2.imwrite(str(folder / part / f"masks/{number:06d}.png"), found.classes)
        write_text(folder / "classes.txt", "\n".join(("background", *SHAPES[:classes])) + "\n")
    return Path(directory)
