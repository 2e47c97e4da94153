from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper, numpy_helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError, VerificationError
from eightfold.export.bundle.write import openvino_artifact, write_bundle
from eightfold.export.openvino import openvino_build
from eightfold.export.openvino.openvino_build import build_openvino, read_openvino
from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import run_onnx
from eightfold.files import sha256_of_file
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import images, small_net


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=16)


def test_the_model_answers_as_the_onnx_file(tmp_path: Path, network: Path) -> None:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(str(build_openvino(network, tmp_path / "net.xml")), "CPU", settings)
    assert compiled.inputs[0].any_name == "images"
    expected = run_onnx(network, {"images": images()})["logits"]
    np.testing.assert_allclose(compiled(images())[0], expected, rtol=1e-4, atol=1e-5)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path, network: Path) -> None:
    first, second = (build_openvino(network, tmp_path / name) for name in ("a.xml", "b.xml"))
    assert sha256_of_file(first.with_suffix(".bin")) == sha256_of_file(second.with_suffix(".bin"))
    assert sha256_of_file(first) == sha256_of_file(second)


def test_the_record_says_how_it_compares(tmp_path: Path, network: Path) -> None:
    file = build_openvino(network, tmp_path / "net.xml", inputs={"images": images(3)})
    record = OpenVinoRecord.load(openvino_record_path(file))
    (step,) = record.steps
    assert (step.name, step.tool) == ("build for OpenVINO", f"openvino {record.version}")
    assert [note.partition(": ")[0] for note in step.notes] == [
        f"on {trial}" for trial in ("3 images", "zeros", "ones", "extremes", "noise")
    ]
    assert step.cosine == pytest.approx(1)
    assert record.onnx_sha256 == sha256_of_file(network)


def test_what_only_extremes_show_fails(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(network)
    model.graph.node[0].input[0] = "limited"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.0, np.float32), "lowest"))
    model.graph.node.insert(0, helper.make_node("Max", [model.graph.input[0].name, "lowest"], ["limited"]))
    onnx.save(model, tmp_path / "limited.onnx")
    monkeypatch.setattr(openvino_build, "read_openvino", lambda _: read_openvino(tmp_path / "limited.onnx"))
    with pytest.raises(VerificationError, match=r"build for OpenVINO \(on extremes\) changed output 'logits': cosine"):
        build_openvino(network, tmp_path / "net.xml", inputs={"images": images()})
    assert not (tmp_path / "net.xml").exists()


def test_a_bundle_holds_it_with_its_comparison(tmp_path: Path, network: Path) -> None:
    file = build_openvino(network, tmp_path / "net.xml")
    artifact = openvino_artifact(file, id="net", inside="openvino/net.xml", variant="baseline")
    names = (artifact.path, *artifact.files)
    path = write_bundle(
        tmp_path / "bundle",
        name="net",
        task=Task(kind="tensors", decode="tensors"),
        preprocess=Preprocess(height=16, width=16),
        artifacts=[artifact],
        files={f"openvino/{each.name}": each for each in (file, file.with_suffix(".bin"), openvino_record_path(file))},
    )
    (read,) = Bundle.open(path).manifest.artifacts
    assert sorted(names) == ["openvino/net.bin", "openvino/net.xml", "openvino/net.xml.json"]
    assert [step.name for step in read.steps] == ["build for OpenVINO"]
    assert (read.format, read.precision, read.target, read.batch) == ("openvino", "fp32", "openvino", 1)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with Predictor(path, backend="openvino") as predictor:
        answer = predictor.predict(image).arrays["logits"]
    rows = Preprocess(height=16, width=16)(image)[None]
    np.testing.assert_allclose(answer, run_onnx(network, {"images": rows})["logits"][0], rtol=1e-4, atol=1e-5)


def test_another_suffix_is_refused(tmp_path: Path, network: Path) -> None:
    with pytest.raises(UsageError, match=r"a name that ends in \.xml"):
        build_openvino(network, tmp_path / "net.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="as ONNX"):
        build_openvino(tmp_path / "x.onnx", tmp_path / "x.xml")
