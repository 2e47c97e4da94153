"""A labelled data set of two classes that any network tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def write_dark_and_bright(folder: Path, *, train: int, test: int = 4) -> None:
    """`train/LABEL/*` and `test/LABEL/*` with noise of 16x16 pixels, so many images of each label."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for label, base in (("dark", 20), ("bright", 150)):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = base + rng.integers(0, 60, (16, 16, 3))
                cv2.imwrite(str(folder / part / label / f"{number}.png"), pixels.astype(np.uint8))
