"""Networks of five libraries as ONNX files: by both of torch's exporters, as written and simplified.

Usage: python benchmarks/onnx_exports.py [NAME ...] [--folder build/onnx_exports]

The names are those of `onnx_names.txt`. Files are kept in the folder, and an interrupted run goes on behind them. Each
network has a process of its own. Weights are random but seeded, so that `build_network` gives the module again that a
file was made from. Auxiliary heads that only training uses are left out: no file holds them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from coverage_networks import build, enliven
from torch import nn

HERE = Path(__file__).parent
FOLDER = HERE.parent / "build" / "onnx_exports"
NETWORKS = tuple((HERE / "onnx_names.txt").read_text().split())
EXPORTERS = ("torchscript", "dynamo")
FORMS = ("raw", "simplified")
OPSET = 18
SIDE = 96
TIME_LIMIT_S = 1200.0

# Configurations of transformers, small enough to be exported in seconds.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "resnet": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    "regnet": {"depths": [1, 2, 3, 2], "hidden_sizes": [32, 64, 160, 384], "groups_width": 16},
    "segformer": {},
    "mobilenet_v1": {},
    "mobilenet_v2": {},
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "convnext": {"depths": [1, 1, 2, 1]},
    "convnextv2": {"depths": [1, 1, 2, 1], "hidden_sizes": [40, 80, 160, 320]},
    "vit": {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 768},
    "deit": {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 768},
    "swin": {"embed_dim": 48, "depths": [2, 2], "num_heads": [3, 6], "window_size": 4},
    "mobilevit": {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320]},
    "poolformer": {},
    "levit": {"image_size": 128},
    "bit": {"depths": [1, 1, 2, 1], "hidden_sizes": [64, 128, 256, 512], "embedding_size": 32, "num_groups": 8},
    "cvt": {"depth": [1, 2, 3]},
    "focalnet": {"embed_dim": 48, "depths": [1, 1, 2, 1]},
    "pvt_v2": {},
}


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
    elif name in ("googlenet", "inception_v3"):
        model, example = _without_auxiliary_heads(name)
    else:
        model, example = build(name)
        if example.shape[2:] == (64, 64):
            example = torch.rand(1, 3, SIDE, SIDE)
    torch.manual_seed(0)
    return FirstOutputs(enliven(model)).eval(), torch.rand(example.shape)


def _without_auxiliary_heads(name: str) -> tuple[nn.Module, torch.Tensor]:
    from torchvision import models

    side = 160 if name == "inception_v3" else SIDE
    return models.get_model(name, weights=None, aux_logits=False, init_weights=True), torch.rand(1, 3, side, side)


def _smp(kind: str) -> tuple[nn.Module, torch.Tensor]:
    import segmentation_models_pytorch as smp

    architecture, _, encoder = kind.partition("/")
    return getattr(smp, architecture)(encoder, encoder_weights=None, classes=5), torch.rand(1, 3, 128, 128)


def _transformers(kind: str) -> tuple[nn.Module, torch.Tensor]:
    from transformers import CONFIG_MAPPING, AutoModelForImageClassification, AutoModelForSemanticSegmentation

    side = TRANSFORMERS[kind].get("image_size", 128)
    stated = {"image_size": side} if kind in ("vit", "deit", "swin", "mobilevit", "focalnet", "pvt_v2") else {}
    config = CONFIG_MAPPING[kind](**TRANSFORMERS[kind], **stated)
    config.architectures = []  # None, which it is here, is not looked for where a kind has several classes
    maps = kind == "segformer"
    factory = AutoModelForSemanticSegmentation if maps else AutoModelForImageClassification
    return factory.from_config(config), torch.rand(1, 3, side, side)


def file_of(folder: Path, name: str, exporter: str, form: str) -> Path:
    short = name.replace(":", "-").replace("/", "-").replace(".yaml", "")
    return folder / f"{short}.{exporter}.{form}.onnx"


def export(model: nn.Module, example: torch.Tensor, exporter: str, raw: Path, simple: Path | None) -> None:
    """Write the files that are missing, the simplified one where it has a path."""
    from eightfold.export.fixed_size.fix_shapes import freeze_onnx
    from eightfold.export.simplify.simplify import simplify

    if not raw.exists():
        half_done = raw.with_suffix(".part")
        with torch.no_grad():
            torch.onnx.export(
                model, (example,), str(half_done), input_names=["images"], opset_version=OPSET,
                dynamo=exporter == "dynamo", external_data=False, verbose=False,
            )  # fmt: skip
        half_done.rename(raw)
    if simple is not None and not simple.exists():
        simplify(freeze_onnx(raw, simple))  # torch leaves the shapes of some outputs open


def export_all(name: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    model, example = build_network(name)
    for exporter in EXPORTERS:
        export(model, example, exporter, *(file_of(folder, name, exporter, form) for form in FORMS))


def in_a_process(function: Callable[..., None], *arguments: Any) -> str:
    """Call a function in a fork of this process, whose imports are done. Returns what went wrong, or ""."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(TIME_LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        return f"no answer in {TIME_LIMIT_S:.0f} s"
    return f"failed ({process.exitcode})" if process.exitcode else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        if not all(file_of(options.folder, name, e, f).exists() for e in EXPORTERS for f in FORMS):
            print(name, in_a_process(export_all, name, options.folder) or "done", flush=True)


if __name__ == "__main__":
    main()
