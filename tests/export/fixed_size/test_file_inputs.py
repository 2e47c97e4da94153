"""Files with several inputs: pairs of images, and numbers beside images, which may become constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, EightfoldError, UsageError, VerificationError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.fixed_size import file_source
from eightfold.export.fixed_size.file_inputs import with_constants
from eightfold.export.verify.verify import run_onnx
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import graph, saved, small_net

RNG = np.random.default_rng(0)
WEIGHTS = {"w": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32)}
SMALL = Preprocess(height=16, width=16)
PHOTOGRAPHS = [RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(5)]


def conv(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [target], pads=[1, 1, 1, 1])


def stereo(batch: str | int, height: str | int = 16) -> onnx.ModelProto:
    """Features of a left and a right image, one minus twice the other."""
    nodes = [
        conv("left", "l"),
        conv("right", "r"),
        helper.make_node("Add", ["r", "r"], ["rr"]),
        helper.make_node("Sub", ["l", "rr"], ["cost"]),
    ]
    shape = [batch, 3, height, 16]
    return graph(nodes, {"left": shape, "right": shape}, {"cost": [batch, 8, height, 16]}, WEIGHTS)


def scaled(batch: str | int, *, own_batch: str | int | None = None) -> onnx.ModelProto:
    """Features of an image, over a scale for each image, and those above a limit: inputs such as detectors have."""
    nodes = [
        conv("image", "c"),
        helper.make_node("ReduceSum", ["c", "places"], ["found"], keepdims=0),
        helper.make_node("ReduceSum", ["scale", "last"], ["both"], keepdims=1),
        helper.make_node("Mul", ["found", "both"], ["grown"]),
        helper.make_node("Max", ["grown", "limit"], ["kept"]),
    ]
    own = batch if own_batch is None else own_batch
    inputs: dict[str, Any] = {"image": [batch, 3, 16, 16], "scale": [own, 2], "limit": []}
    weights = {**WEIGHTS, "places": np.array([2, 3]), "last": np.array([1])}
    return graph(nodes, inputs, {"kept": [batch, 8]}, weights)


@pytest.mark.parametrize("model", [stereo("n"), stereo(1), stereo(4), stereo("n", "h")])
def test_a_pair_of_images_is_bundled_and_runs_on_tensors(tmp_path: Path, model: onnx.ModelProto) -> None:
    file = saved(model, tmp_path / "stereo.onnx")
    path = export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(1, 2, 4), images=PHOTOGRAPHS)
    for artifact in Bundle.open(path).manifest.artifacts:
        assert [spec.name for spec in artifact.inputs] == ["left", "right"]
        assert artifact.steps[0].max_rel_error is not None
        assert artifact.steps[0].max_rel_error < 1e-5
        assert artifact.steps[0].notes[0].startswith("on ")
    left, right = (RNG.random((4, 3, 16, 16), dtype=np.float32) for _ in range(2))
    wanted = run_onnx(saved(stereo("n"), tmp_path / "free.onnx"), {"left": left, "right": right})["cost"]
    with Predictor(path, backend="onnxruntime") as predictor:
        for count in (1, 3, 4):
            seen = predictor.run({"left": left[:count], "right": right[:count]})["cost"]
            np.testing.assert_allclose(seen, wanted[:count], rtol=1e-4, atol=1e-4)
        with pytest.raises(UsageError, match="has 2 inputs; allowed: one image input, to measure end to end"):
            bench(path, backends=["onnxruntime"], seconds=0.01, end_to_end=True)
        with pytest.raises(BundleError, match=r"allowed: one input of that shape; use run\(\) with tensors"):
            predictor.predict(PHOTOGRAPHS[0])


def test_the_two_images_of_a_pair_differ_in_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else inputs that changed places would not be found."""

    def swapped(model: onnx.ModelProto, arrays: Any) -> onnx.ModelProto:
        for node in model.graph.node:
            node.input[:] = [{"left": "right", "right": "left"}.get(name, name) for name in node.input]
        return with_constants(model, arrays)

    monkeypatch.setattr(file_source, "with_constants", swapped)
    file = saved(stereo("n"), tmp_path / "stereo.onnx")
    with pytest.raises(VerificationError, match=r"export \(on 5 images\) changed output 'cost'"):
        export_bundle(file, tmp_path / "b", preprocess=SMALL, images=PHOTOGRAPHS)


@pytest.mark.parametrize(
    ("batch", "own_batch", "scale"),
    [("n", None, [0.5, 0.25]), (1, None, [[0.5, 0.25]]), ("n", "m", 0.375), (2, None, [0.25, 0.5])],
)
def test_constants_take_the_place_of_inputs(
    tmp_path: Path, batch: str | int, own_batch: str | None, scale: Any
) -> None:
    file = saved(scaled(batch, own_batch=own_batch), tmp_path / "detector.onnx")
    constants = {"scale": scale, "limit": np.float32(-1.0)}
    path = export_bundle(
        file, tmp_path / "b", preprocess=SMALL, batches=(1, 2), images=PHOTOGRAPHS, constants=constants
    )
    manifest = Bundle.open(path).manifest
    assert manifest.provenance["source"]["constants"] == {"scale": scale, "limit": -1.0}
    assert [spec.name for artifact in manifest.artifacts for spec in artifact.inputs] == ["image"] * 2
    rows = np.stack([manifest.preprocess(image) for image in PHOTOGRAPHS])
    feeds = {"scale": np.full((5, 2), (0.5, 0.25), np.float32), "limit": np.array(-1, np.float32)}
    wanted = run_onnx(saved(scaled("n"), tmp_path / "free.onnx"), {"image": rows, **feeds})["kept"]
    with Predictor(path, backend="onnxruntime") as predictor:
        for seen, known in zip(predictor.predict(PHOTOGRAPHS), wanted, strict=True):
            np.testing.assert_allclose(seen.arrays["kept"], known, rtol=1e-4, atol=1e-4)


