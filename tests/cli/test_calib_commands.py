from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.cli.app import main
from eightfold.export.torch.onnx_export import export_onnx
from tests.export.networks import small_net


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def preprocess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Preprocess(height=16, width=16).save(tmp_path_factory.mktemp("preprocess") / "preprocess.json")


def _call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
    return main()


def test_from_photos_to_int8(
    tmp_path: Path,
    network: Path,
    photos: Path,
    preprocess: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranges, int8 = tmp_path / "ranges.json", tmp_path / "int8.onnx"
    assert _call(monkeypatch, "calibrate", network, photos, "--preprocess", preprocess, "-o", ranges) == 0
    assert "tensors, mse, 6 images" in capsys.readouterr().out
    assert _call(monkeypatch, "quantize", network, ranges, "-o", int8, "--form", "qdq") == 0
    assert "layers in INT8 for cpu-x86" in capsys.readouterr().out
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(str(int8)).graph.node)
    assert _call(monkeypatch, "debug-int8", network, int8, photos, "--preprocess", preprocess) == 0
    assert "worst first" in capsys.readouterr().out


def test_a_tensorrt_cache_is_written_and_read(
    tmp_path: Path,
    network: Path,
    photos: Path,
    preprocess: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache, int8 = tmp_path / "calibration.cache", tmp_path / "int8.onnx"
    words = ("calibrate", network, photos, "--preprocess", preprocess, "-o", tmp_path / "ranges.json")
    options = ("--tensorrt-cache", cache, "--tensorrt-version")
    assert _call(monkeypatch, *words, *options, "11.0") == 2
    assert "TensorRT 11.0 reads no calibration cache" in capsys.readouterr().err
    assert _call(monkeypatch, *words, *options, "10.3.0") == 0
    assert cache.read_text().startswith("TRT-100300-EntropyCalibration2\n")
    assert _call(monkeypatch, "quantize", network, cache, "-o", int8, "--target", "tensorrt:10.3") == 0
    assert "layers in INT8 for tensorrt:10.3" in capsys.readouterr().out


def test_a_search_gives_layers_back(
    tmp_path: Path,
    network: Path,
    photos: Path,
    preprocess: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranges, int8 = tmp_path / "ranges.json", tmp_path / "int8.onnx"
    assert _call(monkeypatch, "calibrate", network, photos, "--preprocess", preprocess, "-o", ranges) == 0
    words = ("quantize", network, ranges, "-o", int8, "--min-sqnr", "150", "--form", "qdq")
    assert _call(monkeypatch, *words) == 2
    assert "a search without images" in capsys.readouterr().err
    assert _call(monkeypatch, *words, "--images", photos) == 2  # before the work
    assert "one of --images and --preprocess; allowed: both or none" in capsys.readouterr().err
    assert _call(monkeypatch, *words, "--images", photos, "--preprocess", preprocess) == 0
    told = capsys.readouterr().out
    assert told.startswith("SQNR to reach: 150.00 dB\n")  # FP32 has none
    assert "last layer given back" in told
    assert int8.exists()
    assert (tmp_path / "int8.svg").exists()
    assert not (tmp_path / "int8.search.json").exists()
    labelled = ("quantize", network, ranges, "-o", int8, "--max-drop", "1", "--images", photos)
    assert _call(monkeypatch, *labelled, "--preprocess", preprocess) == 1
    assert "these images have no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--method", "kl"], 2, "unknown method 'kl'; allowed: entropy, minmax"),
        (["--percentile", "20", "--method", "percentile"], 2, "percentile is 20"),
    ],
)
def test_a_wrong_option_is_one_line(
    network: Path,
    photos: Path,
    preprocess: Path,
    options: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, "calibrate", network, photos, "--preprocess", preprocess, *options) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
