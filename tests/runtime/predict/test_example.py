from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "camera.py"


def test_the_camera_loop(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(4):
        writer.write(np.full((48, 64, 3), (255, 0, 0), np.uint8))
    writer.release()
    shown: list[Any] = []
    monkeypatch.setattr(cv2, "imshow", lambda name, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda wait_ms: ord("q") if len(shown) == 3 else -1)
    spec = importlib.util.spec_from_file_location("camera", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(bundle_path), str(tmp_path / "clip.avi"))
    assert len(shown) == 3
    assert "frames/s  blue" in capsys.readouterr().out
