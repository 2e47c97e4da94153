"""A bundle says of a file what it is: the precision of its layers, and a decoder that can read its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import eightfold as ef
from eightfold.errors import ModelError
from eightfold.export.int8.layer_precisions import narrowest_precision
from tests.export.networks import graph, saved

RULES = ef.Preprocess(height=16, width=16)
CLASSIFY = ef.Task(kind="classify", decode="classify")


def quantized(path: Path) -> Path:
    """One convolution between Q/DQ pairs, whose weight is stored in 8 bits."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"]),
        helper.make_node("Conv", ["images", "w"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    codes = np.random.default_rng(0).integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
    weights: dict[str, Any] = {"w8": codes, "scale": np.array(0.01, np.float32)}
    return saved(graph(nodes, {"images": [1, 3, 16, 16]}, {"logits": [1, 4]}, weights), path)


def test_an_int8_file_is_int8_in_its_bundle(tmp_path: Path) -> None:
    bundle = ef.export_bundle(quantized(tmp_path / "net.int8.onnx"), tmp_path / "b", preprocess=RULES, task=CLASSIFY)
    (artifact,) = ef.Bundle.open(bundle).manifest.artifacts
    assert artifact.precision == "int8"
    assert TensorProto.INT8 in {each.data_type for each in _initializers(tmp_path / "net.int8.onnx")}


def _initializers(path: Path) -> list[TensorProto]:
    import onnx

    return list(onnx.load(path).graph.initializer)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [({}, "fp32"), ({"fp32": 3}, "fp32"), ({"fp32": 3, "int8": 1}, "int8"), ({"fp16": 3, "fp32": 1}, "fp16")],
)
def test_a_network_is_called_by_its_narrowest_layers(layers: dict[str, int], expected: str) -> None:
    assert narrowest_precision(layers) == expected


@pytest.mark.parametrize("decode", ["yolo-dfl", "yolo-boxes", "segment", "matte"])
def test_a_decoder_of_another_head_is_refused_when_the_bundle_is_made(tmp_path: Path, decode: str) -> None:
    """Rather than when it first predicts."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    task = ef.Task.model_validate({"kind": "detect" if "yolo" in decode else decode, "decode": decode})
    with pytest.raises(ModelError, match=f"the decoder '{decode}' cannot read this network: output .* has shape"):
        ef.export_bundle(network, tmp_path / "b", preprocess=RULES, task=task)
    assert not (tmp_path / "b").exists()


def test_a_list_that_is_cut_says_so() -> None:
    """38 widths that are no multiple of 8 were twelve without a sign."""
    layers = [nn.Conv2d(3 if place == 0 else 12, 12, 1) for place in range(15)]
    shown = ef.inspect_model(nn.Sequential(*layers).eval(), torch.rand(1, 3, 4, 4)).describe()
    count = int(shown.partition("widths that are no multiple of 8: ")[2].split()[0])
    assert count > 12
    assert f"  ... and {count - 12} more" in shown


def test_what_was_compared_on_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.manual_seed(0 if name == "a" else 1)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
        ef.export_onnx(network, tmp_path / f"{name}.onnx", batch=1, image_size=16)
    pair = tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert "on random inputs" in ef.compare_artifacts(*pair).describe()
    images = {"images": np.full((1, 3, 16, 16), 0.5, np.float32)}
    assert "on random inputs" not in ef.compare_artifacts(*pair, inputs=images).describe()