def test_numbers_beside_images_may_stay_inputs(tmp_path: Path) -> None:
    file = saved(scaled("n"), tmp_path / "detector.onnx")
    path = export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(1, 2), constants={"limit": 0})
    assert [spec.shape for spec in Bundle.open(path).manifest.artifacts[1].inputs] == [(2, 3, 16, 16), (2, 2)]


def typed(model: onnx.ModelProto, name: str, dtype: int) -> onnx.ModelProto:
    (value,) = (each for each in model.graph.input if each.name == name)
    value.type.tensor_type.elem_type = dtype
    return model


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (
            scaled("n"),
            {},
            r"input 'limit' has the shape \(\); allowed: .* first axis is the batch; give it a",
        ),
        (scaled("n"), {"constants": {"size": 1}}, r"has no input 'size'; allowed: image, scale, limit"),
        (
            scaled("n"),
            {"constants": {"limit": "x"}},
            "constant 'x' for input 'limit'; allowed: a number or an array",
        ),
        (
            scaled("n"),
            {"constants": {"limit": [1, 2]}},
            r"of shape \(2,\) for input 'limit'; allowed: what fits a",
        ),
        (
            scaled("n"),
            {"constants": {"scale": [1, 2, 3], "limit": 0}},
            r"shape \(3,\) for input 'scale'; .* \?x2",
        ),
        (
            typed(scaled("n"), "limit", TensorProto.INT64),
            {"constants": {"limit": 0.5}},
            "constant 0.5 for input 'limit'; allowed: values that int64 holds",
        ),
        (
            stereo("n"),
            {"constants": {"left": 0, "right": 0}},
            "has no input that is no constant; allowed: an image",
        ),
        (stereo("n"), {"preprocess_in_graph": True}, r"has 2 inputs \(left, right\); allowed: one image input; give"),
        (stereo("n"), {"decode": True}, r"has 2 inputs \(left, right\); allowed: one image input; give"),
        (stereo("n"), {"sizes": [32]}, r"has 2 inputs \(left, right\); allowed: one image input; give"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, model: onnx.ModelProto, options: dict[str, Any], words: str
) -> None:
    file = saved(model, tmp_path / "x.onnx")
    with pytest.raises(EightfoldError, match=words) as caught:
        export_bundle(file, tmp_path / "b", preprocess=SMALL, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_modules_have_no_inputs_to_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="constant 'scale' for a torch module; allowed: inputs of an ONNX file"):
        export_bundle(small_net(), tmp_path / "b", preprocess=SMALL, constants={"scale": 1})


def read_in_time(batch: str | int = "n", *, two_outputs: bool = False) -> onnx.ModelProto:
    """Features of columns, one after another, as text recognizers give them: (time, batch, classes)."""
    nodes = [
        conv("image", "c"),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[2], keepdims=0),
        helper.make_node("Transpose", ["m"], ["text"], perm=[2, 0, 1]),
    ]
    outputs: dict[str, Any] = {"text": ["t", batch, 8]}
    if two_outputs:  # the first of them is read on
        nodes.append(helper.make_node("ReduceMax", ["text"], ["best"], axes=[0], keepdims=0))
        outputs["best"] = [batch, 8]
    return graph(nodes, {"image": [batch, 3, 16, 16]}, outputs, WEIGHTS)


@pytest.mark.parametrize(("batch", "two_outputs"), [("n", False), ("n", True), (1, False)])
def test_a_batch_that_lies_elsewhere_comes_first(tmp_path: Path, batch: str | int, two_outputs: bool) -> None:
    file = saved(read_in_time(batch, two_outputs=two_outputs), tmp_path / "text.onnx")
    path = export_bundle(file, tmp_path / "b", preprocess=SMALL, batches=(1, 2), images=PHOTOGRAPHS)
    manifest = Bundle.open(path).manifest
    assert [artifact.outputs[0].shape for artifact in manifest.artifacts] == [(1, 16, 8), (2, 16, 8)]
    assert [artifact.steps[0].tool for artifact in manifest.artifacts] == ["freeze, batch first"] * 2
    free = saved(read_in_time(two_outputs=two_outputs), tmp_path / "free.onnx")
    wanted = run_onnx(free, {"image": np.stack([manifest.preprocess(image) for image in PHOTOGRAPHS])})
    with Predictor(path, backend="onnxruntime") as predictor:
        for place, seen in enumerate(predictor.predict(PHOTOGRAPHS)):
            np.testing.assert_allclose(seen.arrays["text"], wanted["text"][:, place], rtol=1e-4, atol=1e-4)
            if two_outputs:
                np.testing.assert_allclose(seen.arrays["best"], wanted["best"][place], rtol=1e-4, atol=1e-4)
