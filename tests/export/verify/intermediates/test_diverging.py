"""Broken on purpose, layer by layer: the one that was broken has to be named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from eightfold.arrays import Arrays
from eightfold.export.simplify.simplify import simplify
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.intermediates.diverging import first_diverging, match_tensors
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import CHUNK_BYTES, Converting, chunks
from eightfold.export.verify.intermediates.torch_probe import TorchProbe
from eightfold.export.verify.verify import Tolerance
from tests.export.networks import graph, images, saved

EXACT = Tolerance(max_rel_error=1e-4)


class _Block(torch.nn.Module):
    """Two branches; the second is computed after the first and joins by addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.long = torch.nn.Sequential(
            torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(channels),
            torch.nn.ReLU(),
            torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(channels),
        )
        self.short = torch.nn.Sequential(torch.nn.Conv2d(channels, channels, 1), torch.nn.BatchNorm2d(channels))
        self.act = torch.nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.act(self.long(x) + self.short(x))
        return out


def _branched() -> torch.nn.Module:
    torch.manual_seed(0)
    stem, pool = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.AdaptiveAvgPool2d(1)
    net = torch.nn.Sequential(stem, _Block(8), _Block(8), pool, torch.nn.Flatten(), torch.nn.Linear(8, 5))
    with torch.no_grad():
        for _ in range(3):  # so that batch norm is no identity
            net(torch.rand(4, 3, 16, 16) * 2 - 0.5)
    return net.eval()


def _exported(net: torch.nn.Module, folder: Path) -> onnx.ModelProto:
    file = export_onnx(net, folder / "net.onnx", batch=1, image_size=16)
    return onnx.load(simplify(file))


def _scramble(model: onnx.ModelProto, layer: int) -> None:
    """Permute the weights of the so-manieth convolution or product."""
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    (tensor,) = [each for each in model.graph.initializer if each.name == products[layer].input[1]]
    weights = numpy_helper.to_array(tensor)
    mixed = np.random.default_rng(layer).permutation(weights.ravel()).reshape(weights.shape)
    tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))


LAYERS = ["0", "1.long.0", "1.long.3", "1.short.0", "2.long.0", "2.long.3", "2.short.0", "5"]


def test_the_broken_layer_of_an_export_is_named(tmp_path: Path) -> None:
    net = _branched()
    whole, inputs = _exported(net, tmp_path), {"images": images()}
    found = set()
    for layer in range(len(LAYERS)):
        broken = onnx.ModelProto()
        broken.CopyFrom(whole)
        _scramble(broken, layer)
        found.add(first_diverging(TorchProbe(net), OnnxProbe(broken), (inputs, inputs), EXACT))
    assert found == set(LAYERS)


def test_the_broken_layer_of_another_module_is_named() -> None:
    net, other, inputs = _branched(), _branched(), {"images": images()}
    other[2].short[0].bias.data += 1  # type: ignore[index]  # modules are untyped
    assert first_diverging(TorchProbe(net), TorchProbe(other), (inputs, inputs), EXACT) == "2.short.0"
    assert first_diverging(TorchProbe(net), TorchProbe(net), (inputs, inputs), EXACT) == ""


def test_graphs_that_share_no_names(tmp_path: Path) -> None:
    whole = _exported(_branched(), tmp_path)
    other = onnx.ModelProto()
    other.CopyFrom(whole)
    for node in other.graph.node:
        node.input[:] = [f"{name}_" if name != "images" else name for name in node.input]
        node.output[:] = [f"{name}_" for name in node.output]
    for named in (*other.graph.initializer, *other.graph.output):
        named.name += "_"
    inputs = {"images": images()}
    matches = match_tensors(OnnxProbe(whole), OnnxProbe(other), (inputs, inputs))
    assert {match.inner.name: match.other and match.other.name for match in matches.by_place.values()} == {
        name: f"{name}_" for node in whole.graph.node for name in node.output
    }
    _scramble(other, 2)
    (node,) = [each for each in whole.graph.node if each.op_type == "Conv"][2:3]
    assert first_diverging(OnnxProbe(whole), OnnxProbe(other), (inputs, inputs), EXACT) == node.output[0]


