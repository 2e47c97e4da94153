from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from eightfold.errors import ModelError, VerificationError
from eightfold.export.fixed_size import batches
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.export.verify.verify import run_module_arrays, run_onnx
from eightfold.onnx_graph.change_batch import rebatched
from eightfold.onnx_graph.weights import share_weights
from tests.export.networks import SmallNet, graph, images, saved, small_net


class TokenNet(torch.nn.Module):
    """A class token, heads and windows: the batch goes into reshapes and into an expanded constant."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 16, 8, 8)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 16))
        self.qkv = torch.nn.Linear(16, 48)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n = images.shape[0]
        tokens = torch.cat([self.token.expand(n, -1, -1), self.patch(images).flatten(2).transpose(1, 2)], 1)
        q, k, v = self.qkv(tokens).reshape(n, -1, 3, 2, 8).permute(2, 0, 3, 1, 4).reshape(3, n * 2, -1, 8).unbind()
        mixed = ((q @ k.transpose(1, 2)).softmax(-1) @ v).reshape(n, 2, -1, 8).transpose(1, 2).reshape(n, -1, 16)
        out: torch.Tensor = self.head(mixed[:, 0])
        return out


@pytest.mark.parametrize("build", [small_net, TokenNet])
def test_derived_batches_answer_as_the_module(tmp_path: Path, build: type[torch.nn.Module]) -> None:
    net, rows = build(), images(5)
    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2, 4, 5)}
    steps = export_batches(net, paths, images=rows)
    assert {batch: steps[batch][0].tool for batch in paths} == {
        1: "derived from two other batches",
        2: "torch.onnx (torchscript)",
        4: "torch.onnx (torchscript)",
        5: "derived from two other batches",
    }
    reference = run_module_arrays(net, rows)[0]
    for batch, path in paths.items():
        onnx.checker.check_model(str(path), full_check=True)
        (seen,) = run_onnx(path, {"images": rows[:batch]}).values()
        np.testing.assert_allclose(seen, reference[:batch], rtol=1e-4, atol=1e-5)


def test_a_network_whose_graph_depends_on_the_batch_is_exported_at_each(tmp_path: Path) -> None:
    class PerBatch(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = super().forward(images)
            for _ in range(images.shape[0]):
                out = out.sin()
            return out

    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2, 3)}
    steps = export_batches(PerBatch(), paths, images=images(3))
    assert {steps[batch][0].tool for batch in paths} == {"torch.onnx (torchscript)"}


class Binned(torch.nn.Module):
    """The TorchScript exporter cuts quotients off where // rounds them down: below zero it is one too high."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.5) * 8 // 3


def test_the_other_exporter_is_tried_where_the_first_is_wrong(tmp_path: Path) -> None:
    rows, paths = images(4), {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2, 4)}
    steps = export_batches(Binned(), paths, images=rows)
    assert [steps[batch][0].tool for batch in (2, 4)] == ["torch.onnx (dynamo)"] * 2
    assert steps[2][0].notes[0].startswith("the first exporter's: export (on 4 images) changed output 'output0'")
    for batch, path in paths.items():
        (seen,) = run_onnx(path, {"images": rows[:batch]}).values()
        np.testing.assert_array_equal(seen, run_module_arrays(Binned(), rows[:batch])[0])


def test_where_both_are_wrong_the_first_ones_difference_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def export(_: torch.nn.Module, path: Path, *, exporter: Exporter, **options: Any) -> Path:
        used.append(exporter)
        limit = {"auto": 0.5, "dynamo": 0.25}[exporter]
        return export_onnx(torch.nn.Hardtanh(0, limit), path, exporter=exporter, **options)

    monkeypatch.setattr(batches, "export_onnx", export)
    with pytest.raises(VerificationError, match=r"max relative error (0\.49|0\.5)"):  # of brightness 1
        export_batches(torch.nn.Identity(), {1: tmp_path / "x.onnx"}, images=images(1))
    assert used == ["auto", "dynamo"]
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_not_linear_in_the_batch_is_refused() -> None:
    def at(batch: int, size: int) -> onnx.ModelProto:
        nodes = [helper.make_node("Expand", ["images", "shape"], ["out"])]
        return graph(nodes, {"images": [batch, 1]}, {"out": [batch, size]}, {"shape": np.array([batch, size])})

    assert list(numpy_helper.to_array(rebatched(at(2, 4), at(4, 8), 3).graph.initializer[0])) == [3, 6]
    with pytest.raises(ModelError, match="a size goes from 4 to 7 with the batch from 2 to 4"):
        rebatched(at(2, 4), at(4, 7), 3)


