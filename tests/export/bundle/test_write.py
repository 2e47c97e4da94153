from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError
from eightfold.export.bundle.write import engine_artifact, onnx_artifact, write_bundle, zip_bundle
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import run_onnx
from eightfold.files import sha256_of_file
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Task
from tests.export.networks import images, small_net, wide_net

TASK = Task(kind="classify", decode="softmax", labels=("a", "b", "c", "d", "e"))
PREPROCESS = Preprocess(height=16, width=16)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=2, image_size=16)


def _artifact(network: Path) -> Artifact:
    return onnx_artifact(network, id="base-b2", inside="onnx/base-b2.onnx", variant="baseline")


def _write(path: Path, network: Path) -> Path:
    artifact = _artifact(network)
    files = {artifact.path: network}
    return write_bundle(path, name="x", task=TASK, preprocess=PREPROCESS, artifacts=[artifact], files=files)


def test_the_reader_accepts_what_was_written(tmp_path: Path, network: Path) -> None:
    bundle = Bundle.open(_write(tmp_path / "bundle", network))
    (artifact,) = bundle.manifest.artifacts
    assert (artifact.batch, artifact.inputs[0].shape) == (2, (2, 3, 16, 16))
    assert bundle.artifact_path(artifact).read_bytes() == network.read_bytes()
    assert bundle.unlisted() == []


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # an open zip bundle is never closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the same, raised at collection
def test_the_zip_form_holds_the_same(tmp_path: Path, network: Path) -> None:
    folder, packed = _write(tmp_path / "bundle", network), _write(tmp_path / "net.eightfold", network)
    assert Bundle.open(packed).manifest == Bundle.open(folder).manifest
    assert Bundle.open(packed).verify() == 1
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bundle", "net.eightfold"]


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path, network: Path) -> None:
    folder = _write(tmp_path / "bundle", network)
    one, two = zip_bundle(folder, tmp_path / "1.eightfold"), zip_bundle(folder, tmp_path / "2.eightfold")
    assert sha256_of_file(one) == sha256_of_file(two)


def test_an_engine_brings_its_record(tmp_path: Path, network: Path) -> None:
    engine = build_engine(network, tmp_path / "net.engine", target="rtx:sm86")
    artifact = engine_artifact(engine, id="e", inside="engines/net.engine", variant="baseline")
    assert artifact.precision == "fp16"
    assert artifact.requires["compute_capability"] == "8.6"
    files = {"engines/net.engine": engine, "engines/net.engine.json": Path(f"{engine}.json")}
    where = tmp_path / "bundle"
    write_bundle(where, name="x", task=TASK, preprocess=PREPROCESS, artifacts=[artifact], files=files)
    assert Bundle.open(where).verify() == 2


def test_batches_of_one_network_share_their_weights(tmp_path: Path) -> None:
    paths = {batch: tmp_path / f"b{batch}.onnx" for batch in (1, 2)}
    export_batches(wide_net(), paths, images=images(2))
    artifacts = [onnx_artifact(path, id=f"b{n}", inside=f"onnx/b{n}.onnx", variant="v") for n, path in paths.items()]
    files = {f"onnx/b{batch}.onnx": path for batch, path in paths.items()}
    where = tmp_path / "bundle"
    write_bundle(where, name="x", task=TASK, preprocess=PREPROCESS, artifacts=artifacts, files=files)
    bundle = Bundle.open(where)
    assert {artifact.files for artifact in bundle.manifest.artifacts} == {("onnx/v-fp32-any.weights",)}
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 1.2 * paths[1].stat().st_size
    for artifact in bundle.manifest.artifacts:
        feeds = {"images": images(artifact.batch)}
        here, there = run_onnx(bundle.artifact_path(artifact), feeds), run_onnx(paths[artifact.batch], feeds)
        np.testing.assert_array_equal(here["logits"], there["logits"])


def test_a_missing_source_leaves_the_old_bundle(tmp_path: Path, network: Path) -> None:
    where = _write(tmp_path / "bundle", network)
    before = sha256_of_file(where / "manifest.json")
    with pytest.raises(BundleError, match="there is no file"):
        write_bundle(
            where,
            name="x",
            task=TASK,
            preprocess=PREPROCESS,
            artifacts=[_artifact(network)],
            files={"onnx/base-b2.onnx": tmp_path / "absent.onnx"},
        )
    assert sha256_of_file(where / "manifest.json") == before
    assert [item.name for item in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("inside", ["../escape.onnx", "/etc/escape", "a/../../escape"])
def test_names_that_leave_the_bundle_are_refused(tmp_path: Path, network: Path, inside: str) -> None:
    with pytest.raises(BundleError, match="leaves the bundle"):
        write_bundle(
            tmp_path / "bundle",
            name="x",
            task=TASK,
            preprocess=PREPROCESS,
            artifacts=[],
            files={inside: network},
        )
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_without_its_file_is_refused(tmp_path: Path, network: Path) -> None:
    with pytest.raises(BundleError, match="which is not among its files"):
        write_bundle(
            tmp_path / "bundle",
            name="x",
            task=TASK,
            preprocess=PREPROCESS,
            artifacts=[_artifact(network)],
            files={},
        )
