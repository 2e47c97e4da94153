"""What OpenVINO compiled is kept, and never believed when it is not whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from eightfold.errors import ModelError
from eightfold.export.openvino.openvino_build import build_openvino
from eightfold.runtime.backends import open_session, openvino_cache
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.predict.predictor import Predictor

KEEP = SessionOptions(threads=1, keep_compiled=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openvino_cache, "cache_folder", lambda name: made(tmp_path / "cache"))
    return tmp_path / "cache"


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def model(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(bundle_path / "onnx/pruned-b4.onnx", tmp_path / "model.onnx"))


def answer(model: Path, options: SessionOptions = KEEP) -> NDArray[np.float32]:
    slot = open_session(model, "openvino", options).new_slot()
    slot.run_on({"images": np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)})
    return slot.outputs["logits"].copy()


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, path: Path) -> None:
        raise AssertionError(f"{path} was compiled again")

    monkeypatch.setattr("eightfold.runtime.backends.openvino.OpenVinoSession._compile", refuse)


@pytest.mark.parametrize("form", ["onnx", "xml"])
def test_the_second_start_compiles_nothing_and_answers_the_same(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    if form == "xml":
        model = build_openvino(model, model.with_suffix(".xml"))
    first = open_session(model, "openvino", KEEP)
    before = answer(model)
    forbid_compiling(monkeypatch)
    second = open_session(model, "openvino", KEEP)
    assert (second.inputs, second.outputs, second.threads) == (first.inputs, first.outputs, 1)
    np.testing.assert_array_equal(answer(model), before)
    assert len(list(cache.iterdir())) == 1


def test_damage_anywhere_is_noticed(model: Path, cache: Path) -> None:
    before = answer(model)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 50).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        assert openvino_cache.load(file) is None
    for damage in (b"", whole[:20], whole[:-1], whole + b"x"):
        file.write_bytes(damage)
        np.testing.assert_array_equal(answer(model), before)
        assert file.read_bytes()[32:] != damage[32:]  # written anew


def test_what_openvino_refuses_is_compiled_again(model: Path, cache: Path) -> None:
    before = answer(model)
    (file,) = cache.iterdir()
    compiled = openvino_cache.load(file)
    assert compiled is not None
    openvino_cache.store(file, openvino_cache.Compiled(compiled.inputs, compiled.outputs, b"of another build"))
    np.testing.assert_array_equal(answer(model), before)


def test_other_weights_settings_or_machines_have_files_of_their_own(model: Path, cache: Path, tmp_path: Path) -> None:
    settings = {"INFERENCE_NUM_THREADS": 1}
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes() + b"\x42\x01x")  # one more field: its docstring
    paths = {
        openvino_cache.cache_path(model, "1", "this", settings),
        openvino_cache.cache_path(model, "1", "this", {"INFERENCE_NUM_THREADS": 2}),
        openvino_cache.cache_path(model, "1", "that", settings),
        openvino_cache.cache_path(model, "2", "this", settings),
        openvino_cache.cache_path(other, "1", "this", settings),
    }
    assert len(paths) == 5
    assert None not in paths


def test_weights_beside_the_graph_count(model: Path, cache: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(model),
        tmp_path / "beside.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="model.weights",
    )
    before = openvino_cache.cache_path(tmp_path / "beside.onnx", "1", "this", {})
    weights = bytearray((tmp_path / "model.weights").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.weights").write_bytes(weights)
    assert openvino_cache.cache_path(tmp_path / "beside.onnx", "1", "this", {}) not in (before, None)


def test_where_nothing_can_be_kept_it_still_runs(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = answer(model, SessionOptions(threads=1))
    monkeypatch.setattr(openvino_cache, "cache_folder", lambda name: None)
    np.testing.assert_array_equal(answer(model), expected)
    (tmp_path / "file").touch()
    monkeypatch.setattr(openvino_cache, "cache_folder", lambda name: tmp_path / "file")
    np.testing.assert_array_equal(answer(model), expected)


def test_a_broken_model_is_refused_as_without_a_cache(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"openvino cannot load .*broken\.onnx"):
        open_session(tmp_path / "broken.onnx", "openvino", KEEP)
    with pytest.raises(ModelError, match="openvino cannot load"):
        open_session(tmp_path / "absent.onnx", "openvino", KEEP)


def test_a_few_are_kept(tmp_path: Path) -> None:
    for number in range(openvino_cache.MOST_FILES + 3):
        openvino_cache.store(tmp_path / f"{number}.blob", openvino_cache.Compiled((), (), b"x"))
    assert len(list(tmp_path.glob("*.blob"))) == openvino_cache.MOST_FILES


def test_a_predictor_keeps_what_it_compiles(bundle_path: Path, cache: Path) -> None:
    with Predictor(bundle_path, "openvino") as predictor:
        predictor.predict(np.zeros((8, 8, 3), np.uint8))
    assert len(list(cache.iterdir())) == 1
    assert not list(bundle_path.rglob("*.blob"))
