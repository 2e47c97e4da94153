"""Equalization leaves the function alone, and makes badly scaled channels quantizable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from eightfold.calib.equalize import equalize
from tests.calib.conftest import residual_weights

ModelMaker = Callable[..., Path]
FACTORS = np.logspace(-2, 2, 8).astype(np.float32)


def badly_scaled() -> dict[str, Any]:
    """The same network, with the depthwise layer's channels stretched and the next layer's shrunk to match."""
    weights = residual_weights()
    return {
        "w2": weights["w2"] * FACTORS[:, None, None, None],
        "b2": weights["b2"] * FACTORS,
        "w3": weights["w3"] / FACTORS[None, :, None, None],
    }


def run(path: Path, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": row[None]})[0] for row in rows])


@pytest.mark.parametrize("with_images", [False, True])
def test_the_function_stays_and_the_channels_come_together(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, with_images: bool
) -> None:
    path = residual_net(**badly_scaled())
    output, report = equalize(path, tmp_path / "equal.onnx", images=rows if with_images else None)
    np.testing.assert_allclose(run(output, rows[:8]), run(path, rows[:8]), rtol=1e-3, atol=1e-4)
    assert report.pairs == (("depthwise", "point"),)  # the residual's channels are read twice
    assert report.spread_before > 1e3
    assert report.spread_after < 30


def test_a_clip_is_not_equalized_over(residual_net: ModelMaker, tmp_path: Path) -> None:
    path = residual_net()
    model = onnx.load(str(path))
    model.graph.node[3].op_type = "Clip"
    onnx.save(model, str(path))
    assert equalize(path, tmp_path / "equal.onnx")[1].pairs == ()


def test_a_dead_channel_stays_dead(residual_net: ModelMaker, rows: Any, tmp_path: Path) -> None:
    weights = residual_weights()
    weights["w2"][3] = 0
    weights["b2"][3] = 0
    path = residual_net(w2=weights["w2"], b2=weights["b2"])
    output, _ = equalize(path, tmp_path / "equal.onnx")
    np.testing.assert_allclose(run(output, rows[:4]), run(path, rows[:4]), rtol=1e-3, atol=1e-5)
