"""An engine that was built on a board goes into the bundle of its graph."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.cli.app import main
from eightfold.errors import BuildError, BundleError
from eightfold.export.bundle.add_engine import add_engine
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.sign import new_key, sign_bundle
from tests.export.networks import wide_net

pytest.importorskip("tensorrt_rtx")

BUILDER = Path(__file__).parents[3] / "src/eightfold/runtime/cpp/src/trt_build.cpp"


def exported(folder: Path, *, seed: int) -> Path:
    net = wide_net()  # whose weights are large enough to lie in a file of their own
    torch.manual_seed(seed)
    torch.nn.init.normal_(next(net.parameters()), std=0.05)
    preprocess = Preprocess(height=16, width=16)
    return export_bundle(net, folder, preprocess=preprocess, batches=(1, 2), name="net")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("first") / "bundle", seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("other") / "bundle", seed=1)


@pytest.fixture
def bundle(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "bundle")


def built(bundle: Path, engine: Path, batch: int = 1, precision: EnginePrecision = "fp32", **options: Any) -> Path:
    graph = next(each for each in Bundle.open(bundle).manifest.artifacts if each.batch == batch)
    return build_engine(bundle / graph.path, engine, precision=precision, options=BuildOptions(**options))


def as_cpp_wrote_it(engine: Path) -> None:
    """The C++ builder's record lacks what it does not know."""
    record = json.loads(sidecar_path(engine).read_text())
    body = BUILDER.read_text().partition("const nlohmann::json record = ")[2].partition("};")[0]
    keys = re.findall(r'\{"(\w+)", ', body)
    assert set(keys) > {"onnx_sha256", "parsed_sha256", "engine_sha256", "steps"}
    sidecar_path(engine).write_text(json.dumps({key: record[key] for key in keys}))


@pytest.mark.parametrize(
    ("precision", "by_cpp", "form"),
    [("fp32", False, "bundle"), ("fp32", True, "bundle"), ("fp16", False, "bundle.eightfold")],
)
def test_the_bundle_holds_it_and_all_that_was_there(
    tmp_path: Path, bundle: Path, precision: EnginePrecision, by_cpp: bool, form: str
) -> None:
    before = Bundle.open(bundle).manifest
    engine = built(bundle, tmp_path / "board.engine", 2, precision)
    if by_cpp:
        as_cpp_wrote_it(engine)
    after = Bundle.open(add_engine(bundle, engine, tmp_path / "new" / form))
    after.verify()
    assert after.manifest.artifacts[:-1] == before.artifacts
    assert {name: after.manifest.files[name] for name in before.files} == before.files
    assert (after.manifest.task, after.manifest.preprocess) == (before.task, before.preprocess)
    assert after.manifest.provenance == before.provenance
    added = after.manifest.artifacts[-1]
    assert (added.id, added.format, added.batch) == (f"baseline-{precision}-rtx-sm86-b2-engine", "engine", 2)
    assert added.requires["compute_capability"] == "8.6"
    assert after.artifact_path(added).read_bytes() == engine.read_bytes()
    assert EngineRecord.of(after.artifact_path(added)) == EngineRecord.of(engine)


def test_one_of_the_same_name_is_replaced_in_place(tmp_path: Path, bundle: Path) -> None:
    add_engine(bundle, built(bundle, tmp_path / "a.engine"))
    add_engine(bundle, built(bundle, tmp_path / "b.engine", 2))
    again = built(bundle, tmp_path / "c.engine", workspace_bytes=1 << 30)
    add_engine(bundle, again)
    engines = [each for each in Bundle.open(bundle).manifest.artifacts if each.format == "engine"]
    assert [each.batch for each in engines] == [2, 1]
    assert EngineRecord.of(bundle / engines[-1].path).options.workspace_bytes == 1 << 30
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize(("precision", "by_cpp"), [("fp32", False), ("fp32", True), ("fp16", False)])
def test_an_engine_of_another_training_is_refused(
    tmp_path: Path, bundle: Path, other: Path, precision: EnginePrecision, by_cpp: bool
) -> None:
    """Its graph is the same file: the weights lie in another."""
    path = Bundle.open(bundle).manifest.artifacts[0].path
    assert (bundle / path).read_bytes() == (other / path).read_bytes()
    engine = built(other, tmp_path / "net.engine", precision=precision)
    if by_cpp:
        as_cpp_wrote_it(engine)
    with pytest.raises(BundleError, match=r"net\.engine was built from a graph that .*bundle does not hold; allowed: "):
        add_engine(bundle, engine)
    assert "engine" not in {each.format for each in Bundle.open(bundle).manifest.artifacts}


def test_an_engine_to_look_inside_is_refused(tmp_path: Path, bundle: Path) -> None:
    inner = "/model/model.0/Conv_output_0"
    with pytest.raises(BundleError, match="does not hold"):
        add_engine(bundle, built(bundle, tmp_path / "net.engine", inner_outputs=(inner,)))


def test_an_engine_without_its_record_is_refused(tmp_path: Path, bundle: Path) -> None:
    engine = built(bundle, tmp_path / "net.engine")
    sidecar_path(engine).unlink()
    with pytest.raises(BuildError, match="no record lies beside"):
        add_engine(bundle, engine)


def test_a_signature_does_not_go_along(tmp_path: Path, bundle: Path) -> None:
    pytest.importorskip("cryptography")
    public = new_key(tmp_path / "key")
    sign_bundle(bundle, tmp_path / "key")
    add_engine(bundle, built(bundle, tmp_path / "net.engine"))
    with pytest.raises(Exception, match="is not signed"):
        Bundle.open(bundle, key=public)


def test_the_command(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = built(bundle, tmp_path / "net.engine")
    output = tmp_path / "new.eightfold"
    monkeypatch.setattr(sys, "argv", ["eightfold", "add-engine", str(bundle), str(engine), "-o", str(output)])
    assert main() == 0
    assert (
        "baseline-fp32-rtx-sm86-b1-engine  rtx:sm86  engines/baseline-fp32-rtx-sm86-b1.engine"
        in capsys.readouterr().out
    )


def test_a_board_needs_the_base_install_only(tmp_path: Path, bundle: Path) -> None:
    engine = built(bundle, tmp_path / "net.engine", precision="fp16")
    program = (
        "import sys\n"
        "for name in ('onnx', 'torch', 'onnxruntime', 'tensorrt_rtx'): sys.modules[name] = None\n"
        "import eightfold; eightfold.add_engine(sys.argv[1], sys.argv[2])"
    )
    command = [sys.executable, "-c", program, str(bundle), str(engine)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(Bundle.open(bundle).manifest.artifacts) == 3
