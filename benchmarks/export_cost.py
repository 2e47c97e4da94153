"""What exporting costs: time to simplify and check Swin-T, and what further batches and image sizes of ResNet-50 add
to a bundle.

Usage: python benchmarks/export_cost.py [--large]

`--large` measures instead a graph whose one weight has 2.3 GB, more than protobuf holds: simplified, bundled, opened
and run. It needs 10 GB of memory, 7 GB of disk and some minutes, and has a result file of its own.

Times are wall time of one call after a first one that warms the file cache, the child processes of the simplifiers
included; CPU time of the calling process and its children stands beside it, because a busy machine changes the first
and not the second.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from large_graph import IMAGE, SIDE, diagonal, write_large_graph

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.runtime.backends import open_session
from eightfold.runtime.bundle.bundle import Bundle

RESULT = Path(__file__).parent / "results" / "export_cost.md"
LARGE_RESULT = RESULT.with_name("export_large.md")
BATCHES = (1, 2, 4, 8, 16)
FURTHER_SIZE = 160


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.monotonic(), _cpu_seconds()
    call()
    return time.monotonic() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def swin_rows(folder: Path) -> list[str]:
    network = torchvision.models.swin_t(weights=None).eval()
    exporters: tuple[Exporter, ...] = ("torchscript", "dynamo")
    rows = []
    for exporter in exporters:
        raw = export_onnx(network, folder / "swin.onnx", batch=1, image_size=224, opset=18, exporter=exporter)
        simplify_onnx(raw, folder / "warm.onnx")
        done = []
        wall, cpu = cost(lambda: done.append(simplify_onnx(raw, folder / "small.onnx")))  # noqa: B023 called at once
        nodes = f"{done[0].nodes_before} to {done[0].nodes_after} nodes"
        rows.append(f"| Swin-T from {exporter}: simplify and verify | {nodes} | {wall:.1f} s | {cpu:.1f} s |")
    return rows


def resnet_rows(folder: Path) -> list[str]:
    network = torchvision.models.resnet50(weights=None).eval()
    images = np.random.default_rng(0).random((max(BATCHES), 3, 224, 224), dtype=np.float32)
    one = cost(lambda: export_batches(network, {1: folder / "one.onnx"}, images=images))
    paths = {batch: folder / f"b{batch}.onnx" for batch in BATCHES}
    each = cost(lambda: [export_batches(network, {batch: path}, images=images) for batch, path in paths.items()])
    derived = cost(lambda: export_batches(network, paths, images=images))
    preprocess = Preprocess(height=224, width=224)
    unit = (folder / "one.onnx").stat().st_size
    export_bundle(network, folder / "bundle", preprocess=preprocess, batches=BATCHES)
    export_bundle(network, folder / "sizes", preprocess=preprocess, batches=BATCHES, sizes=[FURTHER_SIZE])
    ratios = [size_of(folder / name) / unit for name in ("bundle", "sizes")]
    return [
        f"| ResNet-50, one batch: export, simplify, verify | | {one[0]:.1f} s | {one[1]:.1f} s |",
        f"| ResNet-50, five batches, each exported | | {each[0]:.1f} s | {each[1]:.1f} s |",
        f"| ResNet-50, five batches, three of them derived | | {derived[0]:.1f} s | {derived[1]:.1f} s |",
        f"| ResNet-50, bundle of five batches | {ratios[0]:.4f} times one ONNX file | | |",
        f"| ResNet-50, bundle of five batches at two image sizes | {ratios[1]:.4f} times one ONNX file | | |",
    ]


def large_rows(folder: Path) -> list[str]:
    raw = write_large_graph(folder)
    done = []
    simple = cost(lambda: done.append(simplify_onnx(raw, folder / "small.onnx")))
    preprocess = Preprocess(height=IMAGE[1], width=IMAGE[2])
    bundled = cost(lambda: export_bundle(raw, folder / "bundle", preprocess=preprocess))
    opened = cost(lambda: check_large(folder / "bundle"))
    nodes = f"{done[0].nodes_before} to {done[0].nodes_after} nodes"
    size = f"{size_of(folder / 'bundle') / 1e9:.1f} GB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # the simplifiers never see the weight
    return [
        f"| one weight of 2.3 GB: simplify and verify | {nodes} | {simple[0]:.1f} s | {simple[1]:.1f} s |",
        f"| bundle of it: freeze, simplify, verify | {size} | {bundled[0]:.1f} s | {bundled[1]:.1f} s |",
        f"| bundle opened, verified and run | the answer is right | {opened[0]:.1f} s | {opened[1]:.1f} s |",
        f"| peak memory of the process, mapped files included | {peak:.1f} GB | | |",
    ]


def check_large(bundle_path: Path) -> None:
    """Raises AssertionError unless the runtime's session gives the product that the graph stands for."""
    bundle = Bundle.open(bundle_path)
    bundle.verify()
    (artifact,) = bundle.manifest.artifacts
    session = open_session(bundle.artifact_path(artifact), "onnxruntime")
    slot = session.new_slot()
    images = np.random.default_rng(0).random((1, *IMAGE), dtype=np.float32)
    slot.run_on({"images": images})
    np.testing.assert_allclose(slot.outputs["scores"], images.reshape(1, -1) * diagonal(SIDE), rtol=1e-6)


def main(large: bool = False) -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        rows = large_rows(Path(name)) if large else [*swin_rows(Path(name)), *resnet_rows(Path(name))]
    result = LARGE_RESULT if large else RESULT
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    text = "\n".join(
        ["# Cost of exporting", "", machine, "", "| what | result | wall | CPU |", "|---|---|---|---|", *rows]
    )
    print(text)
    result.parent.mkdir(exist_ok=True)
    result.write_text(text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="a graph with one weight of 2.3 GB")
    main(**vars(parser.parse_args()))
