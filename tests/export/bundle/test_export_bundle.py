"""Exporting straight into a bundle: odd files give bundles that predict, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError, ModelError, UsageError, VerificationError
from eightfold.export.bundle.export_bundle import RAW_OUTPUTS, export_bundle
from eightfold.export.fixed_size import batches
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import run_onnx
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import graph, saved, small_net


@pytest.mark.parametrize("batches", [(), (0,), (1, -3)])
def test_batches_that_make_no_sense(tmp_path: Path, batches: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"batches .* allowed: whole numbers of at least 1"):
        export_bundle("model.onnx", tmp_path / "b", preprocess=Preprocess(height=8, width=8), batches=batches)
    assert not (tmp_path / "b").exists()


def test_raw_outputs_have_a_decoder() -> None:
    assert decoder_of(RAW_OUTPUTS)


WEIGHTS = {"w": np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)}
IMAGE = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMALL = Preprocess(height=16, width=16)


def conv(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [target], pads=[1, 1, 1, 1])


def typed(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """With an input of another type."""
    model.graph.input[0].type.tensor_type.elem_type = dtype
    return model


def channels_last(batch: str | int) -> onnx.ModelProto:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), conv("t", "y")]
    return graph(nodes, {"x": [batch, "h", "w", 3]}, {"y": [batch, 8, "h", "w"]}, WEIGHTS)


def pixels() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        conv("t", "y"),
    ]
    return typed(graph(nodes, {"x": ["n", 16, 16, 3]}, {"y": ["n", 8, 16, 16]}, WEIGHTS), TensorProto.UINT8)


def fixed_batch() -> onnx.ModelProto:
    nodes = [conv("x", "c"), helper.make_node("Reshape", ["c", "shape"], ["y"])]
    return graph(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 2048]}, {**WEIGHTS, "shape": np.array([1, 2048])})


def odd_names() -> onnx.ModelProto:
    nodes = [conv("in/put \u00fc x:0", "c d"), helper.make_node("Relu", ["c d"], ["out/\u00e4 1"])]
    return graph(nodes, {"in/put \u00fc x:0": ["N", 3, 16, 16]}, {"out/\u00e4 1": ["N", 8, 16, 16]}, WEIGHTS)


@pytest.mark.parametrize("make", [lambda: channels_last("n"), lambda: channels_last(1), pixels, fixed_batch, odd_names])
def test_odd_files_give_bundles_that_predict(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    file = saved(model, tmp_path / "their net.onnx")
    path = export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(1, 2))
    how = Bundle.open(path).manifest.preprocess
    (spec,) = Bundle.open(path).manifest.artifacts[0].inputs
    with Predictor(path, backend="onnxruntime") as predictor:
        first, second = predictor.predict([IMAGE, IMAGE[::-1]])
    for answer, image in ((first, IMAGE), (second, IMAGE[::-1])):
        expected = run_onnx(file, {spec.name: how(np.ascontiguousarray(image))[None]})
        for name, array in answer.arrays.items():
            np.testing.assert_allclose(array, expected[name][0], rtol=1e-4, atol=1e-4)


def _first_notes(bundle: Path) -> list[str]:
    (artifact,) = Bundle.open(bundle).manifest.artifacts
    return [next(note for note in step.notes if note.startswith("on ")).partition(":")[0] for step in artifact.steps]


def test_a_network_that_answers_with_nan_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    net = small_net()
    torch.nn.init.constant_(net.depthwise.weight, float("nan"))
    with pytest.warns(UserWarning, match=r"SmallNet: on random values .* answers with NaN .*; check its weights"):
        export_bundle(net, tmp_path / "b", preprocess=SMALL)


def test_every_step_is_compared_on_images(tmp_path: Path) -> None:
    bright = [np.full((16, 16, 3), place, np.uint8) for place in range(20)]
    options: dict[str, Any] = {"preprocess": SMALL, "preprocess_in_graph": True, "batches": (2,)}
    path = export_bundle(small_net(), tmp_path / "b", images=bright, **options)
    assert _first_notes(path) == ["on 16 images"] * 3
    path = export_bundle(small_net(), tmp_path / "b", **options)
    assert _first_notes(path) == ["on random values (no images given)"] * 3


def test_what_only_an_image_reaches_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that answers otherwise where everything lies between 0.7 and 0.8."""

    def other(net: torch.nn.Module, path: Path, **options: Any) -> Path:
        return export_onnx(Notch(net), path, **options)

    monkeypatch.setattr(batches, "export_onnx", other)
    assert export_bundle(small_net(), tmp_path / "b", preprocess=SMALL).exists()
    grey = np.full((16, 16, 3), 191, np.uint8)
    with pytest.raises(VerificationError, match=r"export \(on 1 image\) changed output 'logits'"):
        export_bundle(small_net(), tmp_path / "c", preprocess=SMALL, images=[grey])
    assert not (tmp_path / "c").exists()


class Notch(torch.nn.Module):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = ((images - 0.75).abs().amax((1, 2, 3)) < 0.05).float()[:, None]
        out: torch.Tensor = self.net(images) + grey
        return out


def sequence() -> onnx.ModelProto:
    model = graph([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], {"x": ["n", 3, 16, 16]}, {})
    model.graph.output.append(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    return model


def one_node(op: str, shape: Sequence[int | str], out: Sequence[int | str], **options: Any) -> onnx.ModelProto:
    return graph([helper.make_node(op, ["x"], ["y"], **options)], {"x": shape}, {"y": out}, opset=13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sequence, "'y' is a sequence; allowed: inputs and outputs of tensors"),
        (
            lambda: one_node("Relu", [3, 16, 16], [3, 16, 16]),
            "is float32 with 3 axes; allowed: float32 or uint8",
        ),
        (
            lambda: typed(one_node("Cast", [1, 3, 16, 16], [1, 3, 16, 16], to=1), TensorProto.INT64),
            "is int64 with 4 axes; allowed: .* put a Cast or a Reshape in front of it",
        ),
        (
            lambda: one_node("ReduceMean", ["n", 3, 16, 16], [3, 16, 16], axes=[0], keepdims=0),
            r"output 'y' has the shape \(3, 16, 16\) at batch 2; allowed: outputs whose first axis is the batch",
        ),
        (lambda: one_node("Relu", [1, 3, 24, 24], [1, 3, 24, 24]), r"'x' was to be 2x3x16x16; allowed: 1x3x24x24"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, make: Callable[[], onnx.ModelProto], words: str) -> None:
    file = saved(make(), tmp_path / "x.onnx")
    with pytest.raises(EightfoldError, match=words) as caught:
        export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(2,))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_a_batch_that_a_file_cannot_have_is_refused(tmp_path: Path) -> None:
    nodes = [conv("x", "c"), helper.make_node("Add", ["c", "bias"], ["y"])]
    weights = {**WEIGHTS, "bias": np.zeros((3, 8, 16, 16), np.float32)}
    file = saved(graph(nodes, {"x": [3, 3, 16, 16]}, {"y": [3, 8, 16, 16]}, weights), tmp_path / "x.onnx")
    words = r"x\.onnx is fixed at batch 3, and does not run at 2 .*; allowed: batch 3; export the network again with"
    with pytest.raises(ModelError, match=words):
        export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(2,))
