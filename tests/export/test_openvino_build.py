from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest

from eightfold.errors import ModelError, UsageError
from eightfold.export.onnx_export import export_onnx
from eightfold.export.openvino_build import build_openvino
from eightfold.export.verify import run_onnx
from eightfold.files import sha256_of_file
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


def test_another_suffix_is_refused(tmp_path: Path, network: Path) -> None:
    with pytest.raises(UsageError, match=r"a name that ends in \.xml"):
        build_openvino(network, tmp_path / "net.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="as ONNX"):
        build_openvino(tmp_path / "x.onnx", tmp_path / "x.xml")
