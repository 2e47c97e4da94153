"""Each step is broken on purpose, in a layer that is known: the step fails, names that layer and keeps what was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from eightfold.calib.calibrate import calibrate
from eightfold.calib.equalize import Equalization, equalized
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import VerificationError
from eightfold.export.fixed_size import batches, file_source
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.fixed_size.fix_shapes import frozen
from eightfold.export.fp16 import fp16 as half
from eightfold.export.fp16.fp16 import half_onnx
from eightfold.export.fp16.fp16_graph import fp16_graph
from eightfold.export.in_graph import in_graph
from eightfold.export.in_graph.in_graph import put_preprocess_in, with_preprocess
from eightfold.export.int8 import output_errors
from eightfold.export.int8.equalize import equalize
from eightfold.export.int8.qdq import apply_qdq
from eightfold.export.int8.quantize import quantize
from eightfold.export.openvino import openvino_build
from eightfold.export.openvino.openvino_build import build_openvino, read_openvino
from eightfold.export.simplify import simplify
from eightfold.export.simplify.passes.run import apply_passes
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import Tolerance
from eightfold.onnx_graph.change_batch import rebatched
from tests.export.networks import images, small_net

LAYER = "depthwise"
TRIALS = ["on zeros", "on ones", "on extremes", "on noise"]
APPLY_QDQ = "eightfold.export.int8.quantize.apply_qdq"
EXACT = Tolerance(max_rel_error=1e-4)


def _spoil(model: onnx.ModelProto) -> onnx.ModelProto:
    """Reverse the weights of the depthwise convolution."""
    (node,) = [each for each in model.graph.node if each.op_type == "Conv" and _groups(each) == 8]
    (tensor,) = [each for each in model.graph.initializer if each.name == node.input[1]]
    weights = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(-9 * weights[::-1]), tensor.name))
    return model


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _spoiling_file(step: Callable[..., Path]) -> Callable[..., Path]:
    """The step, which also spoils the file that it writes."""

    def spoilt(*args: Any, **options: Any) -> Path:
        path = step(*args, **options)
        onnx.save(_spoil(onnx.load(path)), path)
        return path

    return spoilt


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)


@pytest.fixture
def layer(network: Path) -> str:
    """What the depthwise convolution puts out, in the file."""
    model = onnx.load(network)
    return str(next(node.output[0] for node in model.graph.node if _groups(node) == 8))


@pytest.fixture
def photographs() -> ImageSet:
    rng = np.random.default_rng(0)
    return open_images([rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(4)])


def _first(name: str) -> str:
    return f"first diverging tensor: '{name}'"


def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b1.onnx"
    target.write_text("what was there")
    monkeypatch.setattr(batches, "export_onnx", _spoiling_file(export_onnx))
    with pytest.raises(VerificationError, match=rf"export \(on 1 image\) changed output 'logits': .*{_first(LAYER)}"):
        export_batches(small_net(), {1: target}, images=images())
    assert target.read_text() == "what was there"


def test_freeze(tmp_path: Path, network: Path, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "frozen", lambda *args, **options: _spoil(frozen(*args, **options)))
    with pytest.raises(VerificationError, match=_first(layer)):
        export_batches(network, {1: tmp_path / "b1.onnx"}, images=images())
    assert not (tmp_path / "b1.onnx").exists()


def test_a_batch_that_is_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rebatched
    monkeypatch.setattr(batches, "rebatched", lambda *each: _spoil(whole(*each)))
    files = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2, 3)}
    with pytest.raises(VerificationError, match=_first(LAYER)):
        export_batches(small_net(), files, images=images())


def test_simplify(network: Path, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes the answer is passed over; the report says where."""
    whole = apply_passes

    def spoiling(model: onnx.ModelProto) -> None:
        whole(model)
        if model.graph.initializer:
            _spoil(model)

    monkeypatch.setattr(simplify, "apply_passes", spoiling)
    notes = simplify_onnx(network, network.with_name("small.onnx")).step.notes
    assert any("passed over" in note and _first(layer) in note for note in notes)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half(kind: Any, network: Path, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fp16_graph

    def spoiling(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return whole(_spoil(copy), **options)

    monkeypatch.setattr(half, "fp16_graph", spoiling)
    with pytest.raises(VerificationError, match=_first(layer)):
        half_onnx(network, network.with_name("half.onnx"), inputs={"images": images()}, kind=kind)
    assert not network.with_name("half.onnx").exists()


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_quantize(form: Any, network: Path, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = calibrate(network, list(images(8)), None, method="minmax")
    target = tmp_path / "int8.onnx"
    _, report = quantize(network, ranges, target, form=form, images=list(images(20)))
    assert report.step.notes[0].startswith("on 16 images: relative error 0.0")
    assert report.step.name == "quantize for cpu-x86"
    kept = target.read_bytes()
    monkeypatch.setattr(output_errors, "LEAST_COSINE", 0.999)
    monkeypatch.setattr(output_errors, "SMALL_ERROR", 0.0)  # the network is hardly trained: its answers are small
    monkeypatch.setattr(APPLY_QDQ, lambda graph, plan: _negated(apply_qdq(graph, plan)))
    words = rf"quantize for cpu-x86 \(on 16 images\) changed output 'logits': cosine .*{_first(layer)}"
    with pytest.raises(VerificationError, match=words):
        quantize(network, ranges, target, form=form, images=list(images(20)))
    assert target.read_bytes() == kept
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "int8.onnx"}


def _negated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Codes of the depthwise convolution's weights with the other sign, many times as large as they may be."""
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.shape == (8, 1, 3, 3):
            tensor.CopyFrom(numpy_helper.from_array(np.where(codes > 0, -127, 127).astype(np.int8), tensor.name))
    return model


def test_int8_that_gives_nan_for_a_black_image(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = calibrate(network, list(images(8)), None, method="minmax")
    monkeypatch.setattr(APPLY_QDQ, lambda graph, plan: _divided_by_itself(apply_qdq(graph, plan)))
    words = r"\(on zeros\) left output 'logits' not finite; first tensor that is not: 'ratio'; allowed: finite answers"
    with pytest.raises(VerificationError, match=words):
        quantize(network, ranges, tmp_path / "int8.onnx", form="qdq")
    assert not (tmp_path / "int8.onnx").exists()


def _divided_by_itself(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add 0 * (the image over itself) to the answer."""
    own, output = model.graph.input[0].name, model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["answer" if name == output else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    model.graph.node.extend(
        [
            helper.make_node("Div", [own, own], ["ratio"]),
            helper.make_node("ReduceMean", ["ratio"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["offset"]),
            helper.make_node("Add", ["answer", "offset"], [output]),
        ]
    )
    return model


def test_equalize(network: Path, tmp_path: Path, photographs: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess, output = Preprocess(height=16, width=16), tmp_path / "equalized.onnx"
    _, report = equalize(network, output, images=photographs, preprocess=preprocess)
    (step,) = report.steps
    assert step.max_rel_error is not None
    assert step.max_rel_error < 1e-5
    assert [note.partition(": ")[0] for note in step.notes] == ["on 4 images", *TRIALS]
    before = output.read_bytes()
    _change_equalized(monkeypatch, _spoil)
    words = r"equalize \(on 4 images\) changed output 'logits': .*first diverging tensor: '.*onv"
    with pytest.raises(VerificationError, match=words):
        equalize(network, output, images=photographs, preprocess=preprocess)
    with pytest.raises(VerificationError, match=r"equalize \(on random values .*\) changed output 'logits'"):
        equalize(network, output)
    assert output.read_bytes() == before


def test_equalize_holds_beyond_the_images(
    network: Path, tmp_path: Path, photographs: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a clip became a Relu, because no image reaches its bound."""
    run = partial(
        equalize, network, tmp_path / "o.onnx", images=photographs, preprocess=Preprocess(height=16, width=16)
    )
    _change_equalized(monkeypatch, _limited)
    with pytest.raises(VerificationError, match=r"equalize \(on extremes\) changed output 'logits'"):
        run()
    _change_equalized(monkeypatch, _limited, clips=("limit",))
    _, report = run()
    (step,) = report.steps
    assert step.max_rel_error is not None
    assert step.max_rel_error < 1e-5
    assert all(", cosine 0." in note for note in step.notes if note.startswith("on extremes"))


def _change_equalized(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], onnx.ModelProto], **said: Any
) -> None:
    def changed(*args: Any) -> tuple[onnx.ModelProto, Equalization]:
        model, done = equalized(*args)
        return change(model), done.model_copy(update=said)

    monkeypatch.setattr("eightfold.export.int8.equalize.equalized", changed)


def _limited(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let nothing above 1.5 into the network, which no image is."""
    own = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["limited" if name == own else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1.5, np.float32), "limit"))
    model.graph.node.insert(0, helper.make_node("Min", [own, "limit"], ["limited"]))
    return model


def test_preprocess_in_graph(network: Path, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_preprocess

    def spoiling(model: onnx.ModelProto, how: Preprocess) -> tuple[onnx.ModelProto, Preprocess]:
        made, how = whole(model, how)
        return _spoil(made), how

    before = network.read_bytes()
    monkeypatch.setattr(in_graph, "with_preprocess", spoiling)
    with pytest.raises(VerificationError, match=_first(layer)):
        put_preprocess_in(network, Preprocess(height=16, width=16), tolerance=EXACT)
    assert network.read_bytes() == before


def test_openvino(network: Path, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    whole = read_openvino

    def spoiling(path: Path) -> Any:
        spoilt = tmp_path / "spoilt.onnx"
        onnx.save(_spoil(onnx.load(path)), spoilt)
        return whole(spoilt)

    monkeypatch.setattr(openvino_build, "read_openvino", spoiling)
    with pytest.raises(VerificationError, match=rf"build for OpenVINO .*{_first(layer)}"):
        build_openvino(network, tmp_path / "net.xml")
    assert not (tmp_path / "net.xml").exists()