def test_every_layer_that_survives_is_found_and_what_was_folded_is_not(tmp_path: Path) -> None:
    net, inputs = _branched(), {"images": images()}
    matches = match_tensors(TorchProbe(net), OnnxProbe(_exported(net, tmp_path)), (inputs, inputs))
    lost = {each.inner.name for each in matches.by_place.values() if each.other is None and not each.inner.moves}
    assert lost == {name for name in LAYERS if name not in ("0", "5")}  # batch norm follows
    errors = [each.difference.max_rel_error for each in matches.by_place.values() if each.difference]
    assert max(errors) < 1e-5
    assert matches.first_beyond(EXACT) is None


def test_the_network_may_take_its_images_in_another_form(tmp_path: Path) -> None:
    net = _branched()
    pixels = {"images": np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16)).astype(np.uint8)}

    def scaled(inputs: Arrays) -> Arrays:
        return {"images": inputs["images"].astype(np.float32) / 255}

    probes = Converting(TorchProbe(net), scaled), Converting(OnnxProbe(_exported(net, tmp_path)), scaled)
    assert first_diverging(*probes, (pixels, pixels), EXACT) == ""


def _with_a_loop(limit: float) -> onnx.ModelProto:
    """Clipping happens inside an If, whose branches read a tensor from outside."""
    inner = helper.make_graph(
        [helper.make_node("Min", ["rectified", "limit"], ["clipped"])],
        "then",
        [],
        [helper.make_tensor_value_info("clipped", 1, [2, 3])],
    )
    nodes = [
        helper.make_node("Relu", ["images"], ["rectified"]),
        helper.make_node("If", ["always"], ["chosen"], then_branch=inner, else_branch=inner),
        helper.make_node("Neg", ["chosen"], ["out"]),
    ]
    weights = {"limit": np.array(limit, np.float32), "always": np.array(True)}
    return graph(nodes, {"images": [2, 3]}, {"out": [2, 3]}, weights)


def test_what_an_inner_graph_reads_counts_as_a_source(tmp_path: Path) -> None:
    files = [saved(_with_a_loop(limit), tmp_path / f"{limit}.onnx") for limit in (9, 0.1)]
    inputs = {"images": np.random.default_rng(0).random((2, 3), dtype=np.float32)}
    assert first_diverging(OnnxProbe(files[0]), OnnxProbe(files[1]), (inputs, inputs), EXACT) == "chosen"


def test_a_graph_in_memory_is_left_as_it_was(tmp_path: Path) -> None:
    model = _exported(_branched(), tmp_path)
    before = model.SerializeToString(deterministic=True)
    OnnxProbe(model).watch({"images": images()}, lambda *_: None)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("limit", "expected"), [(100, [["a"], ["b"], ["c", "d"]]), (CHUNK_BYTES, [["a", "b", "c", "d"]])]
)
def test_no_more_is_asked_for_at_once_than_fits(limit: int, expected: list[list[str]]) -> None:
    assert list(chunks("abcd", {"a": 100, "b": 120, "c": 60, "d": 40}, limit)) == expected


def test_chunks_give_the_same_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = _branched(), {"images": images()}
    model = _exported(net, tmp_path)

    def errors() -> list[float]:
        found = match_tensors(TorchProbe(net), OnnxProbe(model), (inputs, inputs)).by_place.values()
        return [match.difference.max_abs_error for match in found if match.difference]

    at_once = errors()
    few: Callable[..., object] = lambda names, sizes: chunks(names, sizes, 2000)  # noqa: E731 - a stand-in
    monkeypatch.setattr("eightfold.export.verify.intermediates.onnx_probe.chunks", few)
    monkeypatch.setattr("eightfold.export.verify.intermediates.diverging.CHUNK_BYTES", 2000)
    assert errors() == at_once
