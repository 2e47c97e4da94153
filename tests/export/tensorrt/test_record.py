from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.errors import BuildError
from eightfold.export.bundle.write import engine_artifact
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.tensorrt.refit import refit_engine
from eightfold.export.torch.onnx_export import export_onnx
from tests.export.networks import small_net

pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    network = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    return build_engine(network, tmp_path / "net.engine", precision="fp32")


def test_the_file_says_what_was_measured(engine: Path) -> None:
    record = EngineRecord.of(engine)
    assert record.engine_bytes == engine.stat().st_size
    assert record.seconds > 0


@pytest.mark.parametrize("damage", ["truncated", "another"])
def test_a_record_of_another_engine_is_believed_nowhere(engine: Path, damage: str) -> None:
    content = engine.read_bytes()
    engine.write_bytes(content[:-100] if damage == "truncated" else b"another")
    with pytest.raises(BuildError, match=r"net\.engine\.json is the record of another engine; allowed: .*; copy both"):
        EngineRecord.of(engine)
    with pytest.raises(BuildError, match="record of another engine"):
        engine_artifact(engine, id="net", inside="net.engine", variant="net")
    with pytest.raises(BuildError, match="record of another engine"):
        refit_engine(engine, engine.with_name("net.onnx"), engine)


def test_an_engine_without_its_record(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(
        BuildError, match=r"no record lies beside .*net\.engine: there is no net\.engine\.json; allowed: "
    ):
        EngineRecord.of(engine)
