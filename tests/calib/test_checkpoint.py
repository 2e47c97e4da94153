"""An interrupted calibration goes on where it stopped and ends in the same ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib import checkpoint
from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.data_reader import batched
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError

ModelMaker = Callable[..., Path]
PREPROCESS = Preprocess(height=12, width=12)


@pytest.mark.parametrize("method", ["minmax", "moving-average", "entropy"])
def test_going_on_gives_the_same_ranges(
    residual_net: ModelMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    images = open_images(np.random.default_rng(0).integers(0, 256, (20, 14, 15, 3), dtype=np.uint8))
    path, kept = residual_net(), tmp_path / "ranges.partial"
    whole = calibrate(path, images, PREPROCESS, method=method, batch=4)

    def break_off_after_three(self: Any) -> None:
        self.save()
        if self.rows.tally.used == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._State, "save_now_and_then", break_off_after_three)
        with pytest.raises(KeyboardInterrupt):
            calibrate(path, images, PREPROCESS, method=method, batch=4, checkpoint=kept)
    assert kept.exists()
    seen: list[str] = []

    def spied(items: Any, size: int) -> Any:
        for batch in batched(items, size):
            seen.extend(name for name, _ in batch)
            yield batch

    monkeypatch.setattr("eightfold.calib.calibrate.batched", spied)
    assert calibrate(path, images, PREPROCESS, method=method, batch=4, checkpoint=kept) == whole
    assert seen == [f"image {index}" for index in range(12, 20)]
    assert not kept.exists()


@pytest.mark.parametrize("content", [b"", b"PK damaged"])
def test_a_damaged_checkpoint_is_ignored(residual_net: ModelMaker, tmp_path: Path, content: bytes) -> None:
    images = open_images(np.random.default_rng(0).integers(0, 256, (6, 14, 15, 3), dtype=np.uint8))
    kept = tmp_path / "ranges.partial"
    kept.write_bytes(content)
    assert calibrate(residual_net(), images, PREPROCESS, method="minmax", checkpoint=kept).images == 6


def test_a_stream_cannot_be_resumed(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a checkpoint with a stream"):
        calibrate(residual_net(), iter(rows), None, checkpoint=tmp_path / "kept")
