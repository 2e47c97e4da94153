"""Bad input to calibrate and quantize: one line that says what was seen, what is allowed and what to do."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Ranges
from eightfold.cli.app import main
from eightfold.export.torch.onnx_export import export_onnx
from tests.export.networks import small_net


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.onnx, photos/ and preprocess.json; it is the current one."""
    monkeypatch.chdir(tmp_path)
    export_onnx(small_net(), "net.onnx", batch=1, image_size=16)
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(f"photos/{index}.png", random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    Preprocess(height=16, width=16).save("preprocess.json")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["eightfold", *words.split()])
    with warnings.catch_warnings():  # `main` shows warnings in its own way, and for good
        warnings.simplefilter("always")
        return main()


CALIBRATE = "calibrate net.onnx photos --preprocess preprocess.json -o ranges.json"


def _no_images() -> None:
    shutil.rmtree("photos")
    Path("photos").mkdir()


def _unreadable() -> None:
    for path in Path("photos").iterdir():
        path.write_bytes(b"no image at all")


def _edited(change: Callable[[Any], object]) -> Callable[[], None]:
    def edit() -> None:
        model = onnx.load("net.onnx")
        change(model)
        onnx.save(model, "net.onnx")

    return edit


def _infinite(model: Any) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    value = onnx.numpy_helper.to_array(weight).copy()
    value.flat[0] = np.inf
    weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))


def _dynamic(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def _quantized(model: Any) -> None:
    model.graph.node[0].op_type = "QLinearConv"


def _old(model: Any) -> None:
    model.opset_import[0].version = 11


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_images, "no images in photos; allowed: files ending in .bmp"),
        (_unreadable, "none of the 6 images can be read, the first: "),
        (_edited(_infinite), "gives NaN or infinite values in "),
        (_edited(_infinite), "for photos/0.png; allowed: finite activations; check the model on that image"),
        (_edited(_dynamic), "has the dynamic shape [1, 3, -1, 16] (-1: not fixed); allowed: fixed sizes"),
        (_edited(_dynamic), "fix them: eightfold export net.onnx --size HEIGHTxWIDTH -o FOLDER"),
        (_edited(_quantized), "net.onnx is already quantized (1 nodes, the first: QLinearConv"),
        (
            _edited(_old),
            "net.onnx has opset 11; allowed: opset 13 or newer; convert it: `eightfold export net.onnx --opset 17",
        ),
    ],
)
def test_calibrate_refuses_in_one_line(
    work: Path,
    spoil: Callable[[], None],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil()
    assert call(monkeypatch, CALIBRATE) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line and "warning: skipped" not in line]
    assert words in lines[-1]
    assert lines[-1].startswith("eightfold: ")
    assert not Path("ranges.json").exists()


def test_one_image_repeated_is_a_warning(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in Path("photos").iterdir():
        shutil.copy("photos/0.png", path) if path.name != "0.png" else None
    assert call(monkeypatch, CALIBRATE) == 0
    expected = "eightfold: warning: all 6 calibration images are the same image; its ranges will not fit others"
    assert expected in capfd.readouterr().err


def test_ranges_of_another_graph(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, CALIBRATE) == 0
    export_onnx(small_net(seed=1), "net.onnx", batch=1, image_size=16)
    capfd.readouterr()
    assert call(monkeypatch, "quantize net.onnx ranges.json -o int8.onnx --form qdq") == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "the ranges belong to another network (graph digest" in line
    assert line.endswith("calibrate this network")
    assert not Path("int8.onnx").exists()


def test_an_interrupted_calibration_goes_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from eightfold.calib import calibrate as module
    from eightfold.calib import checkpoint

    assert call(monkeypatch, CALIBRATE) == 0
    whole = Ranges.load("ranges.json").digest()
    Path("ranges.json").unlink()
    real, batches = module._see, [0]

    def interrupted(observers: Any, item: Any) -> Any:
        batches[0] += 1
        if batches[0] > 20:
            raise KeyboardInterrupt
        return real(observers, item)

    monkeypatch.setattr(checkpoint._State, "save_now_and_then", checkpoint._State.save)
    monkeypatch.setattr(module, "_see", interrupted)
    capfd.readouterr()
    assert call(monkeypatch, CALIBRATE + " --batch 1 --threads 1") == 130
    assert capfd.readouterr().err.splitlines()[-1] == "eightfold: interrupted; run the same command again to go on"
    assert not Path("ranges.json").exists()
    assert Path("ranges.partial").exists()
    monkeypatch.setattr(module, "_see", real)
    assert call(monkeypatch, CALIBRATE + " --batch 1 --threads 1") == 0
    assert Ranges.load("ranges.json").digest() == whole
    assert not Path("ranges.partial").exists()
