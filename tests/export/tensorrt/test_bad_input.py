"""What no engine can be made of, or put where it is asked to be, is one line that says so before any long work."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eightfold.errors import BuildError, ModelError, UsageError
from eightfold.export.target_names import parse_target
from eightfold.export.tensorrt.accepted import require_takable
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.onnx_graph.onnx_files import load_onnx
from tests.export.networks import graph, saved

pytest.importorskip("tensorrt_rtx")

PRECISIONS: tuple[EnginePrecision, ...] = ("fp32", "fp16")


@pytest.fixture
def no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before a graph is converted to float16, which takes minutes for a large one."""
    monkeypatch.setattr("eightfold.export.tensorrt.parse.checked_fp16", None)


def conv(folder: Path, *, free: bool = False) -> Path:
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["images", "w"], ["out"], name="conv", pads=[1, 1, 1, 1])]
    model = graph(nodes, {"images": [1, 3, 8, 8]}, {"out": [1, 8, 8, 8]}, {"w": weight})
    for value in (*model.graph.input, *model.graph.output) if free else ():
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return saved(model, folder / "net.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("operator", "domain", "name", "said"),
    [
        ("Det", "", "volume", r"at node 'volume' \(Det\): unsupported node; "),
        ("Det", "", "", r"at node 'out' \(Det\): unsupported node; "),
        ("Mine", "acme", "own", r"at node 'own' \(Mine\): invalid node \(.*Plugin not found.*\); "),
    ],
)
@pytest.mark.usefixtures("no_conversion")
def test_an_operator_that_is_refused_is_named(
    tmp_path: Path, operator: str, domain: str, name: str, said: str, precision: EnginePrecision
) -> None:
    model = graph([helper.make_node(operator, ["images"], ["out"], domain=domain)], {"images": [3, 3]}, {"out": []})
    model.graph.node[0].name = name
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BuildError, match=rf"parser refuses the graph {said}allowed: .*; replace the operator"):
        build_engine(tmp_path / "net.onnx", tmp_path / "net.engine", precision=precision)
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("no_conversion")
def test_sizes_that_are_not_fixed(tmp_path: Path, precision: EnginePrecision) -> None:
    file = conv(tmp_path, free=True)
    with pytest.raises(ModelError, match=r"'images' has the shape \(batch, 3, 8, 8\); .* freeze it with"):
        build_engine(file, tmp_path / "net.engine", precision=precision)


@pytest.mark.usefixtures("no_conversion")
def test_a_graph_is_not_written_over_by_its_engine(tmp_path: Path) -> None:
    file = conv(tmp_path)
    content = file.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(file)
    for output in (file, link):
        with pytest.raises(UsageError, match=r"is an input and would be overwritten; allowed: another output name"):
            build_engine(file, output)
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="net.engine.json", size_threshold=0)
    with pytest.raises(UsageError, match=r"net\.engine\.json is an input and would be overwritten"):
        build_engine(file, tmp_path / "net.engine")
    assert file.read_bytes() != content  # the weights went out of it
    assert (tmp_path / "net.engine.json").is_file()


@pytest.mark.usefixtures("no_conversion")
def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = conv(tmp_path)
    with pytest.raises(UsageError, match="it is a directory"):
        build_engine(file, tmp_path)
    (tmp_path / "net.engine.layers.json").mkdir()
    with pytest.raises(UsageError, match=r"net\.engine\.layers\.json: it is a directory"):
        build_engine(file, tmp_path / "net.engine")
    with pytest.raises(UsageError, match=r"net\.onnx is a file; allowed: a name in a folder"):
        build_engine(file, file / "net.engine")
    with pytest.raises(UsageError, match=r"there is no file '.*none\.onnx'; allowed: an ONNX file of fixed sizes"):
        build_engine(tmp_path / "none.onnx", tmp_path / "net.engine")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(UsageError, match=rf"cannot write .*other\.engine: no permission in {tmp_path}"):
        build_engine(file, tmp_path / "new" / "other.engine")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*times\.cache"):
        build_engine(
            file,
            tmp_path / "there" / "net.engine",
            target="tensorrt",
            options=BuildOptions(timing_cache=tmp_path / "times.cache"),
        )


def test_too_small_a_workspace(tmp_path: Path) -> None:
    weight = np.zeros((256, 256, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["images", "w"], ["out"])]
    model = graph(nodes, {"images": [1, 256, 66, 66]}, {"out": [1, 256, 64, 64]}, {"w": weight})
    options = BuildOptions(workspace_bytes=1)
    with pytest.raises(BuildError, match=r"failed \(ERROR: .*workspace.*\); allow layers more memory"):
        build_engine(saved(model, tmp_path / "net.onnx"), tmp_path / "net.engine", precision="fp32", options=options)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = conv(tmp_path)
    (tmp_path / "net.engine").write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space") as caught:
            build_engine(file, tmp_path / "net.engine", precision="fp32")
    assert caught.value.filename == str(tmp_path / "net.engine")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.engine", "net.onnx"]
    assert (tmp_path / "net.engine").read_bytes() == b"old"


def codes(folder: Path) -> Path:
    """Unsigned ones, as CPUs like them."""
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    weights: dict[str, Any] = {"scale": np.array(0.1, np.float32), "zero": np.array(128, np.uint8)}
    return saved(graph(nodes, {"images": [1, 4]}, {"out": [1, 4]}, weights), folder / "codes.onnx")


@pytest.mark.parametrize("target", ["rtx:sm86", "tensorrt", "tensorrt:10.3"])
def test_unsigned_codes_are_for_the_accelerator_alone(tmp_path: Path, target: str) -> None:
    file = codes(tmp_path)
    with pytest.raises(BuildError, match=rf"unsigned or shifted codes, made for CPUs; .* --target {target}$"):
        require_takable(load_onnx(file), file, parse_target(target))
    require_takable(load_onnx(file), file, parse_target("tensorrt-dla"))


def test_suppression_is_refused_where_it_is_missing(tmp_path: Path) -> None:
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["out"])
    model = graph([node], {"boxes": [1, 4, 4], "scores": [1, 1, 4]}, {"out": [0, 3]})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    file = tmp_path / "nms.onnx"
    onnx.save(model, file)
    with pytest.raises(BuildError, match=r"which TensorRT-RTX does not have; allowed: .*; export without --decode"):
        require_takable(model, file, parse_target("rtx:sm86"))
    require_takable(model, file, parse_target("tensorrt"))
