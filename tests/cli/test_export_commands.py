from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.cli.app import main
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.zoo.sources.registry import source_of
from tests.export.networks import graph, saved, small_net


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=16)


def _call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
    return main()


def test_from_a_foreign_file_to_a_signed_bundle(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, key = tmp_path / "bundle", tmp_path / "key"
    assert _call(monkeypatch, "export", network, "-o", bundle) == 0  # at the file's own size
    assert _call(monkeypatch, "sign", bundle, "--key", key, "--new-key") == 0
    assert _call(monkeypatch, "verify", bundle, "--key", f"{key}.pub") == 0
    assert "files as in the manifest: 1; signed by" in capsys.readouterr().out
    assert _call(monkeypatch, "compare", network, f"{bundle}:net-b1") == 0
    assert "net-b1: 1 output and 6 layers exactly alike\n" in capsys.readouterr().out
    assert _call(monkeypatch, "compare", network, f"{bundle}:net-b1", "--worst", "0") == 0
    assert "logits" in capsys.readouterr().out


def test_the_next_command_can_be_typed_as_it_stands(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "export", network, "-o", tmp_path / "my bundle") == 0
    command = capsys.readouterr().out.partition("next: ")[2]
    assert shlex.split(command) == ["eightfold", "inspect", str(tmp_path / "my bundle")]


def test_other_inputs_become_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Mul", ["x", "scale"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    inputs: dict[str, Sequence[int | str]] = {"x": ["n", 3, 8, 8], "scale": ["n", 1, 1, 1]}
    file = saved(graph(nodes, inputs, {"y": ["n", 3, 8, 8]}), tmp_path / "x.onnx")
    assert _call(monkeypatch, "export", file, "-o", tmp_path / "bundle", "--constant", "scale=[[[0.5]]]") == 0
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert [spec.name for spec in manifest.artifacts[0].inputs] == ["x"]
    assert (manifest.preprocess.height, manifest.preprocess.width) == (8, 8)
    for wrong in ("scale", "=1", "scale=0.5.1"):
        assert _call(monkeypatch, "export", file, "-o", tmp_path / "other", "--constant", wrong) == 2
        assert "allowed: NAME=VALUE, e.g. scale=[1.0,1.0]" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_pixels_go_in_where_asked(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(monkeypatch, "export", network, "-o", tmp_path / "bundle", "--size", "16", "--pixels") == 0
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.preprocess.layout, manifest.preprocess.dtype) == ("nhwc", "uint8")
    assert manifest.artifacts[0].inputs[0].dtype == "uint8"


def test_a_size_is_named_wherever_a_bundle_has_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    file = saved(graph(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 3]}), tmp_path / "x.onnx")
    rules = Preprocess(height=8, width=8, resize="center-crop", shorter_side=10).save(tmp_path / "rules.json")
    sizes, bundle = ("--size", "16", "--size", "12x24"), tmp_path / "bundle"
    assert _call(monkeypatch, "export", file, "-o", bundle, *sizes, "--preprocess", rules) == 0
    manifest = Bundle.open(bundle).manifest
    assert manifest.sizes == ((16, 16), (12, 24))
    assert (manifest.preprocess.height, manifest.preprocess.shorter_side) == (16, 20)
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((9, 9, 3), np.uint8))
    assert _call(monkeypatch, "predict", bundle, picture, "--size", "12x24") == 0
    assert "at 12x24 (batch 1)" in capsys.readouterr().err
    assert _call(monkeypatch, "predict", bundle, picture, "--size", "7") == 2
    assert "has size '7x7'; allowed: baseline fp32 on onnxruntime at 16x16" in capsys.readouterr().err
    assert _call(monkeypatch, "bench", bundle, "--size", "12x24", "--seconds", "0.02") == 0
    assert "baseline-fp32-12x24" in capsys.readouterr().out
    assert _call(monkeypatch, "compare", bundle, bundle, "--size", "16", "--images", tmp_path) == 0
    assert "12x24" not in capsys.readouterr().out


def test_a_target_and_a_task_are_named(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("export", network, "-o", tmp_path / "b", "--size", "16", "--task", "classify", "--target", "tensorrt:8.2")
    assert _call(monkeypatch, *words) == 0
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.task.kind == "classify"
    assert opset_of(onnx.load(bundle.artifact_path(bundle.manifest.artifacts[0]))) == 13


def test_a_task_is_read_from_json_and_decoded_in_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["boxes"])]
    detector = graph(nodes, {"images": [1, 3, 16, 16]}, {"boxes": [1, 6, 128]}, {"shape": np.array([0, 6, 128])})
    network, task = saved(detector, tmp_path / "net.onnx"), tmp_path / "task.json"
    task.write_text('{"kind": "detect", "decode": "yolo-boxes", "options": {"max_detections": 9}}')
    words = ("export", network, "-o", tmp_path / "b", "--size", "16", "--decode")
    assert _call(monkeypatch, *words, "--task", task) == 0
    manifest = Bundle.open(tmp_path / "b").manifest
    assert (manifest.task.decode, manifest.artifacts[0].outputs[0].shape) == ("end-to-end", (1, 9, 6))
    assert _call(monkeypatch, *words) == 2
    assert "the task's decoder is 'tensors'; allowed: a detector" in capsys.readouterr().err
    task.write_text('{"kind": "detect"}')
    assert _call(monkeypatch, *words, "--task", task) == 2
    assert "missing key decode; allowed: an object with kind, decode" in capsys.readouterr().err


