"""Small labelled images made by code: dark and light squares, which any working classifier tells apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_classes(folder: Path, *, each: int, size: int, seed: int = 0) -> None:
    """Write `each` images of two classes into `folder/train/LABEL` and `folder/test/LABEL`."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        for label, level in (("dark", 40), ("light", 200)):
            (folder / part / label).mkdir(parents=True, exist_ok=True)
            for place in range(each):
                image = np.clip(rng.normal(level, 20, (size, size, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / part / label / f"{place}.png"), image)