def test_weights_that_depend_on_the_batch_are_refused() -> None:
    def at(batch: int) -> onnx.ModelProto:
        nodes = [helper.make_node("Mul", ["images", "w"], ["out"])]
        return graph(nodes, {"images": [batch, 1]}, {"out": [batch, 1]}, {"w": np.array([batch / 3], np.float32)})

    with pytest.raises(ModelError, match="constant 'w' depends on the batch"):
        rebatched(at(2), at(3), 1)


def test_a_failed_check_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b1.onnx").write_bytes(b"old")
    other = small_net(seed=1)
    monkeypatch.setattr(batches, "export_onnx", lambda _, path, **options: export_onnx(other, path, **options))
    with pytest.raises(VerificationError):
        export_batches(small_net(), {1: tmp_path / "b1.onnx"}, images=images())
    assert (tmp_path / "b1.onnx").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["b1.onnx"]


def _limited(monkeypatch: pytest.MonkeyPatch, at_batch: int) -> None:
    """From now on the file of one batch does not let through what is beyond any image's brightness."""

    def export(net: torch.nn.Module, path: Path, *, batch: int, **options: Any) -> Path:
        limit = 1.5 if batch == at_batch else 100.0
        return export_onnx(torch.nn.Sequential(torch.nn.Hardtanh(-limit, limit), net), path, batch=batch, **options)

    monkeypatch.setattr(batches, "export_onnx", export)


@pytest.mark.parametrize(("size", "found"), [(1, "extremes"), (4, "extremes, noise, zeros and ones")])
def test_every_batch_is_tried_on_what_no_image_reaches(
    size: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limited(monkeypatch, size)
    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 4)}
    words = rf"export \(on {found}\) changed output 'logits': .*; first diverging tensor: 'stem.0'"
    with pytest.raises(VerificationError, match=words):
        export_batches(small_net(), paths, images=images(4))
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in paths.values()][: int(size > 1)]


def test_a_derived_batch_is_tried_on_what_no_image_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(*given: Any) -> onnx.ModelProto:
        model = rebatched(*given)
        first = model.graph.node[0]
        limits = [helper.make_tensor(name, 1, [], [value]) for name, value in (("low", -1.5), ("high", 1.5))]
        model.graph.initializer.extend(limits)
        model.graph.node.insert(0, helper.make_node("Clip", [first.input[0], "low", "high"], ["clipped"]))
        model.graph.node[1].input[0] = "clipped"
        return model

    monkeypatch.setattr(batches, "rebatched", limited)
    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (2, 3, 4)}
    with pytest.raises(
        VerificationError, match=r"on extremes, noise, zeros and ones.*first diverging tensor: 'stem.0'"
    ):
        export_batches(small_net(), paths, images=images(4))


def test_the_steps_say_on_what_they_were_compared(tmp_path: Path) -> None:
    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2, 3)}
    input_sets = {
        batch: [note.partition(": ")[0] for note in steps[0].notes]
        for batch, steps in export_batches(small_net(), paths, images=images(5)).items()
    }
    mixed = "on extremes, noise, zeros and ones"
    assert input_sets == {
        1: ["on 5 images", mixed],
        2: ["on 4 images", "on zeros", "on ones", "on extremes", "on noise"],
        3: ["on 3 images", mixed],
    }
    (step, simplified) = export_batches(small_net(), {4: tmp_path / "x.onnx"}, images=images(2), real=False)[4]
    assert step.notes[0].startswith("on random values (no images given): relative error")
    assert any(note.startswith("on random values (no images given): ") for note in simplified.notes)
    (step, _) = export_batches(small_net(), {4: tmp_path / "x.onnx"}, images=images(2))[4]
    assert step.notes[0].startswith("on 2 images: ")


def _linear(batch: int, path: Path) -> Path:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["images", "w"], ["out"])]
    return saved(graph(nodes, {"images": [batch, 64]}, {"out": [batch, 64]}, {"w": weight}), path)


def test_shared_weights_are_stored_once_and_answer_the_same(tmp_path: Path) -> None:
    files = [_linear(batch, tmp_path / f"b{batch}.onnx") for batch in (1, 2, 8)]
    feeds = {"images": np.random.default_rng(1).random((8, 64), dtype=np.float32)}
    before = run_onnx(files[2], feeds)["out"]
    blob = share_weights(files, "net.weights")
    assert blob.stat().st_size == 64 * 64 * 4
    assert all(file.stat().st_size < 1024 for file in files)
    np.testing.assert_array_equal(run_onnx(files[2], feeds)["out"], before)


def test_sharing_twice_changes_nothing(tmp_path: Path) -> None:
    files = [_linear(batch, tmp_path / f"b{batch}.onnx") for batch in (1, 2)]
    blob = share_weights(files, "net.weights")
    first = [file.read_bytes() for file in (*files, blob)]
    share_weights(files, "net.weights")
    assert [file.read_bytes() for file in (*files, blob)] == first
