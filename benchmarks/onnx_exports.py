"""Networks of five libraries as ONNX files: by both of torch's exporters, as written and simplified.

Usage: python benchmarks/onnx_exports.py [NAME ...] [--folder build/onnx_exports]

Files are kept in the folder, and an interrupted run goes on behind them. Each network has a process of its own. Weights
are random but seeded, so that `build_network` gives the module again that a file was made from.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from coverage import build, enliven
from torch import nn

HERE = Path(__file__).parent
FOLDER = HERE.parent / "build" / "onnx_exports"
EXPORTERS = ("torchscript", "dynamo")
FORMS = ("raw", "simplified")
OPSET = 18
TIME_LIMIT_S = 600.0

NETWORKS = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "densenet121",
    "efficientnet_b0", "squeezenet1_1", "regnet_y_400mf", "googlenet", "convnext_tiny", "mnasnet1_0",
    "lraspp_mobilenet_v3_large", "timm:vit_tiny_patch16_224", "timm:ghostnet_100", "timm:res2net50_14w_8s",
    "timm:mobilevit_xxs", "timm:edgenext_xx_small", "timm:resnext50_32x4d", "timm:repvgg_a0", "yolov5n.yaml",
    "yolov8n.yaml", "yolo11n.yaml", "yolov8n-seg.yaml", "smp:Unet", "smp:FPN", "smp:DeepLabV3Plus", "smp:Linknet",
    "hf:resnet", "hf:regnet", "hf:segformer", "hf:mobilenet_v2", "hf:convnext",
)  # fmt: skip


class FirstOutputs(nn.Module):
    """A network that returns a plain tuple of the tensors in its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        result = self.model(x)
        return tuple(leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))


def build_network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network in evaluation mode with seeded weights, and an input for it."""
    torch.manual_seed(0)
    library, _, kind = name.partition(":")
    if library == "smp":
        model, example = _smp(kind)
    elif library == "hf":
        model, example = _transformers(kind)
    else:
        model, example = build(name)
        if example.shape[2:] == (64, 64):
            example = torch.rand(1, 3, 224, 224)
    torch.manual_seed(0)
    return FirstOutputs(enliven(model)).eval(), torch.rand(example.shape)


def _smp(kind: str) -> tuple[nn.Module, torch.Tensor]:
    import segmentation_models_pytorch as smp

    encoder = "mobilenet_v2" if kind == "DeepLabV3Plus" else "resnet18"
    return getattr(smp, kind)(encoder, encoder_weights=None, classes=5), torch.rand(1, 3, 128, 128)


def _transformers(kind: str) -> tuple[nn.Module, torch.Tensor]:
    import transformers as hf

    classes: dict[str, tuple[Any, Any]] = {
        "resnet": (
            hf.ResNetForImageClassification,
            hf.ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
        ),
        "regnet": (
            hf.RegNetForImageClassification,
            hf.RegNetConfig(depths=[1, 2, 3, 2], hidden_sizes=[32, 64, 160, 384], groups_width=16),
        ),
        "segformer": (hf.SegformerForSemanticSegmentation, hf.SegformerConfig()),
        "mobilenet_v2": (hf.MobileNetV2ForImageClassification, hf.MobileNetV2Config()),
        "convnext": (hf.ConvNextForImageClassification, hf.ConvNextConfig(depths=[1, 1, 2, 1])),
    }  # fmt: skip
    make, config = classes[kind]
    return make(config), torch.rand(1, 3, 128, 128)


def file_of(folder: Path, name: str, exporter: str, form: str) -> Path:
    return folder / f"{name.replace(':', '-').replace('.yaml', '')}.{exporter}.{form}.onnx"


def export(name: str, folder: Path) -> None:
    """Write the files that are missing."""
    from eightfold.export.simplify.simplify import simplify

    model, example = build_network(name)
    for exporter in EXPORTERS:
        raw = file_of(folder, name, exporter, "raw")
        if not raw.exists():
            half_done = raw.with_suffix(".part")
            with torch.no_grad():
                torch.onnx.export(
                    model, (example,), str(half_done), input_names=["images"], opset_version=OPSET,
                    dynamo=exporter == "dynamo", external_data=False, verbose=False,
                )  # fmt: skip
            half_done.rename(raw)
        simple = file_of(folder, name, exporter, "simplified")
        if not simple.exists():
            simplify(raw, simple)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--here", action="store_true", help="export in this process")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name in options.names:
        if options.here:
            export(name, options.folder)
            continue
        if all(file_of(options.folder, name, e, f).exists() for e in EXPORTERS for f in FORMS):
            continue
        command = [sys.executable, __file__, name, "--here", "--folder", str(options.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
            words = "done" if not done.returncode else (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
        except subprocess.TimeoutExpired:
            words = f"no answer in {TIME_LIMIT_S:.0f} s"
        print(name, words, flush=True)


if __name__ == "__main__":
    main()
