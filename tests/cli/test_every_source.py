"""Each command that takes a network takes it from each source: a small network of every source through all of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

import eightfold as ef
from eightfold.cli.app import main
from eightfold.compress.profile_network import profile
from eightfold.export.verify.module_runs import output_tensors
from eightfold.export.verify.verify import run_onnx
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.pruned_folder import onnx_file_of
from eightfold.zoo.sources.registry import SOURCES, load_source
from tests.zoo.sources.tiny import TINY, TinyNetwork, labelled_images, photographs

pytestmark = [
    pytest.mark.slow,
    # Code of the user's own is imported, and a checkpoint of Ultralytics unpickled, with a warning.
    pytest.mark.filterwarnings("ignore::eightfold.zoo.sources.base.SourceWarning"),
]
VARIANTS = ("baseline", "pruned")


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    folder = tmp_path_factory.mktemp(request.param)
    sys.path.insert(0, str(folder))
    sys.modules.pop("tiny_own_code", None)
    yield TINY[request.param](folder)
    sys.path.remove(str(folder))


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
    assert main() == 0, words


def loaded(tiny: TinyNetwork) -> LoadedModel:
    """By the Python interface, with the same options."""
    given = dict(zip(tiny.options[::2], tiny.options[1::2], strict=True))
    side = given.get("--size")
    return load_source(
        tiny.text,
        SourceOptions(
            num_classes=int(given["--classes"]) if "--classes" in given else None,
            size=None if side is None else (int(side), int(side)),
            weights=Path(given["--weights"]) if "--weights" in given else None,
        ),
    )


def parameters(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_there_is_a_small_network_of_every_source() -> None:
    assert set(TINY) == {source.name for source in SOURCES}


def test_inspect(tiny: TinyNetwork, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "inspect", tiny.text, *tiny.options)
    assert f"parameters {parameters(loaded(tiny).module):,}, MACs " in capsys.readouterr().out


def test_prune(tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "prune", tiny.text, *tiny.options, "-o", tmp_path / "pruned")
    pruned = load_source(str(tmp_path / "pruned"))
    before = loaded(tiny)
    assert parameters(pruned.module) < parameters(before.module)
    assert (pruned.task, pruned.size) == (before.task, before.size)


def test_export(tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "export", tiny.text, *tiny.options, "-o", tmp_path / "bundle")
    bundle = ef.Bundle.open(tmp_path / "bundle")
    network = loaded(tiny)
    assert bundle.manifest.task == network.task
    images = torch.rand(1, 3, *network.size)
    found = run_onnx(bundle.artifact_path(bundle.manifest.artifacts[0]), {"images": images.numpy()})
    with torch.no_grad():
        expected = list(output_tensors(network.module.eval()(images)))
    assert len(found) == len(expected)
    for got, (_, known) in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(got, known.numpy(), rtol=1e-3, atol=1e-3)


def test_bench(tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch, which needs no export; a file of its own in onnxruntime."""
    backend = "onnxruntime" if onnx_file_of(tiny.text) else "torch"
    asked = ("--backend", backend, "--seconds", 0.01, "--threads", 1, "-o", tmp_path / "table.json")
    run(monkeypatch, "bench", tiny.text, *tiny.options, *asked)
    assert [row.backend for row in LatencyTable.load(tmp_path / "table.json").rows] == [backend]


def test_evaluate(tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, metrics = labelled_images(tmp_path / "data", tiny.kind), tmp_path / "metrics.json"
    run(monkeypatch, "evaluate", tiny.text, *tiny.options, *task(tiny), "--data", data, "--json", metrics)
    told = json.loads(metrics.read_text())
    measured = {"classify": "top-1", "detect": "mAP50", "segment": "mIoU", "matte": "MAD"}
    assert measured[tiny.kind] in told["results"][tiny.text]["metrics"]
    assert told["images"] == len(list(data.parent.rglob("*.png") if data.is_file() else data.rglob("*.png"))) / (
        2 if tiny.kind in ("segment", "matte") else 1
    )


def test_profile(
    tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layers take no time: which layers there are is what depends on the source."""

    def timer(points: Sequence[Any], _: object) -> tuple[list[float], float]:
        return [1.0] * len(points), 1.0

    assert profile.__kwdefaults__ is not None
    monkeypatch.setitem(profile.__kwdefaults__, "timer", timer)
    run(monkeypatch, "profile", tiny.text, *tiny.options, "-o", tmp_path / "points.json")
    assert " layers: " in capsys.readouterr().out
    assert (tmp_path / "points.json").stat().st_size


def test_compress_and_the_recipe(
    tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "photos", 8, seed=1)
    asked = ("--images", tmp_path / "photos", "-o", tmp_path / "out", "--dry-run")
    run(monkeypatch, "compress", tiny.text, *tiny.options, *asked)
    given = dict(zip(tiny.options[::2], tiny.options[1::2], strict=True))
    network = {"source": tiny.text, "weights": given.get("--weights"), "classes": given.get("--classes")}
    side = loaded(tiny).size
    recipe = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "model": {key: value for key, value in network.items() if value is not None},
        "data": {"source": str(tmp_path / "photos")},
        "preprocess": {"height": side[0], "width": side[1]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run(monkeypatch, "run", tmp_path / "recipe.yaml", "--dry-run")
    told = capsys.readouterr().out
    assert told.count("export pruned: would run") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pruned", "ultralytics", "smp", "hf"])
@pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning")
@pytest.mark.filterwarnings("ignore::eightfold.export.int8.quantize.LossyInt8Warning")
def test_compress_to_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that no other test compresses. A detector with random weights finds nothing without labels."""
    small = TINY[name](tmp_path)
    photographs(tmp_path / "photos", 8, seed=1)
    labels = ("--data", labelled_images(tmp_path / "data", "detect")) if small.kind == "detect" else ()
    asked = ("--images", tmp_path / "photos", "-o", tmp_path / "out", *labels)
    quick = ("--minutes", 0, "--seconds", 0.01, "--batch", 1, "--force")
    run(monkeypatch, "compress", small.text, *small.options, *asked, *quick)
    artifacts = ef.Bundle.open(tmp_path / "out" / "bundle").manifest.artifacts
    assert {each.id for each in artifacts} >= {f"{each}-fp32-b1" for each in VARIANTS}
    before, after = (_values(tmp_path / "out" / "bundle" / "onnx" / f"{each}-fp32-b1.onnx") for each in VARIANTS)
    assert after < before


def _values(file: Path) -> int:
    return sum(math.prod(each.dims) for each in onnx.load(file).graph.initializer)


def task(tiny: TinyNetwork) -> tuple[str, ...]:
    """A function of the user's own does not say what its outputs mean."""
    return ("--task", "classify") if tiny.text.startswith("tiny_own_code") else ()
