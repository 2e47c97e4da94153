from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.export.compare.compare_bundles import compare_bundles
from eightfold.export.compare.comparison_plot import plot_comparison
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.runtime.bundle.manifest import Task
from tests.export.networks import SmallNet, images, small_net

PREPROCESS = Preprocess(height=16, width=16)


def _bundle(path: Path, net: torch.nn.Module, name: str = "net", batches: tuple[int, ...] = (1, 2)) -> Path:
    return export_bundle(net, path, preprocess=PREPROCESS, batches=batches, name=name)


def _changed() -> SmallNet:
    net = small_net()
    torch.nn.init.normal_(net.depthwise.weight, std=3)
    return net


def test_artifacts_of_one_id_are_compared(tmp_path: Path) -> None:
    first, second = _bundle(tmp_path / "a.eightfold", small_net()), _bundle(tmp_path / "b", _changed())
    found = compare_bundles(first, second, inputs={"images": images(2)})
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        (f"{first}:net-b{batch}", f"{second}:net-b{batch}") for batch in (1, 2)
    ]
    assert all("depthwise" in pair.first_beyond for pair in found.pairs)
    assert found.describe().count("against") == 2
    assert plot_comparison(found.pairs, tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_each_pair_that_is_the_same_is_a_line(tmp_path: Path) -> None:
    first, second = _bundle(tmp_path / "a", small_net()), _bundle(tmp_path / "b", small_net())
    lines = compare_bundles(first, second).describe(worst=20).splitlines()
    assert [line.endswith("layers exactly alike") for line in lines] == [True, False] * 2
    assert all(line.startswith("on random inputs") for line in lines[1::2])


def test_artifacts_of_one_kind_stand_for_each_other(tmp_path: Path) -> None:
    first = _bundle(tmp_path / "a", small_net(), "old", (1, 2))
    second = _bundle(tmp_path / "b", small_net(), "new", (2, 3))
    found = compare_bundles(first, second)
    assert [(pair.first, pair.second) for pair in found.pairs] == [(f"{first}:old-b2", f"{second}:new-b2")]
    assert (found.only_first, found.only_second) == (("old-b1",), ("new-b3",))
    assert found.pairs[0].outputs[0].max_rel_error < 1e-6
    assert found.describe().endswith("only in the first: old-b1\nonly in the second: new-b3")


def test_bundles_that_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = (
        _bundle(tmp_path / "a", small_net(), "old", (1, 2)),
        _bundle(tmp_path / "b", small_net(), "new", (3, 4)),
    )
    with pytest.raises(UsageError, match=r"holds baseline fp32 onnx for any at batch 1, 16x16; .*bundles that share"):
        compare_bundles(first, second)


def test_one_artifact_in_each_is_a_pair(tmp_path: Path) -> None:
    file = export_onnx(small_net(), tmp_path / "x.onnx", batch=1, image_size=16)
    bundles = []
    for variant in ("baseline", "pruned"):
        artifact = onnx_artifact(file, id=variant, inside="x.onnx", variant=variant)
        task = Task(kind="tensors", decode="tensors")
        bundles.append(
            write_bundle(
                tmp_path / variant,
                name="net",
                task=task,
                preprocess=PREPROCESS,
                artifacts=[artifact],
                files={"x.onnx": file},
            )
        )
    assert len(compare_bundles(*bundles).pairs) == 1


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        compare_bundles(tmp_path, tmp_path)
