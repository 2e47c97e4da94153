from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.images.transform import tensor_from_image
from eightfold.errors import UsageError, VerificationError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.in_graph import in_graph
from eightfold.export.in_graph.in_graph import normalized, put_preprocess_in, with_preprocess
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.test_inputs import RANDOM
from eightfold.export.verify.verify import Tolerance, run_onnx
from eightfold.onnx_graph.onnx_files import input_specs
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import graph, saved, small_net

IMAGENET = Preprocess(height=16, width=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), color="bgr")
RNG = np.random.default_rng(0)


def test_pixels_in_give_the_answer_of_preprocessed_images(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16))
    inside, how = with_preprocess(model, IMAGENET)
    onnx.checker.check_model(inside, full_check=True)
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    floats, pixels = (tensor_from_image(each, image)[None] for each in (IMAGENET, how))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1, 16, 16, 3)
    before = run_onnx(model.SerializeToString(), {"images": floats})["logits"]
    after = run_onnx(inside.SerializeToString(), {"images": pixels})["logits"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_preprocessing_twice_is_refused(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16))
    inside, how = with_preprocess(model, IMAGENET)
    with pytest.raises(UsageError, match="images uint8"):
        with_preprocess(inside, how)


def test_pixels_and_floats_are_compared_and_the_file_is_rewritten(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=2, image_size=16)
    how, step = put_preprocess_in(file, IMAGENET, tolerance=Tolerance(max_rel_error=1e-4))
    assert (how.layout, how.dtype) == ("nhwc", "uint8")
    (spec,) = input_specs(onnx.load(file))
    assert (spec.dtype, spec.shape) == ("uint8", (2, 16, 16, 3))
    assert step.name == "preprocess in graph"
    assert [note.partition(":")[0] for note in step.notes] == [
        f"on {trial}" for trial in (RANDOM, "zeros", "ones", "extremes", "noise")
    ]


def test_the_reference_is_what_images_become() -> None:
    image = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    seen = normalized(IMAGENET, image[None, :, :, ::-1])[0]
    np.testing.assert_allclose(seen, tensor_from_image(IMAGENET, image), rtol=1e-5, atol=1e-6)


def test_a_graph_that_normalizes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    before = file.read_bytes()
    other = IMAGENET.model_copy(update={"mean": (0.4, 0.4, 0.4)})
    monkeypatch.setattr(in_graph, "normalized", lambda _, pixels: normalized(other, pixels))
    with pytest.raises(VerificationError, match=r"preprocess in graph .on random values .* changed output"):
        put_preprocess_in(file, IMAGENET, tolerance=Tolerance(max_rel_error=1e-4))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_names_that_the_network_has_already_are_left_to_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["x_normalized"], name="preprocess/0_Cast"),
        helper.make_node("Neg", ["x_normalized"], ["preprocess/0_Cast_0"]),
    ]
    shape = [1, 3, 16, 16]
    file = saved(graph(nodes, {"x": shape}, {"preprocess/0_Cast_0": shape}), tmp_path / "x.onnx")
    put_preprocess_in(file, IMAGENET, tolerance=Tolerance(max_rel_error=1e-4))
    onnx.checker.check_model(str(file), full_check=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_it(tmp_path: Path, precision: Literal["fp32", "fp16"]) -> None:
    pytest.importorskip("tensorrt_rtx")
    file = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    put_preprocess_in(file, IMAGENET, tolerance=Tolerance(max_rel_error=1e-4))
    assert build_engine(file, tmp_path / "x.engine", target="rtx:sm86", precision=precision).is_file()


def test_a_target_without_pixels_is_refused(tmp_path: Path) -> None:
    words = "preprocessing in the graph for tensorrt:8.4, which takes no uint8 inputs; allowed: TensorRT 8.5 and later"
    with pytest.raises(UsageError, match=words):
        export_bundle(
            small_net(), tmp_path / "b", preprocess=IMAGENET, preprocess_in_graph=True, targets=["tensorrt:8.4"]
        )


def test_a_bundle_with_pixels_in_says_so(tmp_path: Path) -> None:
    path = export_bundle(small_net(), tmp_path / "b", preprocess=IMAGENET, preprocess_in_graph=True, batches=(1, 2))
    bundle = Bundle.open(path)
    assert bundle.manifest.preprocess.dtype == "uint8"
    for artifact in bundle.manifest.artifacts:
        assert [step.name for step in artifact.steps][-1] == "preprocess in graph"
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain = export_bundle(small_net(), tmp_path / "plain", preprocess=IMAGENET)
    with Predictor(path, backend="onnxruntime") as inside, Predictor(plain, backend="onnxruntime") as outside:
        np.testing.assert_allclose(
            inside.predict(image).arrays["logits"], outside.predict(image).arrays["logits"], rtol=1e-3, atol=1e-4
        )
