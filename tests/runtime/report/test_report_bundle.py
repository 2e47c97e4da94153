"""A report from a bundle alone, with its own latency table, another machine's, or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eightfold.cli import app
from eightfold.errors import BundleError
from eightfold.files import sha256_of_bytes
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.bundle_names import MANIFEST_DIGEST_NAME, MANIFEST_NAME, manifest_digest_line
from eightfold.runtime.report.report_bundle import content_of_bundle


def add(bundle: Path, files: dict[str, str], changes: dict[str, Any]) -> None:
    """Put files and manifest entries into a bundle, as its writer would."""
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    for name, text in files.items():
        (bundle / name).write_text(text)
        manifest["files"][name] = {"bytes": len(text.encode()), "sha256": sha256_of_bytes(text.encode())}
    manifest.update(changes)
    data = json.dumps(manifest).encode()
    (bundle / MANIFEST_NAME).write_bytes(data)
    (bundle / MANIFEST_DIGEST_NAME).write_text(manifest_digest_line(data))


def with_metrics(bundle: Path, values: list[float], **more: Any) -> list[dict[str, Any]]:
    artifacts: list[dict[str, Any]] = json.loads((bundle / MANIFEST_NAME).read_text())["artifacts"]
    for artifact, value in zip(artifacts, values, strict=False):
        artifact["metrics"] = [{"name": "top1", "value": value, "data": "images", "images": 1000}]
    artifacts[-1].update(more)
    return artifacts


def test_a_bundle_without_a_table(bundle_path: Path) -> None:
    content = content_of_bundle(Bundle.open(bundle_path))
    assert content.latency is None
    assert content.cards == ()
    assert "not in the latency table" in content.not_done[0].why
    assert content.usage[1].code.startswith(f"eightfold inspect {bundle_path}")


def test_another_machine_s_table(make_bundle: Any) -> None:
    path = make_bundle(batches=(1,), variants={"baseline": 1.0, "pruned": 2.0})
    add(path, {}, {"artifacts": with_metrics(path, [0.98, 0.97])})
    table = bench(path, backends=["onnxruntime"], seconds=0.01)
    content = content_of_bundle(Bundle.open(path), table)
    assert content.latency == table
    assert content.not_done == ()
    assert content.cards[0].label == "Speed, batch 1"
    assert content.cards[0].note == "pruned-fp32 against baseline-fp32"
    assert [(entry.metric, entry.value) for entry in content.accuracy] == [("top-1", 98.0), ("top-1", 97.0)]
    assert content.accuracy[0].change is None
    assert content.accuracy[1].change == pytest.approx(-1.0)


def test_the_bundle_s_own_table_and_an_engine_s_messages(make_bundle: Any) -> None:
    path = make_bundle(batches=(1, 4))
    table = bench(path, batches=[1], backends=["onnxruntime"], seconds=0.01)
    artifacts = with_metrics(path, [], format="engine", target="rtx:sm86", requires={"tensorrt_rtx": "1.7"})
    artifacts[-1]["files"] = [f"{artifacts[-1]['path']}.json"]
    record = json.dumps({"seconds": 1.5, "messages": ["[builder] a warning"]})
    add(
        path,
        {f"{artifacts[-1]['path']}.json": record, "latency.json": table.to_json()},
        {"artifacts": artifacts, "documents": {"latency": "latency.json"}, "provenance": {"seed": {"data": 0}}},
    )
    content = content_of_bundle(Bundle.open(path))
    assert content.latency == table
    assert content.engines[0].messages == ("[builder] a warning",)
    assert content.engines[0].seconds == 1.5
    assert content.provenance["Bundle"]["seed.data"] == "0"
    assert content.not_done[0].what == f"Latency of {artifacts[-1]['id']}"


def test_an_engine_s_record_that_is_no_json(make_bundle: Any) -> None:
    path = make_bundle(batches=(1,))
    artifacts = with_metrics(path, [], format="engine", target="rtx:sm86")
    record = f"{artifacts[-1]['path']}.json"
    artifacts[-1]["files"] = [record]
    add(path, {record: "not JSON"}, {"artifacts": artifacts})
    with pytest.raises(BundleError, match=r"\.json is not JSON .*; make the bundle again"):
        content_of_bundle(Bundle.open(path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["eightfold", *map(str, arguments)])
    return app.main()


def test_the_command(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "report.html"
    assert run(monkeypatch, "report", bundle_path, "--output", output) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    assert "<!doctype html>" in output.read_text()


def test_a_table_that_is_none(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "report", bundle_path, "--latency", bundle_path / MANIFEST_NAME, "-o", tmp_path / "r") == 1
    assert capsys.readouterr().err.strip().endswith("allowed: latency table; pass the right file")
    assert not (tmp_path / "r").exists()


def test_a_board_whose_locale_is_not_utf_8(bundle_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "eightfold", "report", str(bundle_path), "-o", str(output)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "</html>" in output.read_text(encoding="utf-8")