def test_named_models_are_classifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 320, 320
    kinds = {
        name: source_of(name).task(name, size).kind for name in ("resnet18", "timm:resnet18", "my.module:net", "a.onnx")
    }
    assert list(kinds.values()) == ["classify", "classify", "tensors", "tensors"]


def test_build_says_what_the_engine_needs(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "build", network, "-o", tmp_path / "net.engine") == 0
    assert "fp16 engine for rtx:sm86" in capsys.readouterr().out


@pytest.fixture
def photographs(tmp_path: Path) -> list[str | Path]:
    """Options that name two images and how they are prepared."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for place in range(2):
        pixels = np.random.default_rng(place).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{place}.png")
    Preprocess(height=16, width=16).save(tmp_path / "preprocess.json")
    return ["--images", tmp_path / "photos", "--preprocess", tmp_path / "preprocess.json"]


def test_a_bundle_says_on_how_many_images_it_was_compared(
    tmp_path: Path, network: Path, photographs: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _call(monkeypatch, "export", network, "-o", tmp_path / "b", *photographs) == 0
    (artifact,) = Bundle.open(tmp_path / "b").manifest.artifacts
    assert artifact.steps[0].notes[0].startswith("on 2 images: relative error ")


def test_simplifying_is_compared_on_images(
    tmp_path: Path,
    network: Path,
    photographs: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, "simplify", network, "-o", tmp_path / "small.onnx", *photographs) == 0
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  on 2 images: relative error ") for line in told[1:])
    assert _call(monkeypatch, "simplify", network, *photographs[:2]) == 2
    assert "one of --images and --preprocess" in capsys.readouterr().err


def test_an_engines_layers_are_told(
    tmp_path: Path,
    network: Path,
    photographs: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, "build", network, "-o", tmp_path / "net.engine", "--layers", *photographs) == 0
    assert "float16: cosine 0.9999" in (built := capsys.readouterr().out) or "float16: cosine 1.0000" in built
    assert _call(monkeypatch, "inspect", tmp_path / "net.engine") == 0
    told = capsys.readouterr().out
    assert told.startswith("fp16 engine for rtx:sm86")
    assert "convolution" in told


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_graph_in_16_bits(
    kind: str,
    tmp_path: Path,
    network: Path,
    photographs: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = tmp_path / "half.onnx"
    assert _call(monkeypatch, "half", network, "-o", half, "--type", kind, *photographs) == 0
    assert "to the float32 graph" in capsys.readouterr().out
    assert _call(monkeypatch, "half", network, "-o", half, "--type", "float8") == 2
    assert "unknown type 'float8'; allowed: bfloat16, float16" in capsys.readouterr().err
    assert _call(monkeypatch, "half", network, "-o", half, *photographs[:2]) == 2
    assert "one of --images and --preprocess; allowed: both or none" in capsys.readouterr().err


def test_two_networks_on_images(
    tmp_path: Path,
    network: Path,
    photographs: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, "compare", network, "tests.export.networks:small_net", *photographs) == 0
    assert f"{network} against tests.export.networks:small_net" in capsys.readouterr().out
    assert _call(monkeypatch, "compare", network, tmp_path / "none.onnx") == 2
    assert "there is no file" in capsys.readouterr().err


def test_two_bundles_on_labelled_images(
    tmp_path: Path,
    network: Path,
    photographs: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, file in enumerate(sorted((tmp_path / "photos").iterdir())):
        (tmp_path / "photos" / f"label{place}").mkdir()
        file.rename(tmp_path / "photos" / f"label{place}" / file.name)
    for name in ("one.eightfold", "two"):
        assert _call(monkeypatch, "export", network, "-o", tmp_path / name, "--size", "16") == 0
    labelled: list[str | Path] = ["--data", tmp_path / "photos", "--plot", tmp_path / "errors.png"]
    assert _call(monkeypatch, "compare", tmp_path / "one.eightfold", tmp_path / "two", *labelled) == 0
    told = capsys.readouterr().out
    assert "top-1 on 2 images" in told
    assert "the two agree on 100.00%" in told
    assert (tmp_path / "errors.png").stat().st_size > 0
    assert _call(monkeypatch, "compare", network, tmp_path / "two", *labelled) == 0
    assert "top-1 on 2 images" in capsys.readouterr().out
    assert _call(monkeypatch, "compare", network, network, *labelled[:2]) == 2
    assert "--images or --data without --preprocess" in capsys.readouterr().err


def test_simplify_says_how_many_nodes_are_left(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "simplify", network, "-o", tmp_path / "small.onnx") == 0
    assert "nodes became" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "a", "1x2x3", "16x-1"])
def test_a_size_that_is_none_is_refused(
    network: Path, tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "export", network, "-o", tmp_path / "b", f"--size={size}") == 2
    assert "allowed: SIDE or HEIGHTxWIDTH" in capsys.readouterr().err
