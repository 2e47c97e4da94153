"""External weights behind links, out of the folder, cut off; the oracle is the file that holds its weights itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from eightfold.errors import ModelError
from eightfold.export.simplify.simplify import simplify
from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph.onnx_files import load_onnx

WEIGHT = np.random.default_rng(0).random((4, 4), dtype=np.float32)


def model_beside(location: str, length: int = WEIGHT.nbytes) -> onnx.ModelProto:
    """images @ weight, whose bytes lie at `location`; one more weight hides in the branch of an If."""
    weight = numpy_helper.from_array(WEIGHT, "weight")
    value = helper.make_tensor_value_info
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["made"], value=numpy_helper.from_array(WEIGHT, "inner"))],
        "branch",
        [],
        [value("made", 1, [4, 4])],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["images", "weight"], ["product"]),
        helper.make_node("Add", ["product", "chosen"], ["out"]),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = helper.make_graph(
        nodes, "g", [value("images", 1, [4, 4])], [value("out", 1, [4, 4])], initializer=[weight, yes]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inner = [attribute.g.node[0].attribute[0].t for attribute in model.graph.node[0].attribute]
    for tensor in (model.graph.initializer[0], *inner):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", location), ("offset", "8"), ("length", str(length))):
            tensor.external_data.add(key=key, value=text)
    return model


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A model hub's cache: files named by their digest, and a folder of links to them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aa").write_bytes(model_beside("model.onnx_data").SerializeToString())
    (blobs / "bb").write_bytes(bytes(8) + WEIGHT.tobytes())
    return tmp_path


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_weights_behind_links_are_read(hub: Path, link: object) -> None:
    assert callable(link)
    for blob, name in (("aa", "model.onnx"), ("bb", "model.onnx_data")):
        link(hub / "blobs" / blob, hub / "snapshots" / "main" / name)
    path = hub / "snapshots" / "main" / "model.onnx"
    model = load_onnx(path)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHT)
    images = np.eye(4, dtype=np.float32)
    answer = run_onnx(simplify(path, hub / "simple.onnx"), {"images": images})
    np.testing.assert_allclose(answer["out"], WEIGHT * 2, rtol=1e-6)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_networks_behind_links_are_pruned_and_run(tmp_path: Path, link: object) -> None:
    """onnx's own reader refuses both kinds of links, and a link's target has no weights beside it."""
    import eightfold as ef
    from eightfold.compress.onnx.graph_file import open_onnx

    assert callable(link)
    whole = ef.export_onnx(torch.nn.Conv2d(3, 8, 3), tmp_path / "whole.onnx", batch=1, image_size=8)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    onnx.save_model(
        onnx.load(whole), blobs / "m", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    (blobs / "model.onnx.data").rename(blobs / "w")
    for blob, name in (("m", "model.onnx"), ("w", "model.onnx.data")):
        link(blobs / blob, snapshot / name)
    images = torch.rand(1, 3, 8, 8)
    wanted = next(iter(run_onnx(whole, {"images": images.numpy()}).values()))
    np.testing.assert_allclose(
        open_onnx(snapshot / "model.onnx").module(images).detach().numpy(), wanted, rtol=1e-5, atol=1e-6
    )
    with ef.Predictor(snapshot / "model.onnx") as predictor:
        np.testing.assert_allclose(next(iter(predictor.run(images.numpy()).values())), wanted, rtol=1e-5, atol=1e-6)


def test_a_pointer_in_place_of_weights_is_named(hub: Path) -> None:
    path = hub / "model.onnx"
    path.write_bytes(model_beside("w").SerializeToString())
    (hub / "w").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for read in (load_onnx, lambda path: run_onnx(path, {})):
        with pytest.raises(ModelError, match="w is a Git LFS pointer"):
            read(path)


@pytest.mark.parametrize("location", ["../blobs/bb", "sub/../../blobs/bb", "/etc/hostname", "..\\blobs\\bb"])
def test_weights_out_of_the_folder_are_refused(hub: Path, location: str) -> None:
    path = hub / "snapshots" / "model.onnx"
    path.write_bytes(model_beside(location).SerializeToString())
    (hub / "snapshots" / "sub").mkdir()
    with pytest.raises(ModelError, match=r"in the folder of the ONNX file|which is missing"):
        load_onnx(path)


def test_weights_that_are_cut_off_are_named(hub: Path) -> None:
    path = hub / "model.onnx"
    path.write_bytes(model_beside("w").SerializeToString())
    (hub / "w").write_bytes(bytes(20))
    with pytest.raises(ModelError, match="w ends within tensor 'weight'"):
        load_onnx(path)


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match="is a Git LFS pointer"):
        load_onnx(path)
